// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/monitor.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#include "common/log.h"
#include "common/meter.h"
#include "common/runtime.h"
#include "common/text.h"
#include "common/util.h"
#include "umem-qemu/loop.h"

#define LINE_MAX_BYTES	4096
#define OUTPUT_MAX	(64u << 20)

struct monitor {
	monitor_line_fn *line;
	void *context;
	char *path;		/* of the listening socket */
	int listener;
	int in, out;		/* -1: no client */
	bool terminal;
	bool started;
	bool busy;		/* a line was delivered and is not done */
	bool delivering;
	bool too_long;
	bool ended;		/* no more input will come */
	bool hung_up;		/* and nobody reads what we write */
	struct meter meter;
	int cpu;
	char input[LINE_MAX_BYTES];
	size_t input_used;
	struct text output;
};

/* readline knows one terminal. */
static struct monitor *terminal;

static void watch(struct monitor *monitor);

static struct monitor *new_monitor(monitor_line_fn *line, void *context)
{
	struct monitor *monitor = memory_or_exit(calloc(1, sizeof(*monitor)));

	monitor->line = line;
	monitor->context = context;
	monitor->listener = -1;
	monitor->in = -1;
	monitor->out = -1;
	monitor->cpu = -1;
	return monitor;
}

/* ---- output ---- */

static void drop_client(struct monitor *monitor)
{
	if (monitor->in >= 0) {
		loop_forget(monitor->in);
		loop_forget(monitor->out);
	}
	if (monitor->listener >= 0) {
		if (monitor->in >= 0)
			close(monitor->in);
		loop_events(monitor->listener, POLLIN);
	}
	monitor->in = -1;
	monitor->out = -1;
	monitor->input_used = 0;
	monitor->too_long = false;
	monitor->ended = false;
	monitor->hung_up = false;
	monitor->cpu = -1;
	text_free(&monitor->output);
}

/* Pieces that a descriptor which polls writable takes without waiting. */
static void pump(struct monitor *monitor)
{
	size_t sent = 0;

	while (monitor->out >= 0 && sent < monitor->output.used) {
		struct pollfd pollfd = { .fd = monitor->out, .events = POLLOUT };
		size_t piece = min(monitor->output.used - sent, (size_t)4096);
		ssize_t n;

		if (poll(&pollfd, 1, 0) <= 0)
			break;
		n = write(monitor->out, monitor->output.data + sent, piece);
		if (n > 0) {
			sent += (size_t)n;
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != EINTR) {
			/* Nobody reads this; what was typed before is still to be done. */
			monitor->out = -1;
			sent = monitor->output.used;
		}
	}
	if (sent && sent < monitor->output.used)
		memmove(monitor->output.data, monitor->output.data + sent,
			monitor->output.used - sent);
	monitor->output.used -= sent;
}

static void put(struct monitor *monitor, const char *text)
{
	if (monitor->out < 0)
		return;
	if (monitor->output.used > OUTPUT_MAX)
		return drop_client(monitor);
	text_add_bytes(&monitor->output, text, strlen(text));
	pump(monitor);
	watch(monitor);
}

static void end_progress(struct monitor *monitor)
{
	const char *clear = meter_clear(&monitor->meter);

	if (*clear)
		put(monitor, clear);
}

void monitor_print(struct monitor *monitor, const char *text)
{
	end_progress(monitor);
	put(monitor, text);
}

void monitor_progress(struct monitor *monitor, unsigned int percent, const char *text)
{
	char *line = meter_draw(&monitor->meter, percent, text, now_ns());

	if (line)
		put(monitor, line);
	free(line);
}

/* ---- input ---- */

static void deliver(struct monitor *monitor, const char *line)
{
	monitor->busy = true;
	meter_begin(&monitor->meter, monitor->terminal ? meter_columns(monitor->out) : 0,
		    now_ns());
	watch(monitor);
	monitor->line(monitor->context, monitor, line);
}

