// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/umemd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/text.h"
#include "common/uri.h"
#include "umem-qemu/child.h"
#include "umem-qemu/tls.h"

#define LINE_MAX_BYTES	65536
#define UNSENT_MAX	65536
#define DISMISS_MS	3000

struct umemd {
	const struct umemd_ops *ops;
	void *context;
	pid_t pid;
	int fd;
	struct jsonl control;
	struct loop_timer patience;
};

char **umemd_argv(const struct umemd_setup *setup, int control_fd, int state_fd)
{
	bool source = setup->role == MIGRATION_SOURCE;
	char **argv = memory_or_exit(calloc(setup->nr_regions + 12 + TLS_ARGUMENTS_MAX,
					    sizeof(*argv)));
	size_t nr = 0;

	argv[nr++] = text_copy("umemd");
	argv[nr++] = text_copy(source ? "source" : "destination");
	argv[nr++] = text_format("--control-fd=%d", control_fd);
	argv[nr++] = text_format("--%s=%d", setup->session ? "resume" : "state-fd", state_fd);
	argv[nr++] = text_format("--uri=%s", setup->uri);
	for (size_t i = 0; i < setup->nr_regions; i++)
		argv[nr++] = text_format("--region=%s:%d:%llu", setup->regions[i].name,
					 setup->region_fds[i],
					 (unsigned long long)setup->regions[i].length);
	if (setup->tls)
		nr += tls_arguments(setup->tls, source, argv + nr);
	if (source) {
		argv[nr++] = text_format("--forward=%u", setup->command->forward);
		argv[nr++] = text_format("--backward=%u", setup->command->backward);
		if (setup->command->precopy && !setup->session)
			argv[nr++] = text_copy("--precopy");
		if (setup->command->no_push)
			argv[nr++] = text_copy("--no-push");
		if (setup->command->follow)
			argv[nr++] = text_copy("--follow");
		if (setup->command->compress)
			argv[nr++] = text_copy("--compress=zstd");
	} else {
		if (setup->listener >= 0)
			argv[nr++] = text_format("--listen-fd=%d", setup->listener);
		if (setup->touch)
			argv[nr++] = text_copy("--touch");
	}
	return argv;
}

static void receive(struct umemd *umemd)
{
	char error[JSONL_ERROR_MAX];
	json_t *event;
	int err;

	while ((err = jsonl_next(&umemd->control, &event, error))) {
		if (err == 1) {
			umemd->ops->event(umemd->context, umemd, event);
			json_decref(event);
			continue;
		}
		log_warning("umemd: %s", error);
		if (err == -EMSGSIZE) {
			loop_forget(umemd->fd);
			kill(umemd->pid, SIGKILL);
			return;
		}
	}
}

static void flush(struct umemd *umemd)
{
	jsonl_flush(&umemd->control);
	loop_events(umemd->fd, POLLIN | (jsonl_unsent(&umemd->control) ? POLLOUT : 0));
}

static void control_event(void *context, short revents)
{
	struct umemd *umemd = context;
	int got;

	if (revents & POLLOUT)
		flush(umemd);
	if (!(revents & (POLLIN | POLLHUP | POLLERR)))
		return;
	got = jsonl_receive(&umemd->control);
	if (got == 1)
		receive(umemd);
	else if (got != -EAGAIN)
		loop_forget(umemd->fd);		/* SIGCHLD tells the rest */
}

static void out_of_patience(void *context)
{
	struct umemd *umemd = context;

	kill(umemd->pid, SIGKILL);
}

