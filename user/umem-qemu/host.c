// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/host.h"

#include <errno.h>
#include <fcntl.h>
#include <libumem.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "common/uri.h"
#include "umem-qemu/child.h"

#define DEFAULT_QEMU	"qemu-system-x86_64"
#define MIB		(1ULL << 20)

static const char *user_name(void)
{
	const struct passwd *user = getpwuid(geteuid());

	return user ? user->pw_name : "USER";
}

int host_find_qemu(struct host *host, const struct options *options, char **error)
{
	const char *name = options->qemu ? options->qemu : DEFAULT_QEMU;

	host->qemu = child_find(name);
	if (host->qemu)
		return 0;
	if (options->qemu)
		*error = text_format("--qemu is \"%s\", which is no program that can be executed; wanted one such as /usr/bin/" DEFAULT_QEMU,
				     name);
	else
		*error = text_copy("there is no " DEFAULT_QEMU " in PATH; install it (apt-get install qemu-system-x86), or name another with --qemu PATH");
	return -1;
}

static char *find_beside(const char *folder, const char *place)
{
	char *path = text_format("%s/%s", folder, place);
	char *found = child_find(path);

	free(path);
	return found;
}

static int find_umemd(struct host *host, const struct options *options, char **error)
{
	char self[PATH_MAX];
	ssize_t length;

	if (options->umemd) {
		host->umemd = child_find(options->umemd);
		if (!host->umemd)
			*error = text_format("--umemd is \"%s\", which is no program that can be executed",
					     options->umemd);
		return host->umemd ? 0 : -1;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length > 0) {
		self[length] = '\0';
		*strrchr(self, '/') = '\0';
		host->umemd = find_beside(self, "umemd");
		if (!host->umemd)
			host->umemd = find_beside(self, "../libexec/umemd");
	}
	if (!host->umemd)
		host->umemd = child_find("umemd");
	if (!host->umemd)
		*error = text_copy("there is no umemd beside umem-qemu, in ../libexec or in PATH; install it (make install), or name it with --umemd PATH");
	return host->umemd ? 0 : -1;
}

/*
 * That it does not start is told now, not when the guest is to move; and what it is made of
 * need not be read from a disk then.
 */
static int check_umemd(const struct host *host, char **error)
{
	char *argv[] = { "umemd", "--version", NULL }, *how;
	struct child_setup child = {
		.path = host->umemd,
		.argv = argv,
		.no_input = true,
		.no_output = true,
	};
	pid_t pid = child_start(&child);
	int status;

	if (pid < 0) {
		*error = text_format("umemd cannot be started from %s: %s", host->umemd, strerror(-pid));
		return -1;
	}
	status = child_wait(pid);
	if (!status)
		return 0;
	how = child_ended(status);
	*error = text_format("%s --version %s, wanted status 0; install umemd (make install), or name it with --umemd PATH",
			     host->umemd, how);
	free(how);
	return -1;
}

/* QEMU would say so too, but not what to do about it. */
static int check_kvm(const struct options *options, char **error)
{
	int fd;

	if (!options->kvm)
		return 0;
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EACCES || errno == EPERM)
		*error = text_format("%s wants /dev/kvm, and user %s may not open it: %s; mend it with: usermod -aG kvm %s (and log in again)",
				     options->kvm, user_name(), strerror(errno), user_name());
	else
		*error = text_format("%s wants /dev/kvm, and it cannot be opened: %s; mend it with: modprobe kvm_intel (or kvm_amd), or use -accel tcg",
				     options->kvm, strerror(errno));
	return -1;
}

static int open_device(int *device, char **error)
{
	int err = umem_device_open(device);

	if (!err)
		return 0;
	if (err == -EACCES || err == -EPERM)
		*error = text_format("user %s may not open " UMEM_DEVICE ": %s; mend it with: usermod -aG kvm %s (and log in again), and chgrp kvm " UMEM_DEVICE " if udev did not",
				     user_name(), strerror(-err), user_name());
	else
		*error = text_format(UMEM_DEVICE " cannot be opened: %s; mend it with: modprobe umem",
				     strerror(-err));
	return -1;
}

