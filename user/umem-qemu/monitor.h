/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where people and scripts type commands: standard input, with line editing when it
 * is a terminal, and listening sockets, which serve one client after another. A line
 * is delivered, and the next only after monitor_ready().
 */
#ifndef UMEM_QEMU_MONITOR_H
#define UMEM_QEMU_MONITOR_H

#include <stdbool.h>

#define MONITOR_PROMPT	"(qemu) "

struct monitor;

typedef void monitor_line_fn(void *context, struct monitor *monitor, const char *line);

/**
 * monitor_open_stdio - serve standard input and output
 */
struct monitor *monitor_open_stdio(monitor_line_fn *line, void *context);

/**
 * monitor_open_unix - listen at @path and serve who comes
 * @wait: return only when the first client has come
 * @error: on failure a sentence, the caller's
 *
 * A socket where nobody listens any more is replaced, nothing else is.
 */
struct monitor *monitor_open_unix(const char *path, bool wait, monitor_line_fn *line,
				  void *context, char **error);
void monitor_close(struct monitor *monitor);

/**
 * monitor_start - say hello and take lines; until then nothing is read
 */
void monitor_start(struct monitor *monitor);

/**
 * monitor_print - text, with its newlines, for whoever typed the line
 */
void monitor_print(struct monitor *monitor, const char *text);

/**
 * monitor_progress - how it goes, while a line is being worked on
 * @percent: 0 to 100
 *
 * On a terminal one line that changes, else a line a second at most.
 */
void monitor_progress(struct monitor *monitor, unsigned int percent, const char *text);

/**
 * monitor_ready - the line is done: prompt for the next
 */
void monitor_ready(struct monitor *monitor);

/**
 * monitor_cpu - which vCPU the commands of this monitor are about, -1 the default
 */
int *monitor_cpu(struct monitor *monitor);

/**
 * monitor_step_aside - call before something else writes to the terminal
 */
void monitor_step_aside(void);

/**
 * monitor_come_back - and after it
 */
void monitor_come_back(void);

#endif
