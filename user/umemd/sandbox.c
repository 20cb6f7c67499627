// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/umem.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"

#define CONDITIONS_MAX	2
#define STREAM		(SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

/* Of an int the kernel takes the lower half of what is passed. */
#define IS(argument, value)	{ argument, SCMP_CMP_MASKED_EQ, UINT32_MAX, (uint32_t)(value) }
#define IS_NULL(argument)	{ argument, SCMP_CMP_EQ, 0, 0 }
#define WITHOUT(argument, bits)	{ argument, SCMP_CMP_MASKED_EQ, (bits), 0 }
#define WITHIN(argument, bits)	WITHOUT(argument, (uint32_t)~(bits))

/**
 * struct rule - a system call that is allowed
 * @rights: who needs it
 * @conditions: that must all hold of its arguments; zero where there are no more
 */
struct rule {
	unsigned int rights;
	int syscall;
	struct scmp_arg_cmp conditions[CONDITIONS_MAX];
};

#define EVERYONE	(SANDBOX_MIGRATE | SANDBOX_CONNECT | SANDBOX_REMOVE | SANDBOX_TOUCH)

#define ALWAYS(who, name)	{ .rights = who, .syscall = SCMP_SYS(name) }
#define IF(who, name, ...)	{ who, SCMP_SYS(name), { __VA_ARGS__ } }

static const struct rule rules[] = {
	/* Descriptors that are open. Flags of a message: no connecting on the way (MSG_FASTOPEN). */
	ALWAYS(EVERYONE, write),	/* the log */
	ALWAYS(EVERYONE, writev),	/* and the last words of the C library */
	ALWAYS(EVERYONE, close),
	IF(EVERYONE, sendmsg, WITHIN(2, MSG_NOSIGNAL | MSG_DONTWAIT)),
	IF(EVERYONE, sendto, WITHIN(3, MSG_NOSIGNAL | MSG_DONTWAIT), IS_NULL(4)),
	ALWAYS(EVERYONE, recvfrom),
	ALWAYS(SANDBOX_MIGRATE, recvmsg),
	ALWAYS(SANDBOX_MIGRATE, read),
	ALWAYS(SANDBOX_MIGRATE | SANDBOX_TOUCH, pread64),
	ALWAYS(SANDBOX_MIGRATE, lseek),
	IF(SANDBOX_MIGRATE, fallocate, IS(1, 0)),
	ALWAYS(SANDBOX_MIGRATE, epoll_ctl),
	ALWAYS(SANDBOX_MIGRATE, epoll_pwait2),
	ALWAYS(SANDBOX_MIGRATE, poll),
	ALWAYS(SANDBOX_MIGRATE, ppoll),

	/* Connections. */
	ALWAYS(SANDBOX_MIGRATE, accept4),
	ALWAYS(SANDBOX_MIGRATE, shutdown),
	ALWAYS(SANDBOX_MIGRATE, getpeername),
	IF(SANDBOX_MIGRATE, socketpair, IS(0, AF_UNIX), IS(1, STREAM)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, SIOCOUTQ)),
	IF(SANDBOX_MIGRATE, getsockopt, IS(1, SOL_SOCKET), IS(2, SO_ERROR)),
	IF(SANDBOX_MIGRATE, getsockopt, IS(1, SOL_SOCKET), IS(2, SO_PEERCRED)),
	IF(SANDBOX_MIGRATE, getsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_INFO)),
	IF(SANDBOX_MIGRATE, setsockopt, IS(1, SOL_SOCKET), IS(2, SO_RCVLOWAT)),
	IF(SANDBOX_MIGRATE, setsockopt, IS(1, SOL_SOCKET), IS(2, SO_SNDBUF)),
	IF(SANDBOX_MIGRATE, setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_NOTSENT_LOWAT)),
	IF(SANDBOX_MIGRATE | SANDBOX_CONNECT, setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_NODELAY)),
	IF(SANDBOX_CONNECT, socket, IS(0, AF_UNIX), IS(1, STREAM)),
	IF(SANDBOX_CONNECT, socket, IS(0, AF_INET), IS(1, STREAM)),
	IF(SANDBOX_CONNECT, socket, IS(0, AF_INET6), IS(1, STREAM)),
	ALWAYS(SANDBOX_CONNECT, connect),

	/* Regions and pagers. */
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_INFO)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_ATTACH)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_MARK_MISSING)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_PUBLISH)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_ZERO)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_COPY)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_POISON)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_GET_BITMAP)),
	IF(SANDBOX_MIGRATE, ioctl, IS(1, UMEM_TRACK)),

	/* Files of sockets. */
	ALWAYS(SANDBOX_REMOVE, newfstatat),
	ALWAYS(SANDBOX_REMOVE, unlink),
	ALWAYS(SANDBOX_REMOVE, unlinkat),

	/* Memory, but no new code. */
	IF(EVERYONE, mmap, WITHOUT(2, PROT_EXEC)),
	ALWAYS(EVERYONE, munmap),
	ALWAYS(EVERYONE, mremap),
	ALWAYS(EVERYONE, madvise),
	ALWAYS(EVERYONE, brk),

	/* Time, random numbers, itself, its child of exec:. */
	ALWAYS(EVERYONE, clock_gettime),
	ALWAYS(EVERYONE, gettimeofday),
	ALWAYS(SANDBOX_MIGRATE, clock_nanosleep),
	ALWAYS(SANDBOX_MIGRATE, getrandom),
	ALWAYS(SANDBOX_MIGRATE, wait4),
	ALWAYS(EVERYONE, getpid),
	ALWAYS(EVERYONE, gettid),
	ALWAYS(EVERYONE, futex),
	ALWAYS(EVERYONE, rt_sigprocmask),
	ALWAYS(EVERYONE, rt_sigreturn),
	ALWAYS(EVERYONE, restart_syscall),
	ALWAYS(EVERYONE, exit),
	ALWAYS(EVERYONE, exit_group),
