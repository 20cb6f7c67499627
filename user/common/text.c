// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"

void *memory_or_exit(void *memory)
{
	if (!memory) {
		log_error("out of memory");
		exit(1);
	}
	return memory;
}

void text_add_bytes(struct text *text, const char *bytes, size_t nr)
{
	text->data = memory_or_exit(realloc(text->data, text->used + nr + 1));
	memcpy(text->data + text->used, bytes, nr);
	text->used += nr;
	text->data[text->used] = '\0';
}

char *text_vformat(const char *format, va_list args)
{
	char *string;

	if (vasprintf(&string, format, args) < 0)
		string = NULL;
	return memory_or_exit(string);
}

void text_add(struct text *text, const char *format, ...)
{
	va_list args;
	char *string;

	va_start(args, format);
	string = text_vformat(format, args);
	va_end(args);
	text_add_bytes(text, string, strlen(string));
	free(string);
}

char *text_take(struct text *text)
{
	char *string = text->data ? text->data : text_copy("");

	*text = (struct text){ 0 };
	return string;
}

void text_free(struct text *text)
{
	free(text->data);
	*text = (struct text){ 0 };
}

char *text_format(const char *format, ...)
{
	va_list args;
	char *string;

	va_start(args, format);
	string = text_vformat(format, args);
	va_end(args);
	return string;
}

char *text_copy(const char *string)
{
	return memory_or_exit(strdup(string));
}
