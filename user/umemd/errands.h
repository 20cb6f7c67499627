/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What umemd still needs but may not do any more once it is in its sandbox. A process of
 * its own does it, which hears from umemd alone, and from it only which of the few
 * things agreed on is wanted now. It ends when umemd does, however that ends.
 */
#ifndef UMEMD_ERRANDS_H
#define UMEMD_ERRANDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "umemd/socket.h"

#define ERRANDS_ERROR_MAX	256

/**
 * struct errands_setup - what will be wanted
 * @addresses: to connect to
 * @listener: whose file is to be removed at the end; NULL if there is none
 * @touch: touch pages, in processes that map the regions
 * @parent: of these processes
 * @region_fds: a descriptor of each region
 */
struct errands_setup {
	const struct socket_address *addresses;
	unsigned int nr_addresses;
	const struct socket_listener *listener;
	bool touch;
	pid_t parent;
	const int *region_fds;
	uint32_t nr_regions;
};

/**
 * struct errands - the other end of that process
 * @fd: to it; 0: there is none
 * @removes: it is there for the listener's file,
 * @touches: for pages
 */
struct errands {
	int fd;
	pid_t pid;
	bool removes, touches;
};

/**
 * errands_start - start that process, if anything is wanted of it
 * @errands: all zero
 * @error: ERRANDS_ERROR_MAX bytes, on failure a sentence
 *
 * Return: 0 or -errno.
 */
int errands_start(struct errands *errands, const struct errands_setup *setup, char *error);

/* Lets the process end. */
void errands_stop(struct errands *errands);

/**
 * errands_connect - socket_connect() to an address of the setup
 *
 * Return: 0 or -errno; -EPIPE: the process is gone, and so are all connections to come.
 */
int errands_connect(struct errands *errands, unsigned int address, int *fd);

/* socket_remove(), after which @listener has none; nothing if the process is not there for that. */
void errands_remove(struct errands *errands, struct socket_listener *listener);

/**
 * errands_touch - read a byte of each page, in each process that was found
 * @pages: page numbers, all present; at most TOUCH_PAGES_MAX
 *
 * It is done soon. That it failed is logged, once.
 */
void errands_touch(struct errands *errands, uint32_t region, const uint64_t *pages,
		   uint32_t count);

#endif
