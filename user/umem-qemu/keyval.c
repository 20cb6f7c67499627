// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/keyval.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static void add_pair(struct keyval *keyval, char *key, char *value, bool implied)
{
	keyval->pairs = memory_or_exit(reallocarray(keyval->pairs, keyval->nr + 1,
						    sizeof(*keyval->pairs)));
	keyval->pairs[keyval->nr++] =
		(struct keyval_pair){ .key = key, .value = value, .implied = implied };
}

/* The part up to the next single comma, with ",," made one; *text moves behind it. */
static char *take_part(const char **text)
{
	struct text part = { 0 };
	const char *c = *text;

	for (; *c; c++) {
		if (*c == ',' && *++c != ',') {
			*text = c;
			return text_take(&part);
		}
		text_add_bytes(&part, c, 1);
	}
	*text = NULL;
	return text_take(&part);
}

static void parse_pairs(struct keyval *keyval, const char *text, const char *implied)
{
	while (text && *text) {
		char *part = take_part(&text);
		char *equals = strchr(part, '=');

		if (equals) {
			*equals = '\0';
			add_pair(keyval, text_copy(part), text_copy(equals + 1), false);
		} else if (!keyval->nr && implied) {
			add_pair(keyval, text_copy(implied), text_copy(part), true);
		} else {
			add_pair(keyval, text_copy(part), NULL, false);
		}
		free(part);
	}
}

int keyval_parse(struct keyval *keyval, const char *text, const char *implied, char **error)
{
	json_error_t why;

	*keyval = (struct keyval){ 0 };
	if (*text != '{') {
		parse_pairs(keyval, text, implied);
		return 0;
	}
	keyval->json = json_loads(text, JSON_REJECT_DUPLICATES, &why);
	if (!keyval->json) {
		*error = text_format("\"%s\" is not a JSON object: %s", text, why.text);
		return -EINVAL;
	}
	return 0;
}

void keyval_destroy(struct keyval *keyval)
{
	for (size_t i = 0; i < keyval->nr; i++) {
		free(keyval->pairs[i].key);
		free(keyval->pairs[i].value);
	}
	free(keyval->pairs);
	free(keyval->scratch);
	json_decref(keyval->json);
	*keyval = (struct keyval){ 0 };
}

static const char *get_json(struct keyval *keyval, const char *key)
{
	json_t *value = json_object_get(keyval->json, key);

	if (!value)
		return NULL;
	if (json_is_string(value))
		return json_string_value(value);
	if (json_is_boolean(value))
		return json_is_true(value) ? "on" : "off";
	free(keyval->scratch);
	keyval->scratch = memory_or_exit(json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT));
	return keyval->scratch;
}

static bool is_negation(const char *written, const char *key)
{
	return !strncmp(written, "no", 2) && !strcmp(written + 2, key);
}

/* KEY, KEY=... or noKEY */
static bool is_about(const struct keyval_pair *pair, const char *key)
{
	return !strcmp(pair->key, key) || (!pair->value && is_negation(pair->key, key));
}

const char *keyval_get(struct keyval *keyval, const char *key)
{
	if (keyval->json)
		return get_json(keyval, key);
	for (size_t i = keyval->nr; i-- > 0;) {
		const struct keyval_pair *pair = &keyval->pairs[i];

		if (!strcmp(pair->key, key))
			return pair->value ? pair->value : "on";
		if (!pair->value && is_negation(pair->key, key))
			return "off";
	}
	return NULL;
}

void keyval_remove(struct keyval *keyval, const char *key)
{
	size_t kept = 0;

	if (keyval->json) {
		json_object_del(keyval->json, key);
		return;
	}
	for (size_t i = 0; i < keyval->nr; i++) {
		struct keyval_pair *pair = &keyval->pairs[i];

		if (is_about(pair, key)) {
			free(pair->key);
			free(pair->value);
		} else {
			keyval->pairs[kept++] = *pair;
		}
	}
	keyval->nr = kept;
}

void keyval_set(struct keyval *keyval, const char *key, const char *value)
{
	if (keyval->json) {
		json_object_set_new(keyval->json, key, memory_or_exit(json_string(value)));
		return;
	}
	for (size_t i = keyval->nr; i-- > 0;) {
		struct keyval_pair *pair = &keyval->pairs[i];

		if (!is_about(pair, key))
			continue;
		free(pair->key);
		free(pair->value);
		pair->key = text_copy(key);
		pair->value = text_copy(value);
		return;
	}
	add_pair(keyval, text_copy(key), text_copy(value), false);
}

void keyval_set_number(struct keyval *keyval, const char *key, uint64_t value)
{
	char text[32];

	if (keyval->json) {
		json_object_set_new(keyval->json, key,
				    memory_or_exit(json_integer((json_int_t)value)));
		return;
	}
	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	keyval_set(keyval, key, text);
}

void keyval_set_bool(struct keyval *keyval, const char *key, bool value)
{
	keyval_remove(keyval, key);
	if (keyval->json)
		json_object_set_new(keyval->json, key, json_boolean(value));
	else
		add_pair(keyval, text_copy(key), text_copy(value ? "on" : "off"), false);
}

static void add_escaped(struct text *text, const char *string)
{
	for (const char *c = string; *c; c++)
		text_add_bytes(text, *c == ',' ? ",," : c, *c == ',' ? 2 : 1);
}

char *keyval_format(const struct keyval *keyval)
{
	struct text text = { 0 };

	if (keyval->json)
		return memory_or_exit(json_dumps(keyval->json, JSON_COMPACT));
	for (size_t i = 0; i < keyval->nr; i++) {
		const struct keyval_pair *pair = &keyval->pairs[i];

		if (i)
			text_add_bytes(&text, ",", 1);
		if (!pair->implied)
			add_escaped(&text, pair->key);
		if (pair->value && !pair->implied)
			text_add_bytes(&text, "=", 1);
		if (pair->value)
			add_escaped(&text, pair->value);
	}
	return text_take(&text);
}

static int suffix_shift(char suffix)
{
	static const char suffixes[] = "bkmgtpe";
	const char *found = strchr(suffixes, tolower((unsigned char)suffix));

	return found && suffix ? (int)(found - suffixes) * 10 : -1;
}

int keyval_parse_size(const char *text, uint64_t unit, uint64_t *size)
{
	uint64_t whole = 0;
	double fraction = 0, weight = 0.1, part;
	const char *c = text;
	int shift;

	if (!isdigit((unsigned char)*c))
		return -EINVAL;
	for (; isdigit((unsigned char)*c); c++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*c - '0'), &whole))
			return -EINVAL;
	}
	if (*c == '.') {
		for (c++; isdigit((unsigned char)*c); c++, weight /= 10)
			fraction += weight * (*c - '0');
	}
	if (*c) {
		shift = suffix_shift(*c++);
		if (shift < 0 || *c)
			return -EINVAL;
		unit = 1ULL << shift;
	}
	part = fraction * (double)unit;
	if (__builtin_mul_overflow(whole, unit, size) ||
	    __builtin_add_overflow(*size, (uint64_t)(part + 0.5), size))
		return -EINVAL;
	return 0;
}

int keyval_parse_bool(const char *text)
{
	static const char *const words[][4] = {
		{ "off", "no", "false", "n" },
		{ "on", "yes", "true", "y" },
	};

	for (int value = 0; value < 2; value++) {
		for (int i = 0; i < 4; i++) {
			if (!strcmp(text, words[value][i]))
				return value;
		}
	}
	return -EINVAL;
}
