/* SPDX-License-Identifier: GPL-2.0-only */
/* Two groups of processes, creator and other, in a hierarchy mounted for one test. */
#ifndef _CGROUP_H
#define _CGROUP_H

#include "operations.h"
#include <sys/mount.h>
#include <sys/stat.h>

#define CGROUP "/tmp/umem-cgroup"

static inline void cgroup_write(const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), CGROUP "/%s", file);
	write_file(path, text);
}

static inline void cgroup_setup(void)
{
	mkdir(CGROUP, 0700);
	if (mount("none", CGROUP, "cgroup2", 0, NULL))
		skip("no cgroup2 to mount");
	cgroup_write("cgroup.subtree_control", "+memory");
	mkdir(CGROUP "/creator", 0700);
	mkdir(CGROUP "/other", 0700);
}

static inline void cgroup_join(const char *group)
{
	char file[64];

	snprintf(file, sizeof(file), "%s/cgroup.procs", group);
	cgroup_write(file, "0");
}

static inline void cgroup_teardown(void)
{
	cgroup_write("cgroup.procs", "0");
	rmdir(CGROUP "/creator");
	rmdir(CGROUP "/other");
	umount(CGROUP);
}

/* A number of a file such as memory.stat, of the line that begins with key */
static inline unsigned long cgroup_stat(const char *file, const char *key)
{
	char path[128], line[128];
	unsigned long value = 0;
	size_t length = strlen(key);
	FILE *stat;

	snprintf(path, sizeof(path), CGROUP "/%s", file);
	stat = fopen(path, "r");
	CHECK(stat, "%s", path);
	while (fgets(line, sizeof(line), stat)) {
		if (!strncmp(line, key, length) && line[length] == ' ') {
			value = strtoul(line + length, NULL, 10);
			break;
		}
	}
	fclose(stat);
	return value;
}

#endif /* _CGROUP_H */
