/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Touches pages in the address space of the guest's process, which then need
 * not be faulted in there. That process is found, not named: it is a child of
 * the launcher, as umemd is, and maps a region.
 */
#ifndef UMEMD_TOUCH_H
#define UMEMD_TOUCH_H

#include <stdint.h>
#include <sys/types.h>

#define TOUCH_MAPS_MAX		128
#define TOUCH_PROCESSES_MAX	16
#define TOUCH_PAGES_MAX		64

/**
 * struct touch_map - a piece of a region in a process
 * @memory: descriptor of all of that process's memory
 * @start: the address of the piece there
 * @offset: where in the region it begins
 */
struct touch_map {
	int memory;
	uint32_t region;
	uint64_t start;
	uint64_t length;
	uint64_t offset;
};

/**
 * struct touch - where pages are to be touched
 * @touched: how many were
 * @processes: descriptors of their memory
 */
struct touch {
	uint32_t nr_maps, nr_processes;
	uint64_t touched;
	struct touch_map maps[TOUCH_MAPS_MAX];
	int processes[TOUCH_PROCESSES_MAX];
};

/* A line of /proc/PID/maps. */
struct touch_line {
	uint64_t start, end, offset, inode;
	dev_t device;
};

/* Return: 0, or -EINVAL if it is no such line. */
int touch_parse(const char *text, struct touch_line *line);

/**
 * touch_find - who maps the regions?
 * @parent: whose children are looked at
 * @fds: a descriptor of each region
 *
 * What touch_pages() needs is open after this: no right to look into other processes.
 *
 * Return: 0 with at least one map, -ENOENT if there is none, -errno: -EACCES if the system
 * does not let us.
 */
int touch_find(struct touch *touch, pid_t parent, const int *fds, uint32_t nr_regions);

/**
 * touch_pages - read a byte of each
 * @pages: page numbers, all present
 *
 * Return: 0 or -errno: -ESRCH if the process has ended.
 */
int touch_pages(struct touch *touch, uint32_t region, const uint64_t *pages, uint32_t count);

#endif
