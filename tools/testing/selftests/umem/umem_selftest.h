/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of umem share: TAP output, one process a test with a time
 * limit (a test that hangs has failed), and short names for the ioctls.
 */
#ifndef _UMEM_SELFTEST_H
#define _UMEM_SELFTEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/umem.h>

#define PAGE		UMEM_PAGE_SIZE
#define EXIT_SKIP	4

struct test {
	const char *name;
	void (*fn)(void);
};

#define TEST(fn) { #fn, fn }

#define CHECK(cond, fmt, ...) do {						\
	if (!(cond)) {								\
		printf("# %s:%d: %s: " fmt "\n", __FILE__, __LINE__, #cond,	\
		       ##__VA_ARGS__);						\
		fflush(stdout);							\
		_exit(1);							\
	}									\
} while (0)

#define CHECK_EQ(got, want) do {						\
	long long _got = (got), _want = (want);					\
	CHECK(_got == _want, "got %lld, want %lld", _got, _want);		\
} while (0)

/* The call fails with this errno. */
#define CHECK_ERRNO(call, want) do {						\
	errno = 0;								\
	long _ret = (long)(call);						\
	CHECK(_ret == -1 && errno == (want), "returned %ld, %s, want %s",	\
	      _ret, strerror(errno), strerror(want));				\
} while (0)

/* What hangs is ended after so many times as long: the machine may be busy. */
#define BUSY	4

/* How long a test may take: more, where the kernel looks for bugs */
static inline unsigned int test_seconds(void)
{
	const char *text = getenv("UMEM_TEST_SECONDS");

	return text ? atoi(text) : 30;
}

static inline void skip(const char *why)
{
	printf("# SKIP %s\n", why);
	fflush(stdout);
	_exit(EXIT_SKIP);
}

static inline const char *run_test(const struct test *test)
{
	pid_t pid;
	int status;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(BUSY * test_seconds());
		test->fn();
		fflush(stdout);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return "not ok";
	if (WIFSIGNALED(status))
		printf("# ended by signal %d (%s)\n", WTERMSIG(status),
		       WTERMSIG(status) == SIGALRM ? "it took too long" :
		       strsignal(WTERMSIG(status)));
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP)
		return "skip";
	return WIFEXITED(status) && !WEXITSTATUS(status) ? "ok" : "not ok";
}

static inline int run_tests(const struct test *tests, int nr, int argc, char **argv)
{
	int failed = 0;

	printf("TAP version 13\n1..%d\n", argc > 1 ? 1 : nr);
	for (int i = 0; i < nr; i++) {
		const char *result;

		if (argc > 1 && strcmp(argv[1], tests[i].name))
			continue;
		result = run_test(&tests[i]);
		if (!strcmp(result, "skip"))
			printf("ok %d %s # SKIP\n", i + 1, tests[i].name);
		else
			printf("%s %d %s\n", result, i + 1, tests[i].name);
		failed += !strcmp(result, "not ok");
	}
	return failed ? 1 : 0;
}

#define TEST_MAIN(tests)						\
int main(int argc, char **argv)						\
{									\
	return run_tests(tests, sizeof(tests) / sizeof(*(tests)), argc, argv); \
}

/* Names for the ioctls */

static inline int device(void)
{
	int fd = open("/dev/umem", O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0, "/dev/umem: %s", strerror(errno));
	return fd;
}

static inline int region_with(uint32_t flags, uint64_t length, uint32_t *id)
{
	struct umem_create create = { .size = sizeof(create), .flags = flags, .length = length,
				      .name = "selftest" };
	int dev = device();

	CHECK(!ioctl(dev, UMEM_CREATE, &create), "UMEM_CREATE: %s", strerror(errno));
	close(dev);
	if (id)
		*id = create.out_id;
	return create.out_fd;
}

static inline int region_id(uint64_t length, uint32_t *id)
{
	return region_with(0, length, id);
}

static inline int region(uint64_t length)
{
	return region_id(length, NULL);
}

