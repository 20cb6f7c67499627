// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/pacer.h"

#include <string.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"

#define START	(1000 * NSEC_PER_SEC)
#define FRAME	131072ULL	/* the largest piece */
#define PIECE	4096ULL		/* the smallest */
#define SENDS	400000

static struct pacer pacer;
static uint64_t seed;

static int setup(void **state)
{
	(void)state;
	memset(&pacer, 0, sizeof(pacer));
	seed = 1;
	return 0;
}

static uint64_t draw(uint64_t below)
{
	seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (seed >> 33) % below;
}

/* What was sent and when; the last second's sum is kept while it grows. */
static struct {
	uint64_t time, bytes;
} sends[SENDS];

struct window {
	size_t first, next;
	uint64_t sum, most;
};

static void record(struct window *window, uint64_t time, uint64_t bytes)
{
	assert_true(window->next < SENDS);
	sends[window->next].time = time;
	sends[window->next++].bytes = bytes;
	window->sum += bytes;
	while (time - sends[window->first].time > NSEC_PER_SEC)
		window->sum -= sends[window->first++].bytes;
	window->most = max(window->most, window->sum);
}

static uint64_t piece(void)
{
	return max(PIECE, min(FRAME, pacer_frame(&pacer))) - draw(100);
}

/* Sends all it may for a while, waking up to @late_ns too late. Returns the sum. */
static uint64_t send_for(struct window *window, uint64_t *now, uint64_t ns, uint64_t late_ns)
{
	uint64_t end = *now + ns, sum = 0;

	while (*now < end) {
		uint64_t wait = pacer_wait(&pacer, *now);
		uint64_t bytes = piece();

		if (wait) {
			*now += wait + draw(late_ns + 1);
			continue;
		}
		pacer_sent(&pacer, bytes, *now);
		record(window, *now, bytes);
		sum += bytes;
	}
	return sum;
}

static void test_without_a_limit_nothing_waits(void **state)
{
	(void)state;
	assert_int_equal(pacer_wait(&pacer, START), 0);
	pacer_sent(&pacer, UINT64_MAX, START);
	assert_int_equal(pacer_wait(&pacer, START), 0);
	assert_true(pacer_frame(&pacer) == UINT64_MAX);
}

static void test_over_any_second_the_limit_holds_within_10_percent(void **state)
{
	static const uint64_t rates[] = { 500000, 1000000, 12345678, 134217728, 1250000000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct window window = { 0 };
		uint64_t now = START, sum;

		setup(NULL);
		pacer_set(&pacer, rates[i], now);
		sum = send_for(&window, &now, 10 * NSEC_PER_SEC, 2 * NSEC_PER_MSEC);
		assert_true(window.most <= rates[i] / 10 * 11);
		assert_true(sum >= rates[i] / 10 * 99);
		assert_true(sum <= rates[i] / 10 * 101);
	}
}

static void test_slower_than_pages_are_large_it_is_one_page_above_at_most(void **state)
{
	static const uint64_t rates[] = { 100, 1000, 5000, 50000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct window window = { 0 };
		uint64_t now = START, ns = 1000 * NSEC_PER_SEC, sum;

		setup(NULL);
		pacer_set(&pacer, rates[i], now);
		sum = send_for(&window, &now, ns, 0);
		assert_true(window.most <= rates[i] / 10 * 11 + PIECE);
		assert_true(sum >= rates[i] * 990);
		assert_true(sum <= rates[i] * 1010 + PIECE);
	}
}

static void test_after_idling_there_is_a_small_burst_only(void **state)
{
	struct window window = { 0 };
	uint64_t now = START, sum = 0;

	(void)state;
	pacer_set(&pacer, 10000000, now);
	send_for(&window, &now, NSEC_PER_SEC, 0);
	now += 3600 * NSEC_PER_SEC;
	while (!pacer_wait(&pacer, now)) {
		pacer_sent(&pacer, PIECE, now);
		sum += PIECE;
	}
	assert_true(sum <= 10000000 / PACER_PART + PIECE);
	assert_true(sum >= 10000000 / PACER_PART - PIECE);
}

static void test_a_limit_that_comes_first_allows_no_burst(void **state)
{
	(void)state;
	pacer_set(&pacer, 10000000, START);
	pacer_sent(&pacer, PIECE, START);
	assert_true(pacer_wait(&pacer, START) > 0);
}

static void test_a_higher_limit_takes_effect_at_once(void **state)
{
	uint64_t wait;

	(void)state;
	pacer_set(&pacer, 1, START);
	pacer_sent(&pacer, FRAME, START);
	assert_true(pacer_wait(&pacer, START) > 100000 * NSEC_PER_SEC);
	pacer_set(&pacer, 100000000, START + 5);
	wait = pacer_wait(&pacer, START + 5);
	assert_true(wait > NSEC_PER_MSEC && wait < 2 * NSEC_PER_MSEC);
	pacer_set(&pacer, 0, START + 6);
	assert_int_equal(pacer_wait(&pacer, START + 6), 0);
}