/* One line out of the buffer, if there is a whole one. */
static bool take_line(struct monitor *monitor, char line[LINE_MAX_BYTES])
{
	char *end = memchr(monitor->input, '\n', monitor->input_used);
	size_t length;

	if (!end) {
		if (monitor->input_used == sizeof(monitor->input)) {
			monitor->too_long = true;
			monitor->input_used = 0;
		}
		return false;
	}
	length = (size_t)(end - monitor->input);
	memcpy(line, monitor->input, length);
	line[length] = '\0';
	if (length && line[length - 1] == '\r')
		line[length - 1] = '\0';
	monitor->input_used -= length + 1;
	memmove(monitor->input, end + 1, monitor->input_used);
	if (monitor->too_long) {
		monitor->too_long = false;
		monitor_print(monitor, "the line has more than 4095 characters and was dropped\n"
			      MONITOR_PROMPT);
		return take_line(monitor, line);
	}
	return true;
}

static void next_line(struct monitor *monitor)
{
	char line[LINE_MAX_BYTES];

	if (monitor->delivering)
		return;		/* a line that was done at once; the loop below goes on */
	monitor->delivering = true;
	while (!monitor->busy && monitor->in >= 0 && take_line(monitor, line))
		deliver(monitor, line);
	monitor->delivering = false;
}

static void read_plain(struct monitor *monitor)
{
	ssize_t n = read(monitor->in, monitor->input + monitor->input_used,
			 sizeof(monitor->input) - monitor->input_used);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {	/* the guest runs on, as with QEMU's own monitor */
		monitor->ended = true;
		return;
	}
	monitor->input_used += (size_t)n;
	next_line(monitor);
}

/* A client may send its lines, close its side, and read the answers. */
static void say_goodbye(struct monitor *monitor)
{
	bool line = monitor->input_used &&
		    memchr(monitor->input, '\n', monitor->input_used);

	if (monitor->listener < 0 || monitor->in < 0 || !monitor->ended || line)
		return;
	if (monitor->hung_up || (!monitor->busy && !monitor->output.used))
		drop_client(monitor);
}

static void client_event(void *context, short revents)
{
	struct monitor *monitor = context;

	if (revents & POLLOUT)
		pump(monitor);
	if (monitor->in >= 0 && (revents & POLLIN)) {
		if (monitor->terminal)
			rl_callback_read_char();
		else
			read_plain(monitor);
	} else if (revents & (POLLHUP | POLLERR)) {
		monitor->ended = true;
		monitor->hung_up = true;
	}
	say_goodbye(monitor);
	watch(monitor);
}

static void output_event(void *context, short revents)
{
	struct monitor *monitor = context;

	(void)revents;
	pump(monitor);
	watch(monitor);
}

static void watch_fd(int fd, short events, loop_fd_fn *fn, struct monitor *monitor)
{
	if (events)
		loop_watch(fd, events, fn, monitor);
	else
		loop_forget(fd);
}

static void watch(struct monitor *monitor)
{
	bool room = monitor->input_used < sizeof(monitor->input);
	short in = 0, out = 0;

	if (monitor->in < 0 || !monitor->started)
		return;
	/* A client that leaves shall be noticed while its line is worked on. */
	if (!monitor->ended && room && (!monitor->busy || monitor->listener >= 0))
		in = POLLIN;
	if (monitor->output.used)
		out = POLLOUT;
	if (monitor->listener >= 0) {
		/* Without events, too: a hang-up is always told. */
		if (monitor->hung_up)
			loop_forget(monitor->in);
		else
			loop_watch(monitor->in, in | out, client_event, monitor);
	} else {
		watch_fd(monitor->in, in, client_event, monitor);
		watch_fd(monitor->out, out, output_event, monitor);
	}
}

/* ---- the terminal ---- */

