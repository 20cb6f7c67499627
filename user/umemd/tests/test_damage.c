// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/damage.h"

#include "umemd/tests/cmocka_first.h"

static struct damage damage;

static int setup(void **state)
{
	(void)state;
	damage_init(&damage);
	return 0;
}

static void test_a_page_is_counted_until_it_came_well(void **state)
{
	(void)state;
	assert_int_equal(damage_add(&damage, 0, 7, 0), 1);
	assert_int_equal(damage_add(&damage, 1, 7, 0), 1);
	assert_int_equal(damage_add(&damage, 0, 7, 0), 2);
	assert_int_equal(damage_add(&damage, 0, 7, 0), 3);
	damage_remove(&damage, 0, 7);
	damage_remove(&damage, 0, 7);
	damage_remove(&damage, 0, 8);
	assert_int_equal(damage_add(&damage, 1, 7, 0), 2);
	assert_int_equal(damage_add(&damage, 0, 7, 0), 1);
	assert_int_equal(damage.count, 2);
}

static void test_one_that_is_asked_for_at_once_is_never_due(void **state)
{
	uint64_t page;

	(void)state;
	damage_add(&damage, 0, 7, 0);
	damage_add(&damage, 0, 7, 0);
	assert_false(damage_waits(&damage, 0, 7));
	assert_false(damage_due(&damage, 0, UINT64_MAX, &page));
}

static void test_one_that_was_reported_is_due_ever_more_seldom(void **state)
{
	uint64_t now = 1000, wait = DAMAGE_WAIT_NS, page = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		damage_add(&damage, 2, 7, now);
	for (int i = 0; i < 20; i++) {
		assert_true(damage_waits(&damage, 2, 7));
		assert_false(damage_due(&damage, 2, now + wait - 1, &page));
		assert_false(damage_due(&damage, 1, now + wait, &page));
		now += wait;
		assert_true(damage_due(&damage, 2, now, &page));
		assert_int_equal(page, 7);
		/* The answer may get lost: it is due again without one. */
		assert_false(damage_due(&damage, 2, now, &page));
		now += wait;
		assert_true(damage_due(&damage, 2, now, &page));
		assert_int_equal(damage_add(&damage, 2, 7, now), 4 + i);
		wait = min(2 * wait, DAMAGE_WAIT_MAX_NS);
	}
	damage_remove(&damage, 2, 7);
	assert_false(damage_waits(&damage, 2, 7));
	assert_false(damage_due(&damage, 2, UINT64_MAX, &page));
}

static void test_full_is_told_and_room_comes_back(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < DAMAGE_MAX; i++)
		assert_int_equal(damage_add(&damage, 0, i, 0), 1);
	assert_false(damage.full);
	assert_int_equal(damage_add(&damage, 0, DAMAGE_MAX, 0), 0);
	assert_true(damage.full);
	assert_int_equal(damage_add(&damage, 0, 5, 0), 2);
	for (uint64_t i = 0; i < DAMAGE_MAX; i++)
		damage_remove(&damage, 0, i);
	assert_int_equal(damage.count, 0);
	assert_int_equal(damage_add(&damage, 0, DAMAGE_MAX, 0), 1);
}

#define test(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_a_page_is_counted_until_it_came_well),
		test(test_one_that_is_asked_for_at_once_is_never_due),
		test(test_one_that_was_reported_is_due_ever_more_seldom),
		test(test_full_is_told_and_room_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
