// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/runtime.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/text.h"

#define PREFIX	"umem-qemu-"
#define PATIENCE_S	2
#define BACKLOG		64

size_t runtime_folders(char *folders[RUNTIME_FOLDERS_MAX])
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	size_t nr = 0;

	if (xdg && *xdg == '/')
		folders[nr++] = text_copy(xdg);
	if (!geteuid())
		folders[nr++] = text_copy("/run/umem");
	folders[nr++] = text_format("/tmp/umem-%u", (unsigned int)geteuid());
	return nr;
}

int runtime_make(const char *folder, char **error)
{
	struct stat st;

	if (mkdir(folder, 0700) && errno != EEXIST) {
		*error = text_format("%s cannot be made: %s", folder, strerror(errno));
		return -1;
	}
	if (lstat(folder, &st)) {
		*error = text_format("%s: %s", folder, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		*error = text_format("%s has file type 0%o, wanted a folder", folder,
				     st.st_mode & S_IFMT);
		return -1;
	}
	if (st.st_uid != geteuid() || st.st_mode & 022) {
		*error = text_format("%s belongs to user %u with mode 0%o, wanted user %u and nobody else to write to it",
				     folder, (unsigned int)st.st_uid, st.st_mode & 07777,
				     (unsigned int)geteuid());
		return -1;
	}
	return 0;
}

char *runtime_file(const char *folder, pid_t pid, const char *end)
{
	return text_format("%s/" PREFIX "%d%s", folder, (int)pid, end);
}

pid_t runtime_file_pid(const char *name, const char *end)
{
	char *rest;
	long pid;

	if (strncmp(name, PREFIX, strlen(PREFIX)))
		return 0;
	name += strlen(PREFIX);
	if (!isdigit((unsigned char)*name))
		return 0;
	errno = 0;
	pid = strtol(name, &rest, 10);
	return strcmp(rest, end) || errno || pid > INT_MAX ? 0 : (pid_t)pid;
}

int runtime_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timeval patience = { .tv_sec = PATIENCE_S };
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* A listener with a full backlog makes wait; one that is stopped shall not for ever. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)) &&
	    !fcntl(fd, F_SETFL, O_NONBLOCK))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int runtime_clear(const char *path)
{
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = runtime_connect(path);
	if (fd == -ECONNREFUSED)
		return unlink(path) && errno != ENOENT ? -errno : 0;
	if (fd >= 0)
		close(fd);
	return fd >= 0 || fd == -EAGAIN ? -EADDRINUSE : fd;
}

static int listen_at(const char *path, bool own)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mode_t mask;
	int err;

	if (fd < 0)
		return -errno;
	strcpy(address.sun_path, path);
	mask = umask(0177);
	if (!own)
		umask(mask);
	/* It has its mode from its first moment on. */
	err = bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, BACKLOG) ?
	      -errno : 0;
	umask(mask);
	if (!err)
		return fd;
	close(fd);
	return err;
}

int runtime_listen(const char *path, bool own, char **error)
{
	size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);
	int err;

	if (strlen(path) >= room) {
		*error = text_format("%s has %zu characters, a socket's path has at most %zu", path,
				     strlen(path), room - 1);
		return -1;
	}
	err = runtime_clear(path);
	if (!err)
		err = listen_at(path, own);
	if (err >= 0)
		return err;
	if (err == -EEXIST)
		*error = text_format("%s is there and no socket, wanted nothing there", path);
	else if (err == -EADDRINUSE)
		*error = text_format("%s is there and somebody listens at it, wanted nothing there",
				     path);
	else
		*error = text_format("%s: cannot listen there: %s", path, strerror(-err));
	return -1;
}
