// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/headroom.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"

static int open_in(const char *folder, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return -1;
	return open(path, O_RDONLY | O_CLOEXEC);
}

/* The text of a file that is open; "" if there is none. */
static void read_text(int fd, char *text, size_t size)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, text, size - 1, 0);

	text[max(n, (ssize_t)0)] = '\0';
}

/* A file with a number in it, or "max". */
static uint64_t read_number(int fd, uint64_t otherwise)
{
	unsigned long long number;
	char text[64];

	read_text(fd, text, sizeof(text));
	return sscanf(text, "%llu", &number) == 1 ? number : otherwise;
}

/* The number behind @name at the beginning of a line. */
static uint64_t number_of(const char *text, const char *name, uint64_t otherwise)
{
	unsigned long long number;
	size_t length = strlen(name);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (!strncmp(text, name, length) && sscanf(text + length, "%llu", &number) == 1)
			return number;
	}
	return otherwise;
}

static uint64_t less(uint64_t from, uint64_t what)
{
	return from > what ? from - what : 0;
}

/* From the group of this process up to the root, which has no limits. */
static void open_groups(struct headroom *headroom, const char *cgroup, const char *root)
{
	char text[PATH_MAX], folder[PATH_MAX], *path;
	int fd = open(cgroup, O_RDONLY | O_CLOEXEC);

	read_text(fd, text, sizeof(text));
	if (fd >= 0)
		close(fd);
	path = strstr(text, "0::/");
	if (!path)
		return;
	path += strlen("0::");
	path[strcspn(path, "\n")] = '\0';
	while (path[1] && headroom->nr_groups < HEADROOM_LEVELS) {
		struct headroom_group *group = &headroom->groups[headroom->nr_groups++];

		if (snprintf(folder, sizeof(folder), "%s%s", root, path) >= (int)sizeof(folder))
			*folder = '\0';
		group->max = open_in(folder, "memory.max");
		group->current = open_in(folder, "memory.current");
		group->stat = open_in(folder, "memory.stat");
		group->swap_max = open_in(folder, "memory.swap.max");
		group->swap_current = open_in(folder, "memory.swap.current");
		*max(strrchr(path, '/'), path + 1) = '\0';
	}
}

void headroom_open(struct headroom *headroom, const char *meminfo, const char *cgroup,
		   const char *root)
{
	headroom->nr_groups = 0;
	headroom->meminfo = open(meminfo, O_RDONLY | O_CLOEXEC);
	open_groups(headroom, cgroup, root);
}

void headroom_close(struct headroom *headroom)
{
	if (headroom->meminfo >= 0)
		close(headroom->meminfo);
	for (unsigned int i = 0; i < headroom->nr_groups; i++) {
		const struct headroom_group *group = &headroom->groups[i];
		int fds[] = { group->max, group->current, group->stat, group->swap_max,
			      group->swap_current };

		for (size_t j = 0; j < ARRAY_SIZE(fds); j++) {
			if (fds[j] >= 0)
				close(fds[j]);
		}
	}
	headroom->meminfo = -1;
	headroom->nr_groups = 0;
}

static uint64_t group_bytes(const struct headroom_group *group, uint64_t swap)
{
	uint64_t limit = read_number(group->max, UINT64_MAX);
	char stat[4096];

	if (limit == UINT64_MAX)
		return UINT64_MAX;
	read_text(group->stat, stat, sizeof(stat));
	return less(limit, less(read_number(group->current, 0),
				number_of(stat, "inactive_file ", 0) +
				number_of(stat, "active_file ", 0))) +
	       min(swap, less(read_number(group->swap_max, UINT64_MAX),
			      read_number(group->swap_current, 0)));
}

uint64_t headroom_bytes(const struct headroom *headroom)
{
	uint64_t least = UINT64_MAX, available, swap;
	char meminfo[4096];

	read_text(headroom->meminfo, meminfo, sizeof(meminfo));
	available = number_of(meminfo, "MemAvailable:", UINT64_MAX);
	swap = number_of(meminfo, "SwapFree:", 0) << 10;
	if (available != UINT64_MAX)
		least = (available << 10) + swap;
	for (unsigned int i = 0; i < headroom->nr_groups; i++)
		least = min(least, group_bytes(&headroom->groups[i], swap));
	return least;
}
