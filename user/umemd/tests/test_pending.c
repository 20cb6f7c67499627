// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/pending.h"

#include <stdlib.h>

#include "umemd/tests/cmocka_first.h"

static struct pending pending;

/* Its time and its thread go together, so that one tells that the other is right. */
static enum pending_result add(uint32_t region, uint64_t page, uint64_t time_ns)
{
	const struct pending_wait wait = { time_ns, (uint32_t)time_ns + 7 };

	return pending_add(&pending, region, page, &wait);
}

static bool take(uint32_t region, uint64_t page, uint64_t *time_ns)
{
	struct pending_wait wait;

	if (!pending_remove(&pending, region, page, &wait))
		return false;
	assert_int_equal(wait.tid, (uint32_t)wait.time_ns + 7);
	*time_ns = wait.time_ns;
	return true;
}

static int setup(void **state)
{
	(void)state;
	return pending_init(&pending);
}

static int teardown(void **state)
{
	(void)state;
	pending_destroy(&pending);
	return 0;
}

static void test_a_page_waits_once_from_its_first_request(void **state)
{
	uint64_t since;

	(void)state;
	assert_int_equal(add(0, 7, 100), PENDING_NEW);
	assert_int_equal(add(0, 7, 200), PENDING_KNOWN);
	assert_int_equal(add(1, 7, 300), PENDING_NEW);
	assert_true(take(0, 7, &since));
	assert_int_equal(since, 100);
	assert_false(take(0, 7, &since));
	assert_true(take(1, 7, &since));
	assert_int_equal(since, 300);
	assert_int_equal(pending.count, 0);
}

static void test_full_is_told_and_room_comes_back(void **state)
{
	uint64_t since;

	(void)state;
	for (uint64_t i = 0; i < PENDING_MAX; i++)
		assert_int_equal(add((uint32_t)(i % 3), i, i), PENDING_NEW);
	assert_int_equal(add(0, PENDING_MAX, 1), PENDING_FULL);
	assert_int_equal(add(0, 0, 1), PENDING_KNOWN);
	for (uint64_t i = 0; i < PENDING_MAX; i++) {
		assert_true(take((uint32_t)(i % 3), i, &since));
		assert_int_equal(since, i);
	}
	assert_int_equal(pending.count, 0);
	assert_int_equal(add(0, PENDING_MAX, 1), PENDING_NEW);
}

#define MODEL_PAGES	4096

/* Against an array, with few enough pages that the table is often re-linked. */
static void test_agrees_with_a_model(void **state)
{
	static uint64_t model[MODEL_PAGES];
	uint32_t count = 0;

	(void)state;
	srand(1);
	for (uint64_t i = 1; i < 400000; i++) {
		/* Far apart pages, which land near each other when hashed. */
		uint64_t n = (uint64_t)rand() % MODEL_PAGES, since;
		uint64_t page = n * 0x10001;

		if (rand() & 1) {
			assert_int_equal(add((uint32_t)(n & 1), page, i),
					 model[n] ? PENDING_KNOWN : PENDING_NEW);
			count += !model[n];
			if (!model[n])
				model[n] = i;
		} else {
			assert_int_equal(take((uint32_t)(n & 1), page, &since),
					 model[n] != 0);
			if (model[n])
				assert_int_equal(since, model[n]);
			count -= model[n] != 0;
			model[n] = 0;
		}
		assert_int_equal(pending.count, count);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_page_waits_once_from_its_first_request,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_is_told_and_room_comes_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_agrees_with_a_model, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