static void terminal_line(char *line)
{
	struct monitor *monitor = terminal;

	if (!line)
		return;		/* ^D on an empty line: QEMU takes no notice either */
	rl_callback_handler_remove();
	if (*line)
		add_history(line);
	deliver(monitor, line);
	free(line);
}

static void terminal_prompt(void)
{
	rl_callback_handler_install(MONITOR_PROMPT, terminal_line);
}

void monitor_step_aside(void)
{
	if (!terminal || !terminal->started)
		return;
	if (terminal->busy) {
		end_progress(terminal);
	} else {
		rl_clear_visible_line();
		fflush(rl_outstream);
	}
}

void monitor_come_back(void)
{
	if (!terminal || !terminal->started || terminal->busy)
		return;
	rl_on_new_line();
	rl_redisplay();
}

struct monitor *monitor_open_stdio(monitor_line_fn *line, void *context)
{
	struct monitor *monitor = new_monitor(line, context);

	monitor->in = STDIN_FILENO;
	monitor->out = STDOUT_FILENO;
	monitor->terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	if (monitor->terminal) {
		rl_catch_signals = 0;
		rl_readline_name = "umem-qemu";
		rl_bind_key('\t', rl_insert);
		terminal = monitor;
	}
	return monitor;
}

/* ---- sockets ---- */

static void greet(struct monitor *monitor)
{
	monitor_print(monitor, "umem-qemu " UMEM_VERSION
		      " monitor - type 'help' for more information\n");
	if (monitor->busy)
		return;		/* of a client that left: its line is not done yet */
	if (monitor->terminal)
		terminal_prompt();
	else
		put(monitor, MONITOR_PROMPT);
}

static void accept_client(void *context, short revents)
{
	struct monitor *monitor = context;
	int fd;

	(void)revents;
	if (monitor->in >= 0) {
		/* Whoever comes while another is served waits: poll again when that one has left. */
		loop_events(monitor->listener, 0);
		return;
	}
	fd = accept4(monitor->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	monitor->in = fd;
	monitor->out = fd;
	if (monitor->started)
		greet(monitor);
	watch(monitor);
}

struct monitor *monitor_open_unix(const char *path, bool wait, monitor_line_fn *line,
				  void *context, char **error)
{
	int fd = runtime_listen(path, false, error);
	struct monitor *monitor;
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	if (fd < 0)
		return NULL;
	monitor = new_monitor(line, context);
	monitor->listener = fd;
	monitor->path = text_copy(path);
	if (wait) {
		log_info("-monitor unix:%s: waiting for a client, add wait=off not to wait", path);
		if (poll(&pollfd, 1, -1) > 0)
			accept_client(monitor, POLLIN);
	}
	return monitor;
}

/* ---- both ---- */

void monitor_start(struct monitor *monitor)
{
	monitor->started = true;
	if (monitor->listener >= 0)
		loop_watch(monitor->listener, POLLIN, accept_client, monitor);
	if (monitor->in >= 0)
		greet(monitor);
	watch(monitor);
}

void monitor_ready(struct monitor *monitor)
{
	end_progress(monitor);
	monitor->busy = false;
	if (monitor->terminal)
		terminal_prompt();
	else
		put(monitor, MONITOR_PROMPT);
	next_line(monitor);
	say_goodbye(monitor);
	watch(monitor);
}

int *monitor_cpu(struct monitor *monitor)
{
	return &monitor->cpu;
}

void monitor_close(struct monitor *monitor)
{
	if (monitor->terminal) {
		end_progress(monitor);
		if (monitor->started && !monitor->busy) {
			rl_callback_handler_remove();
			put(monitor, "\n");
		}
		terminal = NULL;
	}
	pump(monitor);
	drop_client(monitor);
	if (monitor->listener >= 0) {
		loop_forget(monitor->listener);
		close(monitor->listener);
		unlink(monitor->path);
	}
	free(monitor->path);
	free(monitor);
}
