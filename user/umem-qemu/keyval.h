/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option arguments of QEMU: key=value,key=value with ",," for a comma, or one
 * JSON object where QEMU takes one. Whatever is not changed is given back as it came.
 */
#ifndef UMEM_QEMU_KEYVAL_H
#define UMEM_QEMU_KEYVAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct keyval_pair {
	char *key;
	char *value;	/* NULL for a bare key, QEMU's short form of key=on */
	bool implied;	/* the key was not written */
};

/**
 * struct keyval - one option argument
 * @json: the JSON form, else NULL
 * @pairs: the other form
 */
struct keyval {
	json_t *json;
	struct keyval_pair *pairs;
	size_t nr;
	char *scratch;
};

/**
 * keyval_parse - take an argument apart
 * @implied: key of a first part without "=", or NULL
 * @error: set to a string of the caller's on failure
 *
 * Return: 0, or -EINVAL when what begins with "{" is not a JSON object.
 */
int keyval_parse(struct keyval *keyval, const char *text, const char *implied, char **error);
void keyval_destroy(struct keyval *keyval);

/**
 * keyval_get - the value of @key as text, NULL if it is not there
 *
 * The last one counts, as in QEMU. A bare key and true are "on", "nokey" and
 * false "off", numbers decimal. Valid until the next call for this @keyval.
 */
const char *keyval_get(struct keyval *keyval, const char *key);
void keyval_set(struct keyval *keyval, const char *key, const char *value);
void keyval_set_number(struct keyval *keyval, const char *key, uint64_t value);
void keyval_set_bool(struct keyval *keyval, const char *key, bool value);
void keyval_remove(struct keyval *keyval, const char *key);

/**
 * keyval_format - the argument again, in the form it came in
 */
char *keyval_format(const struct keyval *keyval);

/**
 * keyval_parse_size - a size as QEMU reads it: digits, a fraction, a suffix bBkKmMgGtTpPeE
 * @unit: what a number without a suffix counts
 *
 * Return: 0, or -EINVAL.
 */
int keyval_parse_size(const char *text, uint64_t unit, uint64_t *size);

/**
 * keyval_parse_bool - on, yes, true, y / off, no, false, n
 *
 * Return: 1, 0, or -EINVAL.
 */
int keyval_parse_bool(const char *text);

#endif
