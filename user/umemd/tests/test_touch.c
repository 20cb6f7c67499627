// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/touch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

#define PAGES	16

static void test_lines_of_maps(void **state)
{
	struct touch_line line;

	(void)state;
	assert_int_equal(touch_parse("7f0010000000-7f0010004000 rw-s 00003000 00:1a 12345      /umem (deleted)\n",
				     &line), 0);
	assert_true(line.start == 0x7f0010000000 && line.end == 0x7f0010004000);
	assert_int_equal(line.offset, 0x3000);
	assert_int_equal(line.inode, 12345);
	assert_true(line.device == makedev(0, 0x1a));
	assert_int_equal(touch_parse("7ffd0-7ffe0 rw-p 00000000 00:00 0 [stack]\n", &line), 0);
	assert_int_equal(touch_parse("", &line), -EINVAL);
	assert_int_equal(touch_parse("7f0010000000-7f0010004000 rw-s\n", &line), -EINVAL);
	assert_int_equal(touch_parse("2000-1000 rw-s 0 0:1 7\n", &line), -EINVAL);
}

/* A child that maps the last PAGES - 4 pages, and says where and which it has. */
struct child {
	pid_t pid;
	int from, to;
	uint8_t *memory;
};

static struct child start_child(int fd)
{
	struct child child;
	int up[2], down[2];

	assert_int_equal(pipe(up), 0);
	assert_int_equal(pipe(down), 0);
	child.memory = mmap(NULL, (PAGES - 4) * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			    4 * PAGE_BYTES);
	assert_true(child.memory != MAP_FAILED);
	child.pid = fork();
	if (!child.pid) {
		char c;

		close(down[1]);
		/* A mapping of its own, with nothing in it yet. */
		munmap(child.memory, (PAGES - 4) * PAGE_BYTES);
		if (mmap(child.memory, (PAGES - 4) * PAGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 4 * PAGE_BYTES) == MAP_FAILED)
			_exit(1);
		if (write(up[1], "x", 1) != 1 || read(down[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	assert_true(child.pid > 0);
	child.from = up[0];
	child.to = down[1];
	close(up[1]);
	close(down[0]);
	assert_int_equal(read(child.from, (char[1]){ 0 }, 1), 1);
	munmap(child.memory, (PAGES - 4) * PAGE_BYTES);
	return child;
}

static void end_child(struct child *child)
{
	int status;

	close(child->to);
	close(child->from);
	assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
	assert_int_equal(status, 0);
}

/* Is the page in the child's page table? */
static int is_mapped(const struct child *child, unsigned int page)
{
	uint64_t entry = 0;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)child->pid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fseek(file, (long)(((uintptr_t)child->memory / PAGE_BYTES + page) * 8),
			       SEEK_SET), 0);
	assert_int_equal(fread(&entry, sizeof(entry), 1, file), 1);
	fclose(file);
	return entry >> 63;
}

static void test_pages_are_touched_there_and_no_others(void **state)
{
	static struct touch touch;
	const uint64_t pages[] = { 0, 3, 4, 9, 15 };
	int fds[2] = { memfd_create("other", 0), memfd_create("region", 0) };
	struct child child;

	(void)state;
	assert_int_equal(ftruncate(fds[1], PAGES * PAGE_BYTES), 0);
	child = start_child(fds[1]);
	assert_int_equal(touch_find(&touch, getpid(), fds, 2), 0);
	assert_int_equal(touch.nr_maps, 1);
	assert_int_equal(touch.nr_processes, 1);
	assert_int_equal(touch.maps[0].region, 1);
	assert_int_equal(touch.maps[0].offset, 4 * PAGE_BYTES);

	/* The first two are not in the mapping; the other region is mapped nowhere. */
	assert_int_equal(touch_pages(&touch, 0, pages, 5), 0);
	assert_int_equal(touch.touched, 0);
	assert_int_equal(touch_pages(&touch, 1, pages, 5), 0);
	assert_int_equal(touch.touched, 3);
	assert_true(is_mapped(&child, 0) && is_mapped(&child, 5) && is_mapped(&child, 11));
	end_child(&child);

	assert_int_equal(touch_pages(&touch, 1, pages, 5), -ESRCH);
	close(touch.processes[0]);
	assert_int_equal(touch_find(&touch, getpid(), fds, 2), -ENOENT);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_of_maps),
		cmocka_unit_test(test_pages_are_touched_there_and_no_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