static void close_pair(const int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

/* The descriptor that fd:NUMBER names, -1 for other URIs. */
static int uri_descriptor(const char *text)
{
	char error[URI_ERROR_MAX];
	struct uri uri;

	if (uri_parse(&uri, text, error, sizeof(error)) || uri.kind != URI_FD)
		return -1;
	return uri.fd;
}

/* It is given away, so it must not be one that this program uses itself. */
static int check_descriptor(const struct umemd_setup *setup, int fd, char **error)
{
	int flags = fcntl(fd, F_GETFD);
	const char *what = NULL;

	if (flags < 0)
		what = "not open";
	else if (fd <= STDERR_FILENO)
		what = "a standard one";
	else if (flags & FD_CLOEXEC && !setup->claimed)
		what = "umem-qemu's own";
	if (!what)
		return 0;
	*error = text_format("URI %s: descriptor %d is %s, wanted one that umem-qemu inherited and that no migration had yet",
			     setup->uri, fd, what);
	return -EBADF;
}

static pid_t start_process(const struct umemd_setup *setup, int control_fd, int state_fd,
			   int uri_fd)
{
	int *fds = memory_or_exit(calloc(setup->nr_regions + 4, sizeof(*fds)));
	struct child_setup child = {
		.path = setup->path,
		.argv = umemd_argv(setup, control_fd, state_fd),
		.fds = fds,
		.nr_fds = setup->nr_regions + 2,
		.no_input = true,
		.own_session = true,
		/* A guest that still runs here goes before its pages. */
		.hurry = !(setup->command && setup->command->precopy && !setup->session),
	};
	pid_t pid;

	if (setup->nr_regions)
		memcpy(fds, setup->region_fds, setup->nr_regions * sizeof(*fds));
	fds[setup->nr_regions] = control_fd;
	fds[setup->nr_regions + 1] = state_fd;
	if (uri_fd >= 0)
		fds[child.nr_fds++] = uri_fd;
	if (setup->role == MIGRATION_DESTINATION && setup->listener >= 0)
		fds[child.nr_fds++] = setup->listener;
	pid = child_start(&child);
	options_free_argv(child.argv);
	free(fds);
	return pid;
}

/* It is a secret: neither the command line nor a file has it. There is room in the socket. */
static int give_session(json_t *session, int fd)
{
	if (json_dumpfd(session, fd, JSON_COMPACT))
		log_warning("umemd is not told of its session: %s", strerror(errno));
	close(fd);
	return -1;
}

struct umemd *umemd_start(const struct umemd_setup *setup, const struct umemd_ops *ops,
			  void *context, int *stream_fd, char **error)
{
	int control[2], stream[2], uri_fd = uri_descriptor(setup->uri);
	struct umemd *umemd;
	pid_t pid;

	if (uri_fd >= 0 && check_descriptor(setup, uri_fd, error))
		return NULL;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control)) {
		*error = text_format("no socket pair for umemd: %s", strerror(errno));
		return NULL;
	}
	/* Not a pipe: QEMU can shut a socket down when a migration is cancelled. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream)) {
		*error = text_format("no socket pair for the device state: %s", strerror(errno));
		close_pair(control);
		return NULL;
	}
	pid = start_process(setup, control[1], stream[1], uri_fd);
	if (pid < 0) {
		*error = text_format("umemd cannot be started from %s: %s", setup->path,
				     strerror(-pid));
		close_pair(control);
		close_pair(stream);
		return NULL;
	}
	close(control[1]);
	close(stream[1]);
	if (uri_fd >= 0)
		close(uri_fd);	/* it ends with umemd */
	fcntl(control[0], F_SETFL, O_NONBLOCK);

	umemd = memory_or_exit(calloc(1, sizeof(*umemd)));
	*umemd = (struct umemd){
		.ops = ops,
		.context = context,
		.pid = pid,
		.fd = control[0],
		.patience = { .fn = out_of_patience, .context = umemd },
	};
	jsonl_init(&umemd->control, umemd->fd, LINE_MAX_BYTES, UNSENT_MAX);
	loop_watch(umemd->fd, POLLIN, control_event, umemd);
	*stream_fd = setup->session ? give_session(setup->session, stream[0]) : stream[0];
	return umemd;
}

pid_t umemd_pid(const struct umemd *umemd)
{
	return umemd->pid;
}

void umemd_tell(struct umemd *umemd, json_t *command)
{
	int err = jsonl_send(&umemd->control, command);

	if (err)
		log_warning("umemd (pid %d) does not listen: %s", umemd->pid, strerror(-err));
	flush(umemd);
}

void umemd_hurry(const struct umemd *umemd)
{
	child_hurry(umemd->pid);	/* with the processes that it has started */
}

void umemd_dismiss(struct umemd *umemd)
{
	if (!umemd->patience.due_ns)
		loop_timer_set(&umemd->patience, DISMISS_MS);
}

void umemd_reaped(struct umemd *umemd, int status)
{
	char *how = child_ended(status);

	while (jsonl_receive(&umemd->control) == 1)
		receive(umemd);
	umemd->ops->gone(umemd->context, umemd, how, WIFEXITED(status) && !WEXITSTATUS(status));
	free(how);
	loop_timer_clear(&umemd->patience);
	loop_forget(umemd->fd);
	jsonl_destroy(&umemd->control);
	close(umemd->fd);
	free(umemd);
}
