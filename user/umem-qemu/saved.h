/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A migration as JSON: what another umem-qemu needs to go on with it, or to undo it. */
#ifndef UMEM_QEMU_SAVED_H
#define UMEM_QEMU_SAVED_H

#include <jansson.h>

#include "umem-qemu/migration.h"

/**
 * saved_encode - @migration as it is; has the session, which is a secret
 */
json_t *saved_encode(const struct migration *migration);

/**
 * saved_decode - make it that of @migration, which migration_init() has made
 *
 * migration_adopted() is due then.
 *
 * Return: NULL, or what is wrong with it, the caller's string.
 */
char *saved_decode(struct migration *migration, json_t *saved);

#endif
