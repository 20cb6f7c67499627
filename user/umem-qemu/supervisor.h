/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QEMU, umemd, monitors and the migration machine, brought together. */
#ifndef UMEM_QEMU_SUPERVISOR_H
#define UMEM_QEMU_SUPERVISOR_H

#include "umem-qemu/host.h"
#include "umem-qemu/options.h"

/**
 * supervisor_run - start QEMU and look after it until it ends
 *
 * Return: the exit status for the process.
 */
int supervisor_run(const struct options *options, const struct host *host);

#endif
