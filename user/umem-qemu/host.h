/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What this host must have: programs, /dev/umem, /dev/kvm. Each lack is told with its cure. */
#ifndef UMEM_QEMU_HOST_H
#define UMEM_QEMU_HOST_H

#include "umem-qemu/options.h"

/**
 * struct host - what was found
 * @qemu: path of the program
 * @umemd: path of the program
 * @region_fds: a region for each of the options'
 * @region_ids: by which another may open them
 */
struct host {
	char *qemu;
	char *umemd;
	int region_fds[OPTIONS_REGIONS_MAX];
	uint32_t region_ids[OPTIONS_REGIONS_MAX];
	size_t nr_regions;
};

/**
 * host_find_qemu - only look for QEMU
 *
 * Return: 0, or -1 after telling what is wrong in @error, the caller's.
 */
int host_find_qemu(struct host *host, const struct options *options, char **error);

/**
 * host_prepare - look for everything and make the regions
 *
 * Return: as host_find_qemu().
 */
int host_prepare(struct host *host, const struct options *options, char **error);
/**
 * host_adopt - look for umemd, and open regions that are there, by their ids
 *
 * Return: as host_find_qemu().
 */
int host_adopt(struct host *host, const struct options *options, char **error);
void host_destroy(struct host *host);

#endif
