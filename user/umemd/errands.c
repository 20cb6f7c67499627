// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/errands.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/pass.h"
#include "umemd/codec.h"
#include "umemd/sandbox.h"
#include "umemd/touch.h"

enum errand_kind {
	ERRAND_CONNECT,
	ERRAND_REMOVE,
	ERRAND_TOUCH,
};

/**
 * struct errand - one message
 * @number: of an address or of a region
 * @count: of the pages; what is behind these is not sent
 */
struct errand {
	uint32_t kind;
	uint32_t number;
	uint32_t count;
	uint64_t pages[TOUCH_PAGES_MAX];
};

#define ERRAND_SIZE(count)	(offsetof(struct errand, pages) + (count) * sizeof(uint64_t))

/* The answer, and the descriptor that comes with it. */
union control {
	char bytes[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int send_answer(int to, int32_t err, int fd)
{
	return pass_send(to, &err, sizeof(err), fd, 0) < 0 ? -errno : 0;
}

/* Return: what was answered. -EPIPE: nothing any more. */
static int take_answer(int from, int *fd)
{
	int32_t err;
	struct iovec iov = { &err, sizeof(err) };
	union control control;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof(control.bytes),
	};
	struct cmsghdr *header;
	ssize_t n;

	do {
		n = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(err))
		return -EPIPE;
	header = CMSG_FIRSTHDR(&message);
	if (header && fd)
		memcpy(fd, CMSG_DATA(header), sizeof(*fd));
	return err || !fd || header ? err : -EPIPE;
}

/* In the process. */

struct worker {
	const struct errands_setup *setup;
	int fd;
	bool touching;
	struct touch touch;
};

static int connect_to(struct worker *worker, uint32_t number)
{
	int fd = -1, err = -EINVAL;

	if (number < worker->setup->nr_addresses)
		err = socket_connect(&worker->setup->addresses[number], &fd);
	err = send_answer(worker->fd, err, fd);
	if (fd >= 0)
		close(fd);
	return err;
}

static void touch(struct worker *worker, const struct errand *errand)
{
	int err;

	if (!worker->touching)
		return;
	err = touch_pages(&worker->touch, errand->number, errand->pages, errand->count);
	if (!err)
		return;
	log_warning("pages are no longer touched in the guest's process: %s", strerror(-err));
	worker->touching = false;
}

static int run(struct worker *worker, const struct errand *errand)
{
	switch (errand->kind) {
	case ERRAND_CONNECT:
		return connect_to(worker, errand->number);
	case ERRAND_REMOVE:
		if (worker->setup->listener)
			socket_remove(worker->setup->listener);
		return send_answer(worker->fd, 0, -1);
	case ERRAND_TOUCH:
		touch(worker, errand);
		return 0;
	default:
		return -EINVAL;
	}
}

static void begin_touching(struct worker *worker)
{
	const struct errands_setup *setup = worker->setup;
	int err = touch_find(&worker->touch, setup->parent, setup->region_fds, setup->nr_regions);

	worker->touching = !err;
	if (err)
		log_warning("no page is touched: no other child of the launcher maps a region (%s)",
			    strerror(-err));
}

static int enter_sandbox(struct worker *worker, char *error)
{
	const struct errands_setup *setup = worker->setup;
	int keep[1 + TOUCH_PROCESSES_MAX] = { worker->fd };
	bool files = setup->listener || (setup->nr_addresses &&
					 setup->addresses[0].address.ss_family == AF_UNIX);
	unsigned int rights = 0;
	int err;

	if (setup->nr_addresses)
		rights |= SANDBOX_CONNECT;
	if (setup->listener)
		rights |= SANDBOX_REMOVE;
	if (setup->touch)
		rights |= SANDBOX_TOUCH;
	memcpy(keep + 1, worker->touch.processes, worker->touch.nr_processes * sizeof(*keep));
	err = sandbox_close_others(keep, 1 + worker->touch.nr_processes);
	if (err)
		snprintf(error, SANDBOX_ERROR_MAX, "cannot close what is not needed: %s",
			 strerror(-err));
	return err ? err : sandbox_enter(rights, files, error);
}

static void __attribute__((noreturn)) work(const struct errands_setup *setup, int fd)
{
	static struct worker worker;
	char error[SANDBOX_ERROR_MAX];
	struct errand errand;
	ssize_t n;
	int err;

	prctl(PR_SET_NAME, "umemd-errands");
	worker.setup = setup;
	worker.fd = fd;
	if (setup->touch)
		begin_touching(&worker);
	err = enter_sandbox(&worker, error);
	if (err)
		log_error("the process for errands %s", error);
	if (send_answer(fd, err, -1) || err)
		_exit(1);

	do {
		n = recv(fd, &errand, sizeof(errand), 0);
		if (n >= (ssize_t)ERRAND_SIZE(0) && (size_t)n == ERRAND_SIZE(errand.count))
			err = run(&worker, &errand);
	} while (!err && (n > 0 || (n < 0 && errno == EINTR)));
	_exit(0);
}

/* In umemd. */

static int start(struct errands *errands, const struct errands_setup *setup)
{
	int pair[2], err;

	/* Each message is taken by itself. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	errands->pid = fork();
	if (!errands->pid)
		work(setup, pair[1]);
	err = errands->pid < 0 ? -errno : 0;
	close(pair[1]);
	if (!err)
		err = take_answer(pair[0], NULL);
	if (err)
		close(pair[0]);
	else
		errands->fd = pair[0];
	return err;
}

int errands_start(struct errands *errands, const struct errands_setup *setup, char *error)
{
	int err;

	if (!setup->nr_addresses && !setup->listener && !setup->touch)
		return 0;
	err = start(errands, setup);
	if (err)
		snprintf(error, ERRANDS_ERROR_MAX, "no process for errands: %s", strerror(-err));
	errands->removes = setup->listener;
	errands->touches = setup->touch;
	return err;
}

void errands_stop(struct errands *errands)
{
	if (errands->fd)
		close(errands->fd);
	errands->fd = 0;
}

static int ask(const struct errands *errands, const struct errand *errand)
{
	ssize_t n;

	if (!errands->fd)
		return -EPIPE;
	do {
		n = send(errands->fd, errand, ERRAND_SIZE(errand->count), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -EPIPE : 0;
}

int errands_connect(struct errands *errands, unsigned int address, int *fd)
{
	struct errand errand = { .kind = ERRAND_CONNECT, .number = address };
	int err = ask(errands, &errand);

	return err ? err : take_answer(errands->fd, fd);
}

void errands_remove(struct errands *errands, struct socket_listener *listener)
{
	struct errand errand = { .kind = ERRAND_REMOVE };

	if (!errands->removes)
		return;
	if (!ask(errands, &errand))
		take_answer(errands->fd, NULL);
	listener->path[0] = '\0';
}

void errands_touch(struct errands *errands, uint32_t region, const uint64_t *pages,
		   uint32_t count)
{
	struct errand errand = { .kind = ERRAND_TOUCH, .number = region, .count = count };

	if (!errands->touches || !count)
		return;
	memcpy(errand.pages, pages, count * sizeof(*pages));
	if (ask(errands, &errand))
		errands->touches = false;
}
