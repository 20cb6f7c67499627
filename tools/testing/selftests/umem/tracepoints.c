// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoints, read through an instance of tracefs: what happens to a page is told
 * stage after stage.
 */
#include "missing_region.h"

#include <sys/stat.h>

#define INSTANCE "/sys/kernel/tracing/instances/umem-selftest"

static char trace[1 << 16];

static int open_trace(const char *name, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), INSTANCE "/%s", name);
	fd = open(path, flags | O_CLOEXEC);
	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	return fd;
}

static void write_trace(const char *name, const char *text)
{
	int fd = open_trace(name, O_WRONLY | O_TRUNC);

	CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void trace_on(void)
{
	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		skip("no tracefs at /sys/kernel/tracing");
	write_trace("events/umem/enable", "1");
	write_trace("trace", "");
}

static void trace_off(void)
{
	int fd = open_trace("trace", O_RDONLY);
	size_t used = 0;
	ssize_t n;

	while ((n = read(fd, trace + used, sizeof(trace) - 1 - used)) > 0)
		used += n;
	trace[used] = 0;
	close(fd);
	write_trace("events/umem/enable", "0");
	CHECK(!rmdir(INSTANCE), "rmdir: %s", strerror(errno));
}

/* Where the event stands that begins with this; it must be there, and after @from. */
static const char *expect_event(const char *from, const char *event, const char *fields)
{
	char line[200];
	const char *found;

	snprintf(line, sizeof(line), "%s: region=%u%s", event, info(region_fd).id, fields);
	found = strstr(from, line);
	CHECK(found, "no \"%s\" in its place in:\n%s", line, trace);
	return found + strlen(line);
}

static void a_fault_is_told_stage_after_stage(void)
{
	const char *at;
	struct toucher t;

	setup();
	trace_on();
	start(&t, touch_read, guest + 5 * PAGE);
	expect_waiters(region_fd, 1);
	expect_request(pager_fd, 5 * PAGE);
	copy_byte(pager_fd, 5 * PAGE, 'x');
	finish(&t);
	trace_off();
	at = expect_event(trace, "umem_fault", " offset=0x5000 waits=1\n");
	at = expect_event(at, "umem_request", " offset=0x5000\n");
	at = expect_event(at, "umem_deliver", " offset=0x5000\n");
	at = expect_event(at, "umem_publish", " offset=0x5000 length=0x1000\n");
	at = expect_event(at, "umem_wake", " offset=0x5000\n");
	expect_event(at, "umem_resume", " offset=0x5000 answered=1 wait_ns=");
}

static void what_a_pager_does_is_told(void)
{
	const char *at;

	trace_on();
	setup_flags(UMEM_ATTACH_SIGBUS);
	change(pager_fd, UMEM_POISON, PAGE, 2 * PAGE);
	change(pager_fd, UMEM_ZERO, 4 * PAGE, PAGE);
	change(pager_fd, UMEM_PUBLISH, 6 * PAGE, PAGE);
	close(pager_fd);
	trace_off();
	at = expect_event(trace, "umem_pager_attach", " missing=0x0 sigbus=1\n");
	at = expect_event(at, "umem_poison", " offset=0x1000 length=0x2000\n");
	at = expect_event(at, "umem_publish", " offset=0x4000 length=0x1000\n");
	at = expect_event(at, "umem_publish", " offset=0x6000 length=0x1000\n");
	expect_event(at, "umem_pager_detach", " missing=0xc000 sigbus=1\n");
}

static void a_discard_is_told_with_its_range(void)
{
	setup();
	trace_on();
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * PAGE, 2 * PAGE),
	      "punch: %s", strerror(errno));
	trace_off();
	expect_event(trace, "umem_discard", " offset=0x8000 length=0x2000\n");
}

static const struct test tests[] = {
	TEST(a_fault_is_told_stage_after_stage),
	TEST(what_a_pager_does_is_told),
	TEST(a_discard_is_told_with_its_range),
};

TEST_MAIN(tests)