static int create_regions(struct host *host, const struct options *options, char **error)
{
	int device, err;

	if (open_device(&device, error))
		return -1;
	for (size_t i = 0; i < options->nr_regions; i++) {
		const struct region_option *region = &options->regions[i];

		err = umem_create(device, region->length, UMEM_CREATE_HUGE, region->name,
				  &host->region_fds[i], &host->region_ids[i]);
		if (err) {
			*error = text_format("region \"%s\" of %llu MiB cannot be made: %s%s",
					     region->name,
					     (unsigned long long)(region->length / MIB),
					     strerror(-err), err == -ENOSPC ?
					     "; raise umem's limits in /sys/module/umem/parameters/max_mib and max_regions" : "");
			close(device);
			return -1;
		}
		host->nr_regions++;
	}
	close(device);
	return 0;
}

static int check_config(const char *path, char **error)
{
	struct text text = { 0 };
	char buffer[4096];
	size_t n;
	int err;
	FILE *file = fopen(path, "re");

	if (!file) {
		*error = text_format("-readconfig %s: %s", path, strerror(errno));
		return -1;
	}
	while ((n = fread(buffer, 1, sizeof(buffer), file)))
		text_add_bytes(&text, buffer, n);
	fclose(file);
	err = text.data ? options_check_config(path, text.data, error) : 0;
	text_free(&text);
	return err;
}

static int check_configs(const struct options *options, char **error)
{
	for (size_t i = 0; i < options->nr_configs; i++) {
		if (check_config(options->configs[i], error))
			return -1;
	}
	return 0;
}

/* QEMU, which is started before umemd, must not hold the stream open. */
static int keep_from_qemu(const struct options *options, char **error)
{
	char why[URI_ERROR_MAX];
	struct uri uri;

	if (!options->postcopy || uri_parse(&uri, options->incoming, why, sizeof(why)) ||
	    uri.kind != URI_FD)
		return 0;
	if (!fcntl(uri.fd, F_SETFD, FD_CLOEXEC))
		return 0;
	*error = text_format("-incoming is \"%s\", and descriptor %d is not open; wanted one that umem-qemu inherited",
			     options->incoming, uri.fd);
	return -1;
}

int host_prepare(struct host *host, const struct options *options, char **error)
{
	if (host_find_qemu(host, options, error) || find_umemd(host, options, error) ||
	    check_umemd(host, error) || check_configs(options, error) || check_kvm(options, error) ||
	    keep_from_qemu(options, error))
		return -1;
	return create_regions(host, options, error);
}

static int open_regions(struct host *host, const struct options *options, char **error)
{
	int device, err = 0;

	if (open_device(&device, error))
		return -1;
	for (size_t i = 0; i < options->nr_regions && !err; i++) {
		const struct region_option *region = &options->regions[i];
		struct umem_info info;

		err = umem_open(device, host->region_ids[i], &host->region_fds[i]);
		if (err)
			*error = text_format("region \"%s\" with id %u cannot be opened: %s",
					     region->name, host->region_ids[i], strerror(-err));
		else
			host->nr_regions++;
		if (!err && (umem_info(host->region_fds[i], &info) ||
			     info.length != region->length || strcmp(info.name, region->name))) {
			*error = text_format("region with id %u is not \"%s\" of %llu MiB any more",
					     host->region_ids[i], region->name,
					     (unsigned long long)(region->length / MIB));
			err = -ESTALE;
		}
	}
	close(device);
	return err ? -1 : 0;
}

int host_adopt(struct host *host, const struct options *options, char **error)
{
	return find_umemd(host, options, error) ? -1 : open_regions(host, options, error);
}

void host_destroy(struct host *host)
{
	for (size_t i = 0; i < host->nr_regions; i++)
		close(host->region_fds[i]);
	free(host->qemu);
	free(host->umemd);
	*host = (struct host){ 0 };
}
