/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What people are told about a migration. */
#ifndef UMEM_QEMU_INFO_H
#define UMEM_QEMU_INFO_H

#include <stddef.h>
#include <stdint.h>

#include "umem-qemu/migration.h"

#define INFO_TIME_MAX	32

/**
 * info_migrate - the answer to "info migrate", lines in QEMU's style
 *
 * Return: the caller's string.
 */
char *info_migrate(const struct migration *migration, uint64_t now_us);

/**
 * info_progress - one line without its newline, for whoever waits
 *
 * Return: the caller's string.
 */
char *info_progress(const struct migration *migration);

/**
 * info_time - 2026-11-21T03:30:00.123456Z
 * @time_us: microseconds since the epoch
 */
void info_time(char text[INFO_TIME_MAX], uint64_t time_us);

#endif
