/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For the tests of what else touches memory, which Documentation/memory-operations.rst
 * sums up: a region whose page 0 is present and whose others are missing.
 */
#ifndef _OPERATIONS_H
#define _OPERATIONS_H

#include "missing_region.h"

static char *const present_byte = "p";

static inline void setup_mixed(void)
{
	setup();
	CHECK_EQ(copy_byte(pager_fd, 0, *present_byte), 1);
}

/* Nothing of the region of setup_mixed() has changed, and its pages are as they should be. */
static inline void expect_as_before(char *view)
{
	struct toucher t;

	CHECK(!has_event(pager_fd), "a page was asked for, or discarded");
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
	CHECK(page_is(view, *present_byte), "the present page");
	start(&t, touch_read, view + PAGE);
	serve(&t, 1, 'm');
	CHECK(page_is(view + PAGE, 'm'), "the missing page");
}

/* A child that does it, and ends with 0 if it works. */
static inline pid_t child_that_does(void (*fn)(void))
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		fn();
		_exit(0);
	}
	return pid;
}

/* Runs it in a child; what that ended with. */
static inline int in_child(void (*fn)(void))
{
	pid_t pid = child_that_does(fn);
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

/* The test ends as in_child() did. */
static inline void skip_as(int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP)
		skip("see above");
	CHECK_EQ(status, 0);
}

/* A child that does it, once it waits for a page. */
static inline pid_t child_that_waits(void (*fn)(void))
{
	uint64_t before = info(region_fd).waiters;
	pid_t pid = child_that_does(fn);

	expect_waiters(region_fd, before + 1);
	return pid;
}

static inline void expect_exit(pid_t pid, int want)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == want, "status %x", status);
}

static inline void expect_killed(pid_t pid, int signal)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == signal, "status %x", status);
	expect_waiters(region_fd, 0);
}

static inline void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) > 0, "%s: %s", path, strerror(errno));
	close(fd);
}

/* What /proc/self/smaps says of the mapping at an address: "Swap", "VmFlags"... */
static inline void smaps(const char *addr, const char *field, char value[256])
{
	FILE *file = fopen("/proc/self/smaps", "r");
	unsigned long start = 0, end = 0, s, e;
	char line[512];
	size_t length = strlen(field);

	CHECK(file, "smaps");
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2) {
			start = s;
			end = e;
		} else if ((uintptr_t)addr >= start && (uintptr_t)addr < end &&
			   !strncmp(line, field, length) && line[length] == ':') {
			snprintf(value, 256, "%.255s", line + length + 1);
			fclose(file);
			return;
		}
	}
	CHECK(false, "smaps has no %s of %p", field, (void *)addr);
}

static inline long smaps_kib(const char *addr, const char *field)
{
	char value[256];

	smaps(addr, field, value);
	return strtol(value, NULL, 10);
}

#endif /* _OPERATIONS_H */
