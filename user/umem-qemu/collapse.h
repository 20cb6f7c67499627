/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Once all of a guest's memory has arrived: has QEMU's mappings of it made of huge pages
 * again where pages were mapped one by one while others were missing.
 *
 * A process of its own does that, with pauses: it is long, and nobody waits for it. The
 * kernel's khugepaged would do the same some day.
 */
#ifndef UMEM_QEMU_COLLAPSE_H
#define UMEM_QEMU_COLLAPSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COLLAPSE_BLOCK	(2ULL << 20)	/* what a huge page maps */

/**
 * struct collapse_map - a line of /proc/PID/maps
 * @start: address
 * @end: the first address after it
 * @offset: where in its file it begins
 * @shared: whether MAP_SHARED
 * @device: its file's
 * @inode: its file's
 */
struct collapse_map {
	uint64_t start, end, offset;
	bool shared;
	dev_t device;
	ino_t inode;
};

/**
 * struct collapse_ops - what the process does, for tests
 * @collapse: one block; 0 or -errno
 * @is_whole: is the file's block at that offset memory throughout, or are there holes
 * @wait: so many microseconds
 * @now_us: a clock
 */
struct collapse_ops {
	int (*collapse)(void *context, uint64_t address);
	bool (*is_whole)(void *context, uint64_t offset);
	void (*wait)(void *context, uint64_t microseconds);
	uint64_t (*now_us)(void *context);
};

/**
 * collapse_parse - take a line of /proc/PID/maps apart
 *
 * Return: false if it is none.
 */
bool collapse_parse(const char *line, struct collapse_map *map);

/**
 * collapse_map - go through a mapping, block by block
 *
 * Return: how many are mapped by a huge page now; or -errno if none of any mapping can be.
 */
long collapse_map(const struct collapse_map *map, const struct collapse_ops *ops, void *context);

/**
 * collapse_start - do it for all that a process maps of these files
 * @pid: of a process that has not been reaped
 *
 * The process that does it ends by itself, and when its parent does: with status 0 if it has
 * gone through all of it.
 *
 * Return: its pid, or -errno.
 */
pid_t collapse_start(pid_t pid, const int *region_fds, size_t nr);

#endif
