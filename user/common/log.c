// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static const char *log_program = "umem";
static enum log_level log_threshold = LOG_LEVEL_INFO;

static const char *const log_prefix[] = {
	[LOG_LEVEL_ERROR] = "error: ",
	[LOG_LEVEL_WARNING] = "warning: ",
	[LOG_LEVEL_INFO] = "",
	[LOG_LEVEL_DEBUG] = "debug: ",
};

void log_init(const char *program, enum log_level level)
{
	log_program = program;
	log_threshold = level;
}

void log_message(enum log_level level, const char *format, ...)
{
	char text[2048];
	char line[sizeof(text) * 4 + 128];
	va_list args;
	int used;

	if (level > log_threshold)
		return;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	used = snprintf(line, 128, "%.60s: %s", log_program, log_prefix[level]);
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (*c < 0x20 || *c == 0x7f)
			used += sprintf(line + used, "\\x%02x", *c);
		else
			line[used++] = (char)*c;
	}
	line[used++] = '\n';

	/* Nothing can be done about a message that cannot be written. */
	if (write(STDERR_FILENO, line, (size_t)used) < 0)
		return;
}
