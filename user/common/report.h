/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a migration stands, as a JSON object whose names say their units, and what
 * people read of it. One table knows every value.
 */
#ifndef COMMON_REPORT_H
#define COMMON_REPORT_H

#include <jansson.h>
#include <stdint.h>

#define REPORT_TIME_MAX	32

/**
 * report_text - lines of "key: value", as of "info migrate"
 * @info: what info_json() of umem-qemu made; values that are not there are left out
 *
 * Return: the caller's string.
 */
char *report_text(json_t *info);

/**
 * report_progress - one line without its newline, for whoever waits
 *
 * Return: the caller's string.
 */
char *report_progress(json_t *info);

/**
 * report_percent - how much of the memory is done, 0 to 100
 */
unsigned int report_percent(json_t *info);

/**
 * report_time - 2026-11-21T03:30:00.123456Z
 * @time_us: microseconds since the epoch
 */
void report_time(char text[REPORT_TIME_MAX], uint64_t time_us);

/**
 * report_clean - make a peer's text harmless to a terminal, in place
 */
void report_clean(char *text);

#endif
