/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands in for umem.ko: regions are memfds, a table says which of their pages
 * are present, and the ioctls of a pager work on that. A call that umemd must never
 * make, with anything that a peer says, aborts.
 */
#ifndef FUZZ_KERNEL_H
#define FUZZ_KERNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "umemd/options.h"

#define KERNEL_REGIONS	2

/**
 * struct kernel_region - a region
 * @fd: umemd's
 * @pager: the kernel's end of the pager; -1: there is none
 * @pager_fd: umemd's end of that; and its
 * @inode: by which it is known
 * @view: @memory, for umemd to read
 * @missing: one byte a page: nobody may see it
 * @requested: somebody waits for it
 * @dirty: written since it was last asked
 */
struct kernel_region {
	const char *name;
	uint64_t pages;
	int fd, pager, pager_fd;
	ino_t inode;
	uint8_t *memory;
	void *view;
	bool *missing, *requested, *dirty;
	bool tracking;
};

/**
 * struct kernel - all of them
 * @check: asked of each page that is put in place to be seen; @contents is NULL for zeroes
 * @show: asked of each missing page that is published, of what was put there unseen
 */
struct kernel {
	struct kernel_region regions[KERNEL_REGIONS];
	void (*check)(uint32_t region, uint64_t page, const uint8_t *contents);
	void (*show)(uint32_t region, uint64_t page, const uint8_t *contents);
};

extern struct kernel kernel;

/* Every page is present; @fill: and has contents, else it is a hole. */
void kernel_begin(struct options *options, bool fill);
void kernel_end(void);

/* The guest touches a page, discards it, writes to it. */
void kernel_touch(uint32_t region, uint64_t page);
void kernel_discard(uint32_t region, uint64_t page);
void kernel_write(uint32_t region, uint64_t page, uint8_t value);

uint64_t kernel_missing(void);

#endif