static void test_a_lower_limit_takes_effect_at_once(void **state)
{
	struct window before = { 0 }, after = { 0 };
	uint64_t now = START, sum;

	(void)state;
	pacer_set(&pacer, 100000000, now);
	send_for(&before, &now, NSEC_PER_SEC, 0);
	now += NSEC_PER_SEC;	/* a full bucket: it must not be worth more than the new one */
	pacer_set(&pacer, 1000000, now);
	sum = send_for(&after, &now, NSEC_PER_SEC, 0);
	assert_true(sum <= 1100000);
	assert_true(sum >= 900000);
}

static void test_setting_the_same_limit_often_changes_nothing(void **state)
{
	uint64_t now = START, sum = 0;

	(void)state;
	pacer_set(&pacer, 1000000, now);
	for (; now < START + NSEC_PER_SEC; now += NSEC_PER_MSEC) {
		pacer_set(&pacer, 1000000, now);
		while (!pacer_wait(&pacer, now)) {
			pacer_sent(&pacer, PIECE, now);
			sum += PIECE;
		}
	}
	assert_true(sum >= 980000 && sum <= 1020000);
}

static void test_waiting_as_long_as_told_is_enough(void **state)
{
	static const uint64_t rates[] = { 1, 3, 999999999, 1000000000, 1000000001, 99999999999 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		uint64_t now = START, wait;

		setup(NULL);
		pacer_set(&pacer, rates[i], now);
		pacer_sent(&pacer, FRAME, now);
		wait = pacer_wait(&pacer, now);
		assert_true(wait > 0);
		assert_int_equal(pacer_wait(&pacer, now + wait), 0);
		assert_int_equal(pacer_wait(&pacer, now + wait - 1), 1);
	}
}

static void test_a_clock_that_goes_back_gives_nothing(void **state)
{
	uint64_t wait;

	(void)state;
	pacer_set(&pacer, 1000000, START);
	pacer_sent(&pacer, PIECE, START);
	wait = pacer_wait(&pacer, START);
	pacer_sent(&pacer, 0, START - NSEC_PER_SEC);
	assert_int_equal(pacer_wait(&pacer, START - NSEC_PER_SEC), wait);
	assert_int_equal(pacer_wait(&pacer, START), wait);
}

static void test_extreme_values_saturate(void **state)
{
	static const uint64_t rates[] = { 1, 2, NSEC_PER_SEC, 1ULL << 40, INT64_MAX, UINT64_MAX };
	static const uint64_t times[] = { 0, 1, START, 1ULL << 62, UINT64_MAX };

	(void)state;
	for (size_t r = 0; r < ARRAY_SIZE(rates); r++) {
		for (size_t t = 0; t < ARRAY_SIZE(times); t++) {
			setup(NULL);
			pacer_set(&pacer, rates[r], 0);
			pacer_sent(&pacer, UINT64_MAX, times[t]);
			pacer_sent(&pacer, UINT64_MAX, times[t]);
			pacer_sent(&pacer, UINT64_MAX, times[t]);
			assert_true(pacer.balance < 0);
			assert_true(pacer_wait(&pacer, times[t]) > 0);
			pacer_set(&pacer, rates[r], UINT64_MAX);
			assert_true(pacer.balance <= (int64_t)(rates[r] / PACER_PART));
		}
	}
	/* 2^63 bytes at 1 byte a second: longer than the clock goes */
	pacer = (struct pacer){ .rate = 1, .balance = INT64_MIN };
	assert_true(pacer_wait(&pacer, 0) == UINT64_MAX);
	pacer.rate = UINT64_MAX;
	assert_true(pacer_wait(&pacer, 0) > NSEC_PER_SEC / 2 - NSEC_PER_SEC / 10);
	assert_true(pacer_wait(&pacer, 0) < NSEC_PER_SEC / 2 + NSEC_PER_SEC / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_without_a_limit_nothing_waits, setup),
		cmocka_unit_test(test_over_any_second_the_limit_holds_within_10_percent),
		cmocka_unit_test(test_slower_than_pages_are_large_it_is_one_page_above_at_most),
		cmocka_unit_test_setup(test_after_idling_there_is_a_small_burst_only, setup),
		cmocka_unit_test_setup(test_a_limit_that_comes_first_allows_no_burst, setup),
		cmocka_unit_test_setup(test_a_higher_limit_takes_effect_at_once, setup),
		cmocka_unit_test_setup(test_a_lower_limit_takes_effect_at_once, setup),
		cmocka_unit_test_setup(test_setting_the_same_limit_often_changes_nothing, setup),
		cmocka_unit_test(test_waiting_as_long_as_told_is_enough),
		cmocka_unit_test_setup(test_a_clock_that_goes_back_gives_nothing, setup),
		cmocka_unit_test(test_extreme_values_saturate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
