/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far something is, shown while it is waited for: on a terminal one line that
 * changes, with a bar; else a line a second at most. Writes nothing itself.
 */
#ifndef COMMON_METER_H
#define COMMON_METER_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct meter - not to be touched from outside
 */
struct meter {
	unsigned int columns;
	bool shown;
	uint64_t last_ns;
};

/**
 * meter_begin - something begins at @now_ns; nothing is shown yet
 * @columns: of the terminal that shows it, 0 if it goes elsewhere
 */
void meter_begin(struct meter *meter, unsigned int columns, uint64_t now_ns);

/**
 * meter_draw - what to write now
 * @percent: 0 to 100
 * @text: a line without its newline
 *
 * Return: the caller's string, or NULL: nothing.
 */
char *meter_draw(struct meter *meter, unsigned int percent, const char *text, uint64_t now_ns);

/**
 * meter_clear - what to write before anything else is written
 *
 * Return: a string, empty where nothing is in the way.
 */
const char *meter_clear(struct meter *meter);

/**
 * meter_columns - how wide the terminal behind @fd is, 0 if there is none
 */
unsigned int meter_columns(int fd);

#endif
