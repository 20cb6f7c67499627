/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What there is to know about a migration; common/report.h puts it in words. */
#ifndef UMEM_QEMU_INFO_H
#define UMEM_QEMU_INFO_H

#include <jansson.h>
#include <stdint.h>

#include "umem-qemu/migration.h"

/**
 * info_json - how the migration stands at @now_us
 *
 * Its "status" is "none" if there never was one.
 *
 * Return: an object, the caller's.
 */
json_t *info_json(const struct migration *migration, uint64_t now_us);

#define INFO_GONE_MAX	512	/* ranges of one answer: its line has a limit */

/**
 * info_gone - which pages never arrive
 * @from: of their ranges, the first wanted
 * @reply: gets "pages", how many; "ranges", of which there are @INFO_GONE_MAX at most, each
 *	[region, offset, length]; and "ranges_total"
 */
void info_gone(const struct migration *migration, uint32_t from, json_t *reply);

#endif
