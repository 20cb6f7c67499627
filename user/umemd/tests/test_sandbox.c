// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "umemd/tests/cmocka_first.h"

int main(void);

/* In a child, which cannot use cmocka any more. */
static int wrong;

#define need(condition) need_at(__LINE__, condition, #condition)
#define refused(call) need_at(__LINE__, (call) == -1 && errno == EPERM, "EPERM from " #call)

static void need_at(int line, bool holds, const char *text)
{
	char message[256];

	if (holds)
		return;
	wrong = 1;
	snprintf(message, sizeof(message), "line %d: %s (errno %d)\n", line, text, errno);
	if (write(STDERR_FILENO, message, strlen(message)) < 0)
		wrong = 2;
}

static pid_t start(unsigned int rights, void (*run)(void))
{
	char error[SANDBOX_ERROR_MAX];
	pid_t pid = fork();

	if (pid)
		return pid;
	if (sandbox_enter(rights, false, error)) {
		fprintf(stderr, "%s\n", error);
		_exit(3);
	}
	run();
	_exit(wrong);
}

static void ends_well(pid_t pid)
{
	int status;

	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int mapped = -1, pair[2];

static void try_what_nobody_may(void)
{
	char *const argv[] = { "true", NULL };
	char byte;
	struct iovec here = { &byte, 1 };

	refused(open("/etc/passwd", O_RDONLY));
	refused((int)syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY, 0));
	refused(execv("/bin/true", argv));
	refused((int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
	refused((int)process_vm_readv(getppid(), &here, 1, &here, 1, 0));
	refused(kill(getppid(), 0));
	refused((int)syscall(SYS_tgkill, getppid(), getppid(), 0));
	refused((int)syscall(SYS_fork));
	refused(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		MAP_FAILED ? -1 : 0);
	refused(mprotect((void *)((uintptr_t)main & ~4095UL), 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
	refused(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0));
}

static void try_what_umemd_may_not(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(9) };
	int other[2], one = 1, size = 0;

	try_what_nobody_may();
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	refused(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	refused(socket(AF_UNIX, SOCK_STREAM, 0));
	refused(connect(pair[0], (struct sockaddr *)&address, sizeof(address)));
	refused(unlink("/tmp/umem-no-such-file"));
	/* Calls that it may, with arguments that it may not. */
	refused((int)sendto(pair[0], "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
	refused((int)sendmsg(pair[0], &(struct msghdr){ 0 }, MSG_FASTOPEN));
	refused(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other));
	refused(ioctl(pair[0], FIONREAD, &size));
	refused(setsockopt(pair[0], SOL_SOCKET, SO_BROADCAST, &one, sizeof(one)));
	refused(fallocate(mapped, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	refused(fcntl(pair[0], F_SETOWN, getppid()));
}

static void test_umemd_is_refused_what_it_does_not_need(void **state)
{
	(void)state;
	ends_well(start(SANDBOX_MIGRATE, try_what_umemd_may_not));
}

static void do_what_umemd_does(void)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct timespec soon = { 0 };
	int epoll = pair[1], other[2], bytes = 1;	/* of epoll: see the test */
	socklen_t size = sizeof(bytes);
	char text[8];
	void *memory;

	need(send(pair[0], "x", 1, MSG_NOSIGNAL) == 1);
	need(!ioctl(pair[0], SIOCOUTQ, &bytes));
	need(!getsockopt(pair[0], SOL_SOCKET, SO_ERROR, &bytes, &size) && !bytes);
	need(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, other));
	need(!epoll_ctl(epoll, EPOLL_CTL_ADD, other[0], &event));
	need(send(other[1], "y", 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1);
	need(epoll_pwait2(epoll, &event, 1, &soon, NULL) == 1);
	need(recv(other[0], text, sizeof(text), MSG_DONTWAIT) == 1);
	need(!shutdown(other[0], SHUT_RDWR) && !close(other[0]));
	need(!fallocate(mapped, 0, 0, 4096));
	need(pread(mapped, text, sizeof(text), 0) == sizeof(text));
	need(lseek(mapped, 4096, SEEK_DATA) == 4096);
	memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(memory != MAP_FAILED && !madvise(memory, 1 << 20, MADV_DONTNEED));
	need(!munmap(memory, 1 << 20));
	memory = malloc(64 << 20);
	memory = realloc(memory, 96 << 20);
	need(memory);
	free(memory);
	need(getrandom(text, sizeof(text), 0) == sizeof(text));
	need(!usleep(1));
	need(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
	need(!raise(0));
}

static void test_umemd_may_do_what_it_does(void **state)
{
	int sockets[2] = { pair[0], pair[1] };

	(void)state;
	pair[1] = epoll_create1(EPOLL_CLOEXEC);
	ends_well(start(SANDBOX_MIGRATE, do_what_umemd_does));
	close(pair[1]);
	pair[1] = sockets[1];
}

static void connect_and_no_more(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in address = { .sin_family = AF_INET };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	need(fd >= 0);
	need(connect(fd, (struct sockaddr *)&address, sizeof(address)) == -1 && errno != EPERM);
	refused(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	refused(unlink("/tmp/umem-no-such-file"));
	refused((int)pread(mapped, &address, 1, 0));
	refused((int)read(mapped, &address, 1));
	try_what_nobody_may();
}

static void remove_and_no_more(void)
{
	need(unlink("/tmp/umem-no-such-file") == -1 && errno == ENOENT);
	refused(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	try_what_nobody_may();
}

static void touch_and_no_more(void)
{
	char byte;

	need(pread(mapped, &byte, 1, 0) == 1);
	refused((int)read(mapped, &byte, 1));
	refused(unlink("/tmp/umem-no-such-file"));
	refused(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	try_what_nobody_may();
}

static void test_each_errand_has_its_own_rights(void **state)
{
	(void)state;
	ends_well(start(SANDBOX_CONNECT, connect_and_no_more));
	ends_well(start(SANDBOX_REMOVE, remove_and_no_more));
	ends_well(start(SANDBOX_TOUCH, touch_and_no_more));
}

static void wait_for_a_byte(void)
{
	char byte;

	need(recv(pair[1], &byte, 1, 0) == 1);
}

/* A line of its status, as a number. */
static unsigned long long status_of(pid_t pid, const char *key, int base)
{
	unsigned long long value = ~0ULL;
	char path[64], line[256];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			value = strtoull(line + strlen(key) + 1, NULL, base);
	}
	fclose(file);
	return value;
}

static void test_nothing_is_left_and_nothing_can_be_gained(void **state)
{
	pid_t pid = start(SANDBOX_MIGRATE, wait_for_a_byte);

	(void)state;
	assert_true(pid > 0);
	for (int i = 0; i < 5000 && status_of(pid, "Seccomp", 10) != 2; i++)
		usleep(1000);
	assert_int_equal(status_of(pid, "Seccomp", 10), 2);
	assert_int_equal(status_of(pid, "NoNewPrivs", 10), 1);
	assert_int_equal(status_of(pid, "CapPrm", 16), 0);
	assert_int_equal(status_of(pid, "CapEff", 16), 0);
	assert_int_equal(status_of(pid, "CapInh", 16), 0);
	assert_int_equal(status_of(pid, "CapAmb", 16), 0);
	if (!geteuid())
		assert_int_equal(status_of(pid, "CapBnd", 16), 0);
	assert_int_equal(write(pair[0], "x", 1), 1);
	ends_well(pid);
}

static void test_abort_is_still_told_as_such(void **state)
{
	pid_t pid = start(SANDBOX_MIGRATE, abort);
	int status;

	(void)state;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_only_what_is_known_stays_open(void **state)
{
	int fds[6], keep[3];
	pid_t pid;

	(void)state;
	for (int i = 0; i < 6; i++)
		fds[i] = fcntl(mapped, F_DUPFD, 60 + i);
	keep[0] = fds[4];
	keep[1] = -1;
	keep[2] = fds[1];
	pid = fork();
	if (!pid) {
		char target[64] = "";

		need(!sandbox_close_others(keep, 3));
		for (int i = 0; i < 6; i++)
			need((fcntl(fds[i], F_GETFD) >= 0) == (i == 1 || i == 4));
		need(fcntl(mapped, F_GETFD) == -1 && fcntl(STDERR_FILENO, F_GETFD) >= 0);
		need(readlink("/proc/self/fd/0", target, sizeof(target)) > 0 &&
		     !strcmp(target, "/dev/null"));
		need(readlink("/proc/self/fd/1", target, sizeof(target)) > 0 &&
		     !strcmp(target, "/dev/null"));
		_exit(wrong);
	}
	ends_well(pid);
	for (int i = 0; i < 6; i++)
		close(fds[i]);
}

static void test_standard_ones_that_are_known_stay(void **state)
{
	int keep[1] = { STDIN_FILENO };
	pid_t pid;

	(void)state;
	pid = fork();
	if (!pid) {
		char target[64] = "";

		need(dup2(pair[0], STDIN_FILENO) == STDIN_FILENO);
		need(!sandbox_close_others(keep, 1));
		need(readlink("/proc/self/fd/0", target, sizeof(target) - 1) > 0 &&
		     !strncmp(target, "socket:", 7));
		_exit(wrong);
	}
	ends_well(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_umemd_is_refused_what_it_does_not_need),
		cmocka_unit_test(test_umemd_may_do_what_it_does),
		cmocka_unit_test(test_each_errand_has_its_own_rights),
		cmocka_unit_test(test_nothing_is_left_and_nothing_can_be_gained),
		cmocka_unit_test(test_abort_is_still_told_as_such),
		cmocka_unit_test(test_only_what_is_known_stays_open),
		cmocka_unit_test(test_standard_ones_that_are_known_stay),
	};

	mapped = memfd_create("umem-test", MFD_CLOEXEC);
	if (mapped < 0 || pwrite(mapped, "x", 1, 8191) != 1 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