#ifdef __SANITIZE_ADDRESS__
	ALWAYS(EVERYONE, sigaltstack),
#endif
};

/* Descriptors. */

static int compare(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

static bool is_kept(const int *keep, size_t nr, int fd)
{
	return nr && bsearch(&fd, keep, nr, sizeof(fd), compare);
}

/* They are not left closed: what is opened later would become a standard one. */
static int replace_standard(const int *keep, size_t nr)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), err = 0;

	if (null < 0)
		return -errno;
	for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO && !err; fd++) {
		if (!is_kept(keep, nr, fd) && dup2(null, fd) < 0)
			err = -errno;
	}
	if (null > STDERR_FILENO)
		close(null);
	return err;
}

int sandbox_close_others(int *keep, size_t nr)
{
	unsigned int next = STDERR_FILENO + 1;
	int err;

	qsort(keep, nr, sizeof(*keep), compare);
	err = replace_standard(keep, nr);
	if (err)
		return err;
	for (size_t i = 0; i < nr; i++) {
		unsigned int fd = (unsigned int)keep[i];

		if (keep[i] < 0 || fd < next)
			continue;
		if (fd > next && close_range(next, fd - 1, 0))
			return -errno;
		next = fd + 1;
	}
	return close_range(next, ~0U, 0) ? -errno : 0;
}

/* Capabilities. */

static int drop_capabilities(bool any_file)
{
	unsigned int sets = CAPNG_SELECT_CAPS | CAPNG_SELECT_AMBIENT;
	bool keeps;

	if (capng_get_caps_process())
		return -EPERM;
	keeps = any_file && capng_have_capability(CAPNG_PERMITTED, CAP_DAC_OVERRIDE);
	/* What a program may gain by being executed is not ours to change without that one. */
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP))
		sets |= CAPNG_SELECT_BOUNDS;
	capng_clear(CAPNG_SELECT_ALL);
	if (keeps)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_DAC_OVERRIDE);
	return capng_apply((capng_select_t)sets) ? -EPERM : 0;
}

/* System calls. */

static int add_rule(scmp_filter_ctx filter, const struct rule *rule)
{
	unsigned int nr = 0;

	while (nr < CONDITIONS_MAX && rule->conditions[nr].op)
		nr++;
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rule->syscall, nr, rule->conditions);
}

static int add_rules(scmp_filter_ctx filter, unsigned int rights)
{
	int err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(rules) && !err; i++) {
		if (rules[i].rights & rights)
			err = add_rule(filter, &rules[i]);
	}
	/* abort() ends this process and no other. */
	if (!err)
		err = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0(SCMP_CMP_EQ, (uint32_t)getpid()));
	return err;
}

static int filter_calls(unsigned int rights)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int err;

	if (!filter)
		return -ENOMEM;
	err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	if (!err)
		err = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = add_rules(filter, rights);
	if (!err)
		err = seccomp_load(filter);	/* sets no_new_privs */
	seccomp_release(filter);
	return err;
}

int sandbox_enter(unsigned int rights, bool any_file, char *error)
{
	const char *what = "capabilities";
	int err = drop_capabilities(any_file);

	if (!err) {
		what = "being looked into";
		err = prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? -errno : 0;
	}
	if (!err) {
		what = "system calls (the kernel needs seccomp filters)";
		err = filter_calls(rights);
	}
	if (err)
		snprintf(error, SANDBOX_ERROR_MAX, "cannot give up %s: %s", what, strerror(-err));
	return err;
}
