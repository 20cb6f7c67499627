/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzz targets share. A target is one file, fuzz_NAME.c, with
 * LLVMFuzzerTestOneInput(); what it must never see is said with must().
 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define must(condition)									\
	do {										\
		if (!(condition)) {							\
			fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__,	\
				__func__, #condition);					\
			abort();							\
		}									\
	} while (0)

/**
 * struct input - what is left of the bytes a target was given
 *
 * Once they are used up numbers are 0 and pieces are empty.
 */
struct input {
	const uint8_t *data;
	size_t left;
};

static inline const uint8_t *input_bytes(struct input *input, size_t *size)
{
	const uint8_t *bytes = input->data;

	if (*size > input->left)
		*size = input->left;
	input->data += *size;
	input->left -= *size;
	return bytes;
}

static inline uint64_t input_number(struct input *input, size_t size)
{
	const uint8_t *bytes = input_bytes(input, &size);
	uint64_t number = 0;

	while (size--)
		number = number << 8 | bytes[size];
	return number;
}

#define input_u8(input)		((uint8_t)input_number(input, 1))
#define input_u16(input)	((uint16_t)input_number(input, 2))

/* All that is left, in memory of its own that ends where it does; to be freed. */
static inline uint8_t *input_rest(struct input *input, size_t *size)
{
	uint8_t *copy = malloc(input->left);

	*size = input->left;
	must(copy || !*size);
	if (*size)
		memcpy(copy, input->data, *size);
	input->left = 0;
	return copy;
}

/* The same as a string. */
static inline char *input_string(struct input *input)
{
	char *string = strndup((const char *)input->data, input->left);

	must(string);
	input->left = 0;
	return string;
}

/* A sentence for people: there, not too long, and nothing that drives a terminal. */
static inline void must_be_sentence(const char *error, size_t room)
{
	size_t length = strnlen(error, room);

	must(length && length < room);
	for (size_t i = 0; i < length; i++)
		must((uint8_t)error[i] >= 0x20 && error[i] != 0x7f);
}

#endif
