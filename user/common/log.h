/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages for people, one line each, on standard error. */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

/**
 * log_init - name the program and say what is worth printing
 * @program: printed before each message; kept, not copied
 * @level: the least important level that is still printed
 */
void log_init(const char *program, enum log_level level);

/**
 * log_message - print one line
 * @level: how important it is
 * @format: as printf(); no newline at the end
 *
 * Control characters in the finished text are printed as \xNN, so that what a
 * peer sent cannot drive a terminal. The line leaves in one write().
 */
void log_message(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...)		log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...)	log_message(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)		log_message(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)		log_message(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
