/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS as QEMU's users set it up: the migration parameters tls-creds, tls-hostname and
 * tls-authz, and the object that tls-creds names. umemd is told the same.
 */
#ifndef UMEM_QEMU_TLS_H
#define UMEM_QEMU_TLS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define TLS_ARGUMENTS_MAX	4

/* What is asked of the object, with qom-get; the first, every object has. NULL at the end. */
extern const char *const tls_properties[];

/* The parameter tls-creds, which is empty where there is to be no TLS. */
const char *tls_creds(json_t *parameters);

/**
 * tls_begin - what is known before the object is asked
 * @parameters: QEMU's answer to query-migrate-parameters
 *
 * Return: an object, to which a member of each of the properties is to be added that
 * the object has; NULL: no TLS.
 */
json_t *tls_begin(json_t *parameters);

/**
 * tls_check - can umemd do with it?
 * @tls: complete
 * @source: the client
 *
 * Return: NULL, or why not, the caller's string.
 */
char *tls_check(json_t *tls, bool source);

/**
 * tls_arguments - umemd's options
 * @tls: checked
 * @argv: TLS_ARGUMENTS_MAX strings, the caller's
 *
 * Return: how many.
 */
size_t tls_arguments(json_t *tls, bool source, char **argv);

#endif
