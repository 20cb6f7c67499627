// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/runtime.h"
#include "common/text.h"

#define PATIENCE_MS	5000

/* ---- processes ---- */

/* Clock ticks from boot to its start; 0: there is none. */
static uint64_t started(pid_t pid)
{
	unsigned long long ticks = 0;
	char path[40], text[1024], *rest;
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	rest = strrchr(text, ')');	/* its name may hold anything */
	for (int field = 2; rest && field < 22; field++)
		rest = strchr(rest + 1, ' ');
	if (rest)
		sscanf(rest, " %llu", &ticks);
	return ticks;
}

json_t *process_json(pid_t pid)
{
	return json_pack("{s:i, s:I}", "pid", (int)pid, "started", (json_int_t)started(pid));
}

pid_t process_pid(json_t *process)
{
	return (pid_t)json_integer_value(json_object_get(process, "pid"));
}

int process_open(json_t *process)
{
	pid_t pid = process_pid(process);
	int fd;

	if (pid <= 0)
		return -ESRCH;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -errno;
	/* After the descriptor is had: the number may have been given to another before. */
	if (started(pid) == (uint64_t)json_integer_value(json_object_get(process, "started")))
		return fd;
	close(fd);
	return -ESRCH;
}

int process_kill(int fd)
{
	struct pollfd ended = { .fd = fd, .events = POLLIN };
	int got;

	syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	do {
		got = poll(&ended, 1, PATIENCE_MS);
	} while (got < 0 && errno == EINTR);
	close(fd);
	return got == 1 ? 0 : -ETIMEDOUT;
}

/* ---- writing ---- */

/* At once: json_dumpfd() has a system call for each token, and a guest may be stopped meanwhile. */
static int write_out(const char *path, json_t *record)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	char *text;
	size_t size;
	ssize_t n;
	int err = 0;

	if (fd < 0)
		return -errno;
	text = json_dumps(record, JSON_INDENT(1));
	size = text ? strlen(text) : 0;
	errno = EIO;
	n = text ? write(fd, text, size) : -1;
	if (n < 0 || fsync(fd))
		err = -errno;
	else if ((size_t)n < size)
		err = -ENOSPC;	/* what a regular file that takes less has run into */
	free(text);
	close(fd);
	return err;
}

static void sync_folder(const char *path)
{
	char *folder = text_copy(path);
	char *slash = strrchr(folder, '/');
	int fd;

	if (slash)
		*slash = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(folder);
}

char *record_write(const char *path, json_t *record)
{
	char *next = text_format("%s.new", path), *why = NULL;
	int err = write_out(next, record);

	if (!err && rename(next, path))
		err = -errno;
	if (err) {
		why = text_format("%s cannot be written: %s", path, strerror(-err));
		unlink(next);
	} else {
		sync_folder(path);
	}
	free(next);
	return why;
}

/* ---- finding ---- */

/* It has a secret, and says which processes are to be killed. */
static json_t *read_record(const char *path, char **error)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	json_error_t json_error;
	json_t *record = NULL;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		*error = text_format("%s: %s, wanted the record of a umem-qemu", path,
				     strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077) {
		*error = text_format("%s belongs to user %u with mode 0%o, wanted a file of user %u that nobody else can read or write",
				     path, (unsigned int)st.st_uid, st.st_mode & 07777,
				     (unsigned int)geteuid());
	} else {
		record = json_loadfd(fd, JSON_REJECT_DUPLICATES, &json_error);
		if (!json_is_object(record))
			*error = text_format("%s is no record of a umem-qemu: %s", path,
					     record ? "no object" : json_error.text);
	}
	if (fd >= 0)
		close(fd);
	if (!*error)
		return record;
	json_decref(record);
	return NULL;
}

struct search {
	const char *target;
	json_t *record;
	char *path;
	unsigned int found;
	struct text seen;
};

static bool is_meant(const struct search *search, pid_t pid, json_t *record)
{
	const char *name = json_string_value(json_object_get(record, "name"));
	char number[16];

	snprintf(number, sizeof(number), "%d", pid);
	return !strcmp(number, search->target) || (name && !strcmp(name, search->target));
}

static bool runs(json_t *process)
{
	int fd = process_open(process);

	if (fd < 0)
		return fd != -ESRCH;
	close(fd);
	return true;
}

/* Of a guest that is no more: umem-qemu and QEMU were killed, and nobody was left to tidy up. */
static bool is_left_over(json_t *record)
{
	return !runs(json_object_get(record, "qemu")) &&
	       !runs(json_object_get(record, "umemd")) &&
	       !runs(json_object_get(record, "umem-qemu"));
}

static void look_at(struct search *search, const char *path, pid_t pid)
{
	char *error = NULL;
	json_t *record = read_record(path, &error);
	const char *name = json_string_value(json_object_get(record, "name"));

	free(error);
	if (!record)
		return;
	if (is_left_over(record)) {
		unlink(path);
		json_decref(record);
		return;
	}
	text_add(&search->seen, "%s%d (%s)", search->seen.data ? ", " : "", pid, name ? name : "-");
	if (is_meant(search, pid, record) && !search->found++) {
		search->record = json_incref(record);
		search->path = text_copy(path);
	}
	json_decref(record);
}

static void look_in(struct search *search, const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = runtime_file_pid(entry->d_name, RUNTIME_RECORD);
		char *path;

		if (!pid)
			continue;
		path = text_format("%s/%s", folder, entry->d_name);
		look_at(search, path, pid);
		free(path);
	}
	if (dir)
		closedir(dir);
}

static json_t *search_folders(const char *target, char **path, char **error)
{
	struct search search = { .target = target };
	char *folders[RUNTIME_FOLDERS_MAX];
	size_t nr = runtime_folders(folders);

	for (size_t i = 0; i < nr; i++) {
		look_in(&search, folders[i]);
		free(folders[i]);
	}
	*path = search.path;
	if (search.found != 1)
		*error = text_format("\"%s\" is %s umem-qemu that has left a record, wanted one of: %s",
				     target, search.found ? "more than one" : "no",
				     search.seen.data ? search.seen.data : "(there are none)");
	text_free(&search.seen);
	if (search.found == 1)
		return search.record;
	json_decref(search.record);
	free(search.path);
	*path = NULL;
	return NULL;
}

json_t *record_find(const char *target, char **path, char **error)
{
	json_t *record;

	*error = NULL;
	*path = NULL;
	if (!strchr(target, '/'))
		return search_folders(target, path, error);
	record = read_record(target, error);
	if (record)
		*path = text_copy(target);
	return record;
}

int record_claim(const char *path, char **error)
{
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0) {
		*error = text_format("%s: %s", path, strerror(errno));
		return -1;
	}
	if (flock(fd, LOCK_EX | LOCK_NB))
		*error = text_format("%s: another umem-qemu is adopting its QEMU", path);
	else if (fstat(fd, &st) || !st.st_nlink)
		*error = text_format("%s: another umem-qemu has adopted its QEMU", path);
	else
		return fd;
	close(fd);
	return -1;
}