static inline int pager_flags(int region_fd, uint32_t flags)
{
	struct umem_attach attach = { .size = sizeof(attach), .flags = flags };

	CHECK(!ioctl(region_fd, UMEM_ATTACH, &attach), "UMEM_ATTACH: %s", strerror(errno));
	return attach.out_fd;
}

static inline int pager(int region_fd)
{
	return pager_flags(region_fd, 0);
}

static inline struct umem_info info(int region_fd)
{
	struct umem_info info = { .size = sizeof(info) };

	CHECK(!ioctl(region_fd, UMEM_INFO, &info), "UMEM_INFO: %s", strerror(errno));
	return info;
}

static inline int range_ioctl(int fd, unsigned long cmd, struct umem_range *range,
			      uint64_t offset, uint64_t length)
{
	*range = (struct umem_range){ .size = sizeof(*range), .offset = offset,
				      .length = length };
	return ioctl(fd, cmd, range);
}

/* A range ioctl that works; returns how many pages it changed. */
static inline uint64_t change(int pager_fd, unsigned long cmd, uint64_t offset, uint64_t length)
{
	struct umem_range range;

	CHECK(!range_ioctl(pager_fd, cmd, &range, offset, length), "ioctl %lx: %s", cmd,
	      strerror(errno));
	CHECK_EQ(range.out_pages + range.out_skipped, length / PAGE);
	return range.out_pages;
}

static inline uint64_t mark_missing(int pager_fd, uint64_t offset, uint64_t length)
{
	return change(pager_fd, UMEM_MARK_MISSING, offset, length);
}

static inline int copy_ioctl(int pager_fd, struct umem_copy *copy, uint64_t offset,
			     const void *from, uint64_t length)
{
	struct umem_copy_entry entry = { offset, (uintptr_t)from, length };

	*copy = (struct umem_copy){ .size = sizeof(*copy), .entries = (uintptr_t)&entry,
				    .nr_entries = 1 };
	return ioctl(pager_fd, UMEM_COPY, copy);
}

/* Fill one page with a byte; returns 1 if it was missing. */
static inline uint64_t copy_byte(int pager_fd, uint64_t offset, int byte)
{
	struct umem_copy copy;
	char page[PAGE];

	memset(page, byte, sizeof(page));
	CHECK(!copy_ioctl(pager_fd, &copy, offset, page, PAGE), "UMEM_COPY: %s",
	      strerror(errno));
	CHECK_EQ(copy.out_pages + copy.out_skipped, 1);
	return copy.out_pages;
}

/* The same, but the page stays missing. Returns 1 if it was filled. */
static inline uint64_t copy_byte_unpublished(int pager_fd, uint64_t offset, int byte)
{
	char page[PAGE];
	struct umem_copy_entry entry = { offset, (uintptr_t)page, PAGE };
	struct umem_copy copy = {
		.size = sizeof(copy),
		.flags = UMEM_FILL_UNPUBLISHED,
		.entries = (uintptr_t)&entry,
		.nr_entries = 1,
	};

	memset(page, byte, sizeof(page));
	CHECK(!ioctl(pager_fd, UMEM_COPY, &copy), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_pages + copy.out_skipped, 1);
	return copy.out_pages;
}

static inline uint64_t zero_unpublished(int pager_fd, uint64_t offset, uint64_t length)
{
	struct umem_range range = {
		.size = sizeof(range),
		.flags = UMEM_FILL_UNPUBLISHED,
		.offset = offset,
		.length = length,
	};

	CHECK(!ioctl(pager_fd, UMEM_ZERO, &range), "UMEM_ZERO: %s", strerror(errno));
	CHECK_EQ(range.out_pages + range.out_skipped, length / PAGE);
	return range.out_pages;
}

static inline char *map(int fd, uint64_t length)
{
	char *addr = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	CHECK(addr != MAP_FAILED, "mmap: %s", strerror(errno));
	return addr;
}

/* Whether the mapping at the address has this among its VmFlags in /proc/self/smaps. */
static inline bool has_vm_flag(const volatile void *addr, const char *flag)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	bool ours = false, has = false;
	char line[512];

	CHECK(file, "smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start <= (unsigned long)addr && (unsigned long)addr < end;
		else if (ours && !strncmp(line, "VmFlags:", 8))
			has = strstr(line, flag);
	}
	fclose(file);
	return has;
}

