// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/collapse.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BLOCK	COLLAPSE_BLOCK
#define BASE	(0x7f0000000000ULL)
#define CALLS	1000

static struct world {
	int errors[CALLS];	/* what the calls of collapse() give */
	unsigned int nr_calls;
	uint64_t called[CALLS];
	uint64_t hole;		/* offset of a block with one */
	uint64_t now, takes;	/* microseconds */
	uint64_t worked;
} world;

static int collapse(void *context, uint64_t address)
{
	struct world *w = context;

	assert_true(w->nr_calls < CALLS);
	w->called[w->nr_calls] = address;
	w->now += w->takes;
	w->worked += w->takes;
	return w->errors[w->nr_calls++];
}

static bool is_whole(void *context, uint64_t offset)
{
	const struct world *w = context;

	assert_int_equal(offset % BLOCK, 0);
	return offset != w->hole;
}

static void wait_us(void *context, uint64_t microseconds)
{
	struct world *w = context;

	w->now += microseconds;
}

static uint64_t now_us(void *context)
{
	const struct world *w = context;

	return w->now;
}

static const struct collapse_ops ops = {
	.collapse = collapse,
	.is_whole = is_whole,
	.wait = wait_us,
	.now_us = now_us,
};

static int setup(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	world.hole = UINT64_MAX;
	return 0;
}

static void fail_from(unsigned int first, unsigned int end, int error)
{
	for (unsigned int i = first; i < end; i++)
		world.errors[i] = error;
}

static long go_through(uint64_t start, uint64_t length, uint64_t offset)
{
	const struct collapse_map map = {
		.start = start, .end = start + length, .offset = offset,
	};

	return collapse_map(&map, &ops, &world);
}

static void test_lines_of_maps(void **state)
{
	struct collapse_map map;

	(void)state;
	assert_true(collapse_parse("7f1000000000-7f1010000000 rw-s 00200000 00:1f 4711      /umem:pc.ram (deleted)\n",
				   &map));
	assert_int_equal(map.start, 0x7f1000000000);
	assert_int_equal(map.end, 0x7f1010000000);
	assert_int_equal(map.offset, 0x200000);
	assert_true(map.shared);
	assert_int_equal(map.device, makedev(0, 0x1f));
	assert_int_equal(map.inode, 4711);
	assert_true(collapse_parse("7ffe00000000-7ffe00021000 rw-p 00000000 00:00 0 [stack]\n", &map));
	assert_false(map.shared);
	assert_int_equal(map.inode, 0);
	assert_false(collapse_parse("", &map));
	assert_false(collapse_parse("7ffe00000000-7ffe00021000 rw-p\n", &map));
}

static void test_whole_blocks_one_by_one(void **state)
{
	(void)state;
	assert_int_equal(go_through(BASE, 3 * BLOCK + 4096, 0), 3);
	assert_int_equal(world.nr_calls, 3);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(world.called[i], BASE + i * BLOCK);

	/* a part of a file, from the middle of a block on */
	setup(NULL);
	assert_int_equal(go_through(BASE + 4096, 2 * BLOCK, BLOCK + 4096), 1);
	assert_int_equal(world.called[0], BASE + BLOCK);
	/* no huge page could be mapped there */
	setup(NULL);
	assert_int_equal(go_through(BASE, 2 * BLOCK, 4096), 0);
	assert_int_equal(go_through(BASE + 4096, 4096, 4096), 0);
	assert_int_equal(world.nr_calls, 0);
}

static void test_what_the_guest_gave_back_is_not_allocated_again(void **state)
{
	(void)state;
	world.hole = 5 * BLOCK;
	assert_int_equal(go_through(BASE, 3 * BLOCK, 4 * BLOCK), 2);
	assert_int_equal(world.nr_calls, 2);
	assert_int_equal(world.called[1], BASE + 2 * BLOCK);
}

static void test_a_view_that_is_guarded_yet_is_tried_again(void **state)
{
	(void)state;
	fail_from(0, 3, -EINVAL);
	assert_int_equal(go_through(BASE, 2 * BLOCK, 0), 2);
	assert_int_equal(world.nr_calls, 5);
	assert_in_range(world.now, 10000, 1000000);
}

static void test_a_mapping_that_cannot_be_is_left_after_a_while(void **state)
{
	(void)state;
	fail_from(0, CALLS, -EINVAL);
	assert_int_equal(go_through(BASE, 100 * BLOCK, 0), 0);
	assert_in_range(world.nr_calls, 10, 99);
	assert_int_equal(world.called[world.nr_calls - 1], BASE);
	assert_in_range(world.now, 500000, 5000000);
}

static void test_a_block_that_cannot_be_is_left_the_others_are_not(void **state)
{
	static const int errors[] = { -EAGAIN, -EBUSY, -ENOMEM };

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		setup(NULL);
		fail_from(1, errors[i] == -ENOMEM ? 2 : 5, errors[i]);
		assert_int_equal(go_through(BASE, 3 * BLOCK, 0), 2);
		assert_int_equal(world.called[world.nr_calls - 1], BASE + 2 * BLOCK);
	}
	setup(NULL);
	fail_from(1, 2, -EINVAL);
	assert_int_equal(go_through(BASE, 3 * BLOCK, 0), 2);
	assert_int_equal(world.nr_calls, 3);
}

static void test_it_ends_at_once_where_it_may_not(void **state)
{
	static const int errors[] = { -EPERM, -ENOSYS, -ESRCH };

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		setup(NULL);
		fail_from(0, CALLS, errors[i]);
		assert_int_equal(go_through(BASE, 3 * BLOCK, 0), errors[i]);
		assert_int_equal(world.nr_calls, 1);
	}
}

static void test_it_pauses_much_longer_than_it_works(void **state)
{
	(void)state;
	world.takes = 5000;
	assert_int_equal(go_through(BASE, 100 * BLOCK, 0), 100);
	assert_true(world.now >= 5 * world.worked);
	setup(NULL);
	assert_int_equal(go_through(BASE, 100 * BLOCK, 0), 100);
	assert_true(world.now >= 100 * 1000);
}

static void test_process_ends_by_itself_and_holds_nothing_open(void **state)
{
	int fds[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	/* of what this process maps nothing is a pipe: there is nothing to do */
	pid = collapse_start(getpid(), &fds[0], 1);
	assert_true(pid > 0);
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(fds[0]);
}

static void test_process_says_that_it_found_nobody(void **state)
{
	pid_t gone = fork(), pid;
	int status;

	(void)state;
	if (!gone)
		_exit(0);
	assert_int_equal(waitpid(gone, NULL, 0), gone);
	pid = collapse_start(gone, NULL, 0);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_lines_of_maps, setup),
		cmocka_unit_test_setup(test_whole_blocks_one_by_one, setup),
		cmocka_unit_test_setup(test_what_the_guest_gave_back_is_not_allocated_again, setup),
		cmocka_unit_test_setup(test_a_view_that_is_guarded_yet_is_tried_again, setup),
		cmocka_unit_test_setup(test_a_mapping_that_cannot_be_is_left_after_a_while, setup),
		cmocka_unit_test_setup(test_a_block_that_cannot_be_is_left_the_others_are_not, setup),
		cmocka_unit_test_setup(test_it_ends_at_once_where_it_may_not, setup),
		cmocka_unit_test_setup(test_it_pauses_much_longer_than_it_works, setup),
		cmocka_unit_test(test_process_ends_by_itself_and_holds_nothing_open),
		cmocka_unit_test(test_process_says_that_it_found_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
