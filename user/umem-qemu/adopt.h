/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --adopt: to take over the QEMU of a umem-qemu that has ended. */
#ifndef UMEM_QEMU_ADOPT_H
#define UMEM_QEMU_ADOPT_H

#include <jansson.h>

#include "umem-qemu/host.h"
#include "umem-qemu/migration.h"
#include "umem-qemu/options.h"

/**
 * adopt_record - what is written down for a later one
 * @umemd: 0: there is none
 * @qmp: where QEMU listens
 */
json_t *adopt_record(const struct options *options, const struct host *host,
		     const struct migration *migration, pid_t qemu, pid_t umemd,
		     const char *qmp);

/**
 * struct adoption - a QEMU to be taken over
 * @record: as adopt_record() gave it
 * @path: where that is
 * @claim_fd: keeps others from adopting it, too
 * @qemu_fd: a pidfd
 */
struct adoption {
	json_t *record;
	char *path;
	int claim_fd;
	int qemu_fd;
};

/**
 * adopt_find - find what options->adopt names
 * @options: what the other was told of the guest is filled in
 * @host: the regions and umemd
 * @error: on failure a sentence, the caller's
 *
 * Nothing is changed.
 *
 * Return: 0, or -1.
 */
int adopt_find(struct adoption *adoption, struct options *options, struct host *host,
	       char **error);

/**
 * adopt_end_umemd - the pager of the other one may live still: only one is possible
 *
 * Return: NULL, or why it does not end, the caller's string.
 */
char *adopt_end_umemd(const struct adoption *adoption);
void adopt_destroy(struct adoption *adoption);

#endif
