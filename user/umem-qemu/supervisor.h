/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU, umemd, monitors and the migration machine, brought together. */
#ifndef UMEM_QEMU_SUPERVISOR_H
#define UMEM_QEMU_SUPERVISOR_H

#include "umem-qemu/adopt.h"
#include "umem-qemu/host.h"
#include "umem-qemu/options.h"

/**
 * supervisor_run - start QEMU and look after it until it ends
 * @adoption: a QEMU that runs already, to be taken over; NULL: none
 *
 * Return: the exit status for the process.
 */
int supervisor_run(const struct options *options, const struct host *host,
		   const struct adoption *adoption);

#endif
