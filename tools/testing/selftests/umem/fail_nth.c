// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each allocation failed in turn, and each copy from and to user space: every call then
 * gives an errno that says so, or succeeds all the same, and has either happened or not.
 * Needs a kernel with fault injection; what leaks or splats the kernel says itself.
 */
#include "umem_selftest.h"
#include "netlink_client.h"
#include <dirent.h>
#include <sys/time.h>

#define NR 4

enum { DEVICE, REGION, PAGER, OTHER, NR_FDS };

static int fds[NR_FDS];

static char source[NR * PAGE];
static char *guest;
static uint32_t id;
static struct client *nl;
static int counter;	/* of this thread: the n-th from now on fails, 0 none */

static void set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, value, strlen(value)) < 0) {
		printf("# %s: %s\n", path, strerror(errno));
		skip("needs CONFIG_FAULT_INJECTION, FAILSLAB, FAIL_PAGE_ALLOC and debugfs");
	}
	close(fd);
}

static void prepare_faults(void)
{
	set("/sys/kernel/debug/failslab/ignore-gfp-wait", "N");
	set("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	set("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N");
	set("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	/* A trace for each would look like a bug. */
	set("/sys/kernel/debug/failslab/verbose", "0");
	set("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	set("/sys/kernel/debug/fail_usercopy/verbose", "0");
	counter = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	CHECK(counter >= 0, "fail-nth: %s", strerror(errno));
}

/* What is said to the kernel here may be what fails, which ends it as well. */
static bool armed, reached;

static void disarm(void)
{
	char text[16] = "";

	if (!armed)
		return;
	reached = pread(counter, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	while (pwrite(counter, "0", 1, 0) < 0)
		CHECK(errno == EFAULT || errno == ENOMEM, "fail-nth: %s", strerror(errno));
	armed = false;
}

static void fail_from(int n)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", n);
	armed = true;
	CHECK(pwrite(counter, text, strlen(text), 0) > 0, "fail-nth: %s", strerror(errno));
}

static int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

static int call_create(void)
{
	struct umem_create create = { .size = sizeof(create), .length = 1 << 20 };

	return ioctl(fds[DEVICE], UMEM_CREATE, &create) ?: close(create.out_fd);
}

static int call_open(void)
{
	struct umem_open open = { .size = sizeof(open), .id = id };

	return ioctl(fds[DEVICE], UMEM_OPEN, &open) ?: close(open.out_fd);
}

static int call_open_device(void)
{
	int fd = open("/dev/umem", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -1 : close(fd);
}

static int call_reopen(void)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[REGION]);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -1 : close(fd);
}

static int map_and_unmap(int fd)
{
	void *addr = mmap(NULL, NR * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return addr == MAP_FAILED ? -1 : munmap(addr, NR * PAGE);
}

static int call_map(void)
{
	return map_and_unmap(fds[REGION]);
}

static int call_map_device(void)
{
	int fd = open("/dev/umem", O_RDWR | O_CLOEXEC), ret, err;

	if (fd < 0)
		return -1;
	ret = map_and_unmap(fd);
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static int call_map_fill(void)
{
	return map_and_unmap(fds[PAGER]);
}

static int call_attach(void)
{
	struct umem_attach attach = { .size = sizeof(attach) };

	return ioctl(fds[OTHER], UMEM_ATTACH, &attach) ?: close(attach.out_fd);
}

static int call_info(void)
{
	struct umem_info info = { .size = sizeof(info) };

	return ioctl(fds[REGION], UMEM_INFO, &info);
}

/* Those of a range give what they have done along with an error. */
static int call_range(unsigned long cmd)
{
	struct umem_range range;
	int ret = range_ioctl(fds[PAGER], cmd, &range, 0, NR * PAGE);

	CHECK(range.out_pages + range.out_skipped <= NR, "%llu + %llu",
	      (unsigned long long)range.out_pages, (unsigned long long)range.out_skipped);
	return ret;
}

static int call_mark_missing(void)
{
	return call_range(UMEM_MARK_MISSING);
}

static int call_publish(void)
{
	return call_range(UMEM_PUBLISH);
}

static int call_zero(void)
{
	return call_range(UMEM_ZERO);
}

static int call_poison(void)
{
	return call_range(UMEM_POISON);
}

static int call_copy(void)
{
	struct umem_copy copy;
	int ret, err;

	ret = copy_ioctl(fds[PAGER], &copy, 0, source, NR * PAGE);
	err = errno;
	disarm();
	/* It is told how far it came, unless that could not be told. */
	if (!ret || err != EFAULT)
		CHECK_EQ(info(fds[REGION]).missing, (NR - copy.out_pages) * PAGE);
	errno = err;
	return ret;
}

static int call_get_bitmap(void)
{
	uint64_t bits;
	struct umem_bitmap bitmap = { .size = sizeof(bitmap), .length = NR * PAGE,
				      .bits = (uintptr_t)&bits };

	return ioctl(fds[PAGER], UMEM_GET_BITMAP, &bitmap);
}

static int call_track(void)
{
	uint64_t bits;
	struct umem_track t = { .size = sizeof(t), .op = UMEM_TRACK_START };
	int ret, err;

	ret = ioctl(fds[PAGER], UMEM_TRACK, &t);
	if (!ret) {
		t = (struct umem_track){ .size = sizeof(t), .op = UMEM_TRACK_COLLECT,
					 .length = NR * PAGE, .bits = (uintptr_t)&bits };
		ret = ioctl(fds[PAGER], UMEM_TRACK, &t);
	}
	err = errno;
	disarm();
	/* An answer that could not be copied is of a call that was made. */
	t = (struct umem_track){ .size = sizeof(t), .op = UMEM_TRACK_STOP };
	ioctl(fds[PAGER], UMEM_TRACK, &t);
	errno = err;
	return ret;
}

static int call_punch(void)
{
	return fallocate(fds[REGION], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, NR * PAGE);
}

static int call_allocate(void)
{
	return fallocate(fds[REGION], 0, 0, NR * PAGE);
}

static int call_read(void)
{
	char buffer[100];
	ssize_t got = pread(fds[REGION], buffer, sizeof(buffer), PAGE - 50);

	/* Less than was asked for, rather than an error. */
	return got < 0 ? -1 : 0;
}

static int call_read_requests(void)
{
	struct umem_event event;

	return read(fds[PAGER], &event, sizeof(event)) < 0 ? -1 : 0;
}

static int call_populate(void)
{
	return madvise(guest, NR * PAGE, MADV_POPULATE_WRITE);
}

/* Whoever asked is answered, or told that the answer was lost. */
static int call_netlink(uint8_t cmd, uint16_t flags)
{
	if (!nl_send(nl, nl->family, cmd, flags, 1, &id, sizeof(id)))
		return -1;
	while (nl_receive(nl))
		if (!(flags & NLM_F_DUMP))
			return 0;
	return errno ? -1 : 0;
}

static int call_get_region(void)
{
	return call_netlink(UMEM_CMD_REGION_GET, 0);
}

static int call_get_stats(void)
{
	return call_netlink(UMEM_CMD_STATS_GET, 0);
}

static int call_dump_regions(void)
{
	return call_netlink(UMEM_CMD_REGION_GET, NLM_F_DUMP);
}

static int call_dump_threads(void)
{
	return call_netlink(UMEM_CMD_THREAD_GET, NLM_F_DUMP);
}

static int call_fork(void)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(0);
	return pid < 0 ? -1 : waitpid(pid, &status, 0) != pid;
}

static void nothing(void)
{
}

static void make_missing(void)
{
	mark_missing(fds[PAGER], 0, NR * PAGE);
}

static void make_present(void)
{
	make_missing();
	change(fds[PAGER], UMEM_ZERO, 0, NR * PAGE);
}

/* One that failed may have an answer of another kind left. */
static void new_socket(void)
{
	struct timeval seconds = { .tv_sec = 10 };

	if (nl)
		nl_close(nl);
	nl = nl_open();
	CHECK(!setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &seconds, sizeof(seconds)), "timeout");
}

/* A page somebody waits for; each new pager is asked for it again. */
static void make_request(void)
{
	static struct toucher toucher;

	if (!toucher.thread) {
		make_missing();
		start(&toucher, touch_read, guest);
		expect_waiters(fds[REGION], 1);
	}
	close(fds[PAGER]);
	fds[PAGER] = pager(fds[REGION]);
}

static const struct call {
	const char *name;
	void (*before)(void);
	int (*call)(void);
} calls[] = {
	{ "UMEM_CREATE", nothing, call_create },
	{ "UMEM_OPEN", nothing, call_open },
	{ "open of the device", nothing, call_open_device },
	{ "open of a region", nothing, call_reopen },
	{ "mmap of a region", nothing, call_map },
	{ "mmap of the device", nothing, call_map_device },
	{ "mmap of a pager", nothing, call_map_fill },
	{ "UMEM_ATTACH", nothing, call_attach },
	{ "UMEM_INFO", nothing, call_info },
	{ "UMEM_MARK_MISSING", make_present, call_mark_missing },
	{ "UMEM_PUBLISH", make_missing, call_publish },
	{ "UMEM_ZERO", make_missing, call_zero },
	{ "UMEM_POISON", make_missing, call_poison },
	{ "UMEM_COPY", make_missing, call_copy },
	{ "UMEM_GET_BITMAP", nothing, call_get_bitmap },
	{ "UMEM_TRACK", make_present, call_track },
	{ "a punched hole", make_missing, call_punch },
	{ "fallocate", make_present, call_allocate },
	{ "read of a region", make_present, call_read },
	{ "faults of a guest view", make_present, call_populate },
	{ "fork", nothing, call_fork },
	{ "region-get", new_socket, call_get_region },
	{ "stats-get", new_socket, call_get_stats },
	{ "dump of regions", new_socket, call_dump_regions },
	{ "dump of threads", new_socket, call_dump_threads },
};

/* The same call, with the first, second, ... failing, until it gets through without one. */
static int fail_each(const struct call *call)
{
	int n, failed = 0;

	for (n = 1; n < 10000; n++) {
		int files, ret, err;

		call->before();
		files = open_files();
		fail_from(n);
		ret = call->call();
		err = errno;
		disarm();
		CHECK_EQ(open_files(), files);
		if (!reached) {
			CHECK(!ret, "%s: %s with nothing failed", call->name, strerror(err));
			printf("# %s: %d may fail, %d calls did\n", call->name, n - 1, failed);
			return failed;
		}
		CHECK(!ret || err == ENOMEM || err == EFAULT || err == ENOBUFS, "%s: %s",
		      call->name, strerror(err));
		failed += !!ret;
	}
	CHECK(false, "%s: there is no end", call->name);
	return 0;
}

static void setup(void)
{
	prepare_faults();
	fds[DEVICE] = device();
	fds[REGION] = region_id(NR * PAGE, &id);
	fds[PAGER] = pager(fds[REGION]);
	fds[OTHER] = region(PAGE);
	guest = map(fds[REGION], NR * PAGE);
}

static void every_call_survives_each_failure(void)
{
	int failed = 0;

	setup();
	for (unsigned int i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		failed += fail_each(&calls[i]);
	CHECK(failed > 10, "only %d calls failed", failed);
}

/* Who waits is not lost when the pager could not be told. */
static void requests_survive_each_failure(void)
{
	static const struct call call = { "read of requests", make_request, call_read_requests };

	setup();
	fail_each(&call);
	make_request();
	expect_request(fds[PAGER], 0);
	CHECK_EQ(copy_byte(fds[PAGER], 0, 'x'), 1);
	expect_waiters(fds[REGION], 0);
}

/* This thread touches the page with its n-th allocation failing. */
static void touch_failing(struct toucher *toucher)
{
	counter = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	CHECK(counter >= 0, "fail-nth: %s", strerror(errno));
	fail_from(toucher->ret);
	toucher->value = *toucher->addr;
	disarm();
	close(counter);
}

/* A fault that finds no memory is taken again. */
static void a_missing_page_is_asked_for_in_the_end(void)
{
	struct toucher toucher;
	bool failed = false;

	setup();
	for (int n = 1; n < 12; n++) {
		make_missing();
		toucher.ret = n;
		start(&toucher, touch_failing, guest);
		expect_request(fds[PAGER], 0);
		CHECK_EQ(copy_byte(fds[PAGER], 0, 'a' + n), 1);
		finish(&toucher);
		CHECK_EQ(toucher.value, 'a' + n);
		failed |= reached;
	}
	CHECK(failed, "no allocation failed");
}

static const struct test tests[] = {
	TEST(every_call_survives_each_failure),
	TEST(requests_survive_each_failure),
	TEST(a_missing_page_is_asked_for_in_the_end),
};

TEST_MAIN(tests)