static inline bool page_is(const volatile char *addr, char byte)
{
	for (unsigned long i = 0; i < PAGE; i++)
		if (addr[i] != byte)
			return false;
	return true;
}

/*
 * A page that was just allocated or used is in a list of its CPU, which holds a
 * reference. Moving any page, even to where it is, empties these lists.
 */
static inline void empty_lists(void)
{
	static char any = 1;
	void *page = &any;
	int node = 0, status;

	CHECK(syscall(SYS_move_pages, 0, 1UL, &page, &node, &status,
		      1 << 1 /* MPOL_MF_MOVE */) >= 0, "move_pages: %s", strerror(errno));
}

/* The next event, which must come. */
static inline struct umem_event next_event(int pager_fd)
{
	struct umem_event event;

	CHECK_EQ(read(pager_fd, &event, sizeof(event)), sizeof(event));
	return event;
}

static inline void expect_request(int pager_fd, uint64_t offset)
{
	struct umem_event event = next_event(pager_fd);

	CHECK_EQ(event.type, UMEM_EVENT_REQUEST);
	CHECK_EQ(event.offset, offset);
	CHECK_EQ(event.length, PAGE);
}

static inline bool has_event(int pager_fd)
{
	struct pollfd pfd = { .fd = pager_fd, .events = POLLIN };

	return poll(&pfd, 1, 0) == 1;
}

static inline void msleep(int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&ts, NULL);
}

/* A guest view of a complete region becomes as other mappings are soon, not at once. */
static inline void wait_until_relaxed(const volatile void *addr)
{
	for (int i = 0; i < 10000 && has_vm_flag(addr, " mm"); i++)
		msleep(1);
	CHECK(!has_vm_flag(addr, " mm"), "it still has VM_MIXEDMAP");
}

/* Wait until so many threads sleep for a page of the region. */
static inline void expect_waiters(int region_fd, uint64_t nr)
{
	for (int i = 0; i < 10000; i++) {
		if (info(region_fd).waiters == nr)
			return;
		msleep(1);
	}
	CHECK_EQ(info(region_fd).waiters, nr);
}

/* A thread that does one thing to memory, which may make it wait */
struct toucher {
	pthread_t thread;
	void (*touch)(struct toucher *toucher);
	volatile char *addr;
	char value;
	long ret;
	int err;
	atomic_bool done;
};

static inline void touch_read(struct toucher *toucher)
{
	toucher->value = *toucher->addr;
}

static inline void touch_write(struct toucher *toucher)
{
	*toucher->addr = toucher->value;
}

static inline void *toucher_main(void *arg)
{
	struct toucher *toucher = arg;

	toucher->touch(toucher);
	toucher->done = true;
	return NULL;
}

static inline void start(struct toucher *toucher, void (*touch)(struct toucher *),
			 volatile char *addr)
{
	toucher->touch = touch;
	toucher->addr = addr;
	toucher->done = false;
	CHECK(!pthread_create(&toucher->thread, NULL, toucher_main, toucher), "pthread_create");
}

static inline void finish(struct toucher *toucher)
{
	CHECK(!pthread_join(toucher->thread, NULL), "pthread_join");
}

static inline void exit_with_code(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	_exit(100 + si->si_code);
}

/* The si_code of the SIGBUS that touching the address raises, 0 if it raises none. */
static inline int sigbus_code(volatile char *addr, bool write)
{
	struct sigaction sa = { .sa_sigaction = exit_with_code, .sa_flags = SA_SIGINFO };
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0, "fork");
	if (!pid) {
		sigaction(SIGBUS, &sa, NULL);
		if (write)
			*addr = 1;
		else
			(void)*addr;
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status), "status %x", status);
	return WEXITSTATUS(status) ? WEXITSTATUS(status) - 100 : 0;
}

#endif /* _UMEM_SELFTEST_H */
