// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/histogram.h"

#include <string.h>

#include "umemd/bitmap.h"
#include "umemd/tests/cmocka_first.h"

static struct histogram histogram;

static int setup(void **state)
{
	(void)state;
	memset(&histogram, 0, sizeof(histogram));
	return 0;
}

static void test_empty_gives_zero(void **state)
{
	(void)state;
	assert_int_equal(histogram_percentile(&histogram, 50), 0);
	assert_int_equal(histogram_percentile(&histogram, 100), 0);
}

static void test_one_value_is_every_percentile(void **state)
{
	(void)state;
	histogram_add(&histogram, 123456789);
	assert_int_equal(histogram_percentile(&histogram, 1), 123456789);
	assert_int_equal(histogram_percentile(&histogram, 50), 123456789);
	assert_int_equal(histogram_percentile(&histogram, 100), 123456789);
}

static void test_small_values_are_exact(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 30; i++)
		histogram_add(&histogram, i);
	assert_int_equal(histogram_percentile(&histogram, 10), 3);
	assert_int_equal(histogram_percentile(&histogram, 50), 15);
	assert_int_equal(histogram_percentile(&histogram, 100), 30);
}

static void test_percentiles_are_near_and_never_too_low(void **state)
{
	(void)state;
	for (uint64_t i = 1; i <= 100000; i++)
		histogram_add(&histogram, i * 1000);
	for (unsigned int percent = 1; percent <= 100; percent++) {
		uint64_t true_value = percent * 1000000ULL;
		uint64_t told = histogram_percentile(&histogram, percent);

		assert_in_range(told, true_value, true_value + true_value / HISTOGRAM_STEPS + 1);
	}
	assert_int_equal(histogram.max, 100000000);
}

static void test_every_value_has_a_bucket_that_holds_it(void **state)
{
	(void)state;
	for (unsigned int bit = 0; bit < 64; bit++) {
		const uint64_t values[] = { (1ULL << bit) - 1, 1ULL << bit, (1ULL << bit) + 1 };

		for (int i = 0; i < 3; i++) {
			uint64_t value = values[i], told;

			memset(&histogram, 0, sizeof(histogram));
			histogram_add(&histogram, value);
			histogram.max = UINT64_MAX;	/* show the bucket's own end */
			told = histogram_percentile(&histogram, 100);
			assert_true(told >= value);
			assert_true(told - value <= value / HISTOGRAM_STEPS);
		}
	}
	histogram_add(&histogram, UINT64_MAX);
	assert_true(histogram_percentile(&histogram, 100) == UINT64_MAX);
}

static void test_powers_of_two_hold_their_own_value_and_not_the_next(void **state)
{
	(void)state;
	histogram_add(&histogram, 0);
	histogram_add(&histogram, 1);
	assert_int_equal(histogram.powers[0], 2);
	for (unsigned int power = 1; power < HISTOGRAM_POWERS; power++) {
		histogram_add(&histogram, (1ULL << (power - 1)) + 1);
		if (power < 64)
			histogram_add(&histogram, 1ULL << power);
		assert_int_equal(histogram.powers[power], power < 64 ? 2 : 1);
	}
	assert_int_equal(histogram.powers[0], 2);
}

static void test_rare_large_value_shows_in_p99_only(void **state)
{
	(void)state;
	for (int i = 0; i < 98; i++)
		histogram_add(&histogram, 10);
	histogram_add(&histogram, 5000);
	histogram_add(&histogram, 9000);
	assert_int_equal(histogram_percentile(&histogram, 90), 10);
	assert_in_range(histogram_percentile(&histogram, 99), 5000, 5200);
	assert_int_equal(histogram_percentile(&histogram, 100), 9000);
}

static void test_bitmap_find(void **state)
{
	uint64_t bits[3] = { 0 };

	(void)state;
	assert_int_equal(bitmap_words(0), 0);
	assert_int_equal(bitmap_words(64), 1);
	assert_int_equal(bitmap_words(65), 2);
	assert_int_equal(bitmap_find(bits, false, 0, 130), 0);
	assert_int_equal(bitmap_find(bits, true, 0, 130), 130);
	assert_true(bitmap_set(bits, 63));
	assert_false(bitmap_set(bits, 63));
	assert_true(bitmap_set(bits, 64));
	assert_true(bitmap_set(bits, 129));
	assert_int_equal(bitmap_find(bits, true, 0, 130), 63);
	assert_int_equal(bitmap_find(bits, true, 64, 130), 64);
	assert_int_equal(bitmap_find(bits, true, 65, 130), 129);
	assert_int_equal(bitmap_find(bits, false, 63, 130), 65);
	/* What lies behind the end does not count. */
	assert_int_equal(bitmap_find(bits, true, 65, 129), 129);
	assert_int_equal(bitmap_find(bits, true, 130, 130), 130);
	assert_int_equal(bitmap_find(bits, true, 200, 130), 130);
	memset(bits, 0xff, sizeof(bits));
	assert_int_equal(bitmap_find(bits, false, 0, 130), 130);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_empty_gives_zero, setup),
		cmocka_unit_test_setup(test_one_value_is_every_percentile, setup),
		cmocka_unit_test_setup(test_small_values_are_exact, setup),
		cmocka_unit_test_setup(test_percentiles_are_near_and_never_too_low, setup),
		cmocka_unit_test_setup(test_every_value_has_a_bucket_that_holds_it, setup),
		cmocka_unit_test_setup(
			test_powers_of_two_hold_their_own_value_and_not_the_next, setup),
		cmocka_unit_test_setup(test_rare_large_value_shows_in_p99_only, setup),
		cmocka_unit_test(test_bitmap_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
