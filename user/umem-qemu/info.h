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

#endif
