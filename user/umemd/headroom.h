/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much memory there is to be had. Where there is too little the kernel does not say no to who
 * asks for it, it kills: mostly umemd and umem-qemu, which could not tell the source why.
 */
#ifndef UMEMD_HEADROOM_H
#define UMEMD_HEADROOM_H

#include <stdint.h>

#define HEADROOM_LEVELS		16	/* of control groups */

/* The files of a control group (v2), -1 where it has none. */
struct headroom_group {
	int max, current, stat, swap_max, swap_current;
};

/**
 * struct headroom - what tells it, open: a umemd opens no files later
 * @meminfo: of the host, -1: unknown
 */
struct headroom {
	int meminfo;
	struct headroom_group groups[HEADROOM_LEVELS];
	unsigned int nr_groups;
};

/**
 * headroom_open - of this process
 * @meminfo: "/proc/meminfo"
 * @cgroup: "/proc/self/cgroup"
 * @root: where control groups are mounted, "/sys/fs/cgroup"
 *
 * What is not there, or cannot be read, is no limit.
 */
void headroom_open(struct headroom *headroom, const char *meminfo, const char *cgroup,
		   const char *root);
/* Can be done twice. */
void headroom_close(struct headroom *headroom);

/**
 * headroom_bytes - what can be had now, in bytes, with what can be reclaimed or swapped out
 *
 * The least of: MemAvailable and SwapFree of the host; for each control group memory.max less
 * what of memory.current is no page cache, and what it may swap.
 */
uint64_t headroom_bytes(const struct headroom *headroom);

#endif
