/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Strings that grow. Out of memory ends the program: nothing here can go on without its strings. */
#ifndef COMMON_TEXT_H
#define COMMON_TEXT_H

#include <stdarg.h>
#include <stddef.h>

/**
 * struct text - a string being built; all zero is an empty one
 * @data: NUL-terminated, NULL while nothing was ever added
 */
struct text {
	char *data;
	size_t used;
};

void text_add(struct text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *text, const char *bytes, size_t nr);

/**
 * text_take - the string, the caller's from now on; @text is empty again
 */
char *text_take(struct text *text);
void text_free(struct text *text);

char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *text_vformat(const char *format, va_list args) __attribute__((format(printf, 1, 0)));
char *text_copy(const char *string);

/**
 * memory_or_exit - pass on what an allocation gave, or end the program
 */
void *memory_or_exit(void *memory);

#endif
