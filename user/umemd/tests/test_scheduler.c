// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/scheduler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"

static struct scheduler scheduler;

static void begin(struct scheduler_policy policy, uint32_t regions, ...)
{
	uint64_t pages[8];
	va_list args;

	va_start(args, regions);
	for (uint32_t i = 0; i < regions; i++)
		pages[i] = va_arg(args, unsigned int);
	va_end(args);
	assert_int_equal(scheduler_init(&scheduler, &policy, pages, regions), 0);
}

static int teardown(void **state)
{
	(void)state;
	scheduler_destroy(&scheduler);
	return 0;
}

static void request_flagged(uint32_t region, bool again, uint32_t count, const unsigned int *list)
{
	uint64_t pages[16];

	for (uint32_t i = 0; i < count; i++)
		pages[i] = list[i];
	assert_int_equal(scheduler_request(&scheduler, region, pages, count, again), 0);
}

#define request(region, ...) do { \
	const unsigned int list_[] = { __VA_ARGS__ }; \
	request_flagged(region, false, ARRAY_SIZE(list_), list_); \
} while (0)

#define request_again(region, ...) do { \
	const unsigned int list_[] = { __VA_ARGS__ }; \
	request_flagged(region, true, ARRAY_SIZE(list_), list_); \
} while (0)

static void expect_pick(struct pick pick, enum pick_kind kind, uint32_t region, uint64_t page)
{
	if (pick.kind != kind || pick.region != region || pick.page != page)
		fail_msg("got kind %d region %u page %llu, wanted kind %d region %u page %llu",
			 pick.kind, pick.region, (unsigned long long)pick.page, kind, region,
			 (unsigned long long)page);
}

static void expect_urgent(enum pick_kind kind, uint32_t region, uint64_t page)
{
	struct pick pick, same;

	if (!scheduler_urgent(&scheduler, &pick))
		fail_msg("nothing, wanted region %u page %llu", region, (unsigned long long)page);
	expect_pick(pick, kind, region, page);
	/* Looking does not change what is next. */
	assert_true(scheduler_urgent(&scheduler, &same));
	expect_pick(same, kind, region, page);
	scheduler_take(&scheduler, &pick);
}

static void expect_no_urgent(void)
{
	struct pick pick;

	if (scheduler_urgent(&scheduler, &pick))
		fail_msg("got region %u page %llu, wanted nothing", pick.region,
			 (unsigned long long)pick.page);
}

static void expect_bulk(uint32_t region, uint64_t page)
{
	struct pick pick;

	if (!scheduler_bulk(&scheduler, &pick))
		fail_msg("nothing, wanted region %u page %llu", region, (unsigned long long)page);
	expect_pick(pick, PICK_BULK, region, page);
	scheduler_take(&scheduler, &pick);
}

static void expect_no_bulk(void)
{
	struct pick pick;

	if (scheduler_bulk(&scheduler, &pick))
		fail_msg("got region %u page %llu, wanted nothing", pick.region,
			 (unsigned long long)pick.page);
}

static const struct scheduler_policy push = { .push = true };

static void test_push_sends_every_page_once_in_order(void **state)
{
	(void)state;
	begin(push, 3, 70, 1, 65);
	for (uint64_t page = 0; page < 70; page++)
		expect_bulk(0, page);
	expect_bulk(1, 0);
	assert_false(scheduler_all_sent(&scheduler));
	for (uint64_t page = 0; page < 65; page++)
		expect_bulk(2, page);
	expect_no_bulk();
	expect_no_urgent();
	assert_true(scheduler_all_sent(&scheduler));
	assert_int_equal(scheduler.pages_sent, 136);
	assert_int_equal(scheduler.duplicates, 0);
}

static void test_requests_go_before_bulk(void **state)
{
	(void)state;
	begin(push, 2, 10, 10);
	expect_bulk(0, 0);
	request(1, 7, 3);
	expect_no_bulk();
	expect_urgent(PICK_REQUESTED, 1, 7);
	expect_no_bulk();
	expect_urgent(PICK_REQUESTED, 1, 3);
	expect_no_urgent();
	expect_bulk(0, 1);
}

static void test_bulk_passes_over_what_was_requested(void **state)
{
	(void)state;
	begin(push, 1, 4);
	request(0, 1, 2);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_REQUESTED, 0, 2);
	expect_bulk(0, 0);
	expect_bulk(0, 3);
	expect_no_bulk();
	assert_int_equal(scheduler.duplicates, 0);
}

static void test_a_page_under_way_on_bulk_goes_again_on_urgent(void **state)
{
	(void)state;
	begin(push, 1, 4);
	expect_bulk(0, 0);
	request(0, 0);
	expect_urgent(PICK_REQUESTED, 0, 0);
	assert_int_equal(scheduler.duplicates, 1);
	assert_int_equal(scheduler.pages_sent, 1);
	/* Now it is on urgent, where it cannot be stuck. */
	request(0, 0);
	expect_no_urgent();
	assert_int_equal(scheduler.duplicates, 1);
}

static void test_again_insists(void **state)
{
	(void)state;
	begin(push, 1, 4);
	request(0, 2);
	expect_urgent(PICK_REQUESTED, 0, 2);
	request(0, 2);
	expect_no_urgent();
	request_again(0, 2, 2);
	expect_urgent(PICK_REQUESTED, 0, 2);
	expect_urgent(PICK_REQUESTED, 0, 2);
	expect_no_urgent();
	assert_int_equal(scheduler.duplicates, 2);
}

/* design.md, section 6: requested; page + 1 of each, page + 2 of each, ...; then backward. */
static void test_prefault_order(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 3, .backward = 2 }, 1, 100);
	request(0, 20, 50);
	expect_urgent(PICK_REQUESTED, 0, 20);
	expect_urgent(PICK_REQUESTED, 0, 50);
	expect_urgent(PICK_PREFAULT, 0, 21);
	expect_urgent(PICK_PREFAULT, 0, 51);
	expect_urgent(PICK_PREFAULT, 0, 22);
	expect_urgent(PICK_PREFAULT, 0, 52);
	expect_urgent(PICK_PREFAULT, 0, 23);
	expect_urgent(PICK_PREFAULT, 0, 53);
	expect_urgent(PICK_PREFAULT, 0, 19);
	expect_urgent(PICK_PREFAULT, 0, 49);
	expect_urgent(PICK_PREFAULT, 0, 18);
	expect_urgent(PICK_PREFAULT, 0, 48);
	expect_no_urgent();
}

static void test_prefault_is_clipped_to_the_region(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 4, .backward = 4 }, 2, 8, 8);
	request(0, 1, 6);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_REQUESTED, 0, 6);
	expect_urgent(PICK_PREFAULT, 0, 2);
	expect_urgent(PICK_PREFAULT, 0, 7);
	expect_urgent(PICK_PREFAULT, 0, 3);
	expect_urgent(PICK_PREFAULT, 0, 4);
	expect_urgent(PICK_PREFAULT, 0, 5);
	expect_urgent(PICK_PREFAULT, 0, 0);
	expect_no_urgent();
}

static void test_huge_prefault_ends_at_the_region(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 1ULL << 32, .backward = 1ULL << 32 }, 1, 3);
	request(0, 1);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_PREFAULT, 0, 2);
	expect_urgent(PICK_PREFAULT, 0, 0);
	expect_no_urgent();	/* at once: not after 2^32 steps */
}

static void test_prefault_skips_what_was_sent(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 3, .push = true }, 1, 10);
	expect_bulk(0, 0);
	expect_bulk(0, 1);
	expect_bulk(0, 2);
	request(0, 1);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_PREFAULT, 0, 3);
	expect_urgent(PICK_PREFAULT, 0, 4);
	expect_no_urgent();
	assert_int_equal(scheduler.duplicates, 1);
	assert_int_equal(scheduler.prefault_pages, 2);
	assert_int_equal(scheduler.prefault_hits, 0);
}

static void test_a_prefaulted_page_is_not_sent_for_its_request(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 2 }, 1, 10);
	request(0, 1);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_PREFAULT, 0, 2);
	/* The request for 2 was under way when 2 went. Its neighbours still count. */
	request(0, 2);
	expect_urgent(PICK_PREFAULT, 0, 3);
	expect_urgent(PICK_PREFAULT, 0, 4);
	expect_no_urgent();
	assert_int_equal(scheduler.duplicates, 0);
	assert_int_equal(scheduler.prefault_pages, 3);
	assert_int_equal(scheduler.prefault_hits, 1);
}

static void test_a_new_request_overtakes_prefault(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 2 }, 1, 100);
	request(0, 10);
	expect_urgent(PICK_REQUESTED, 0, 10);
	expect_urgent(PICK_PREFAULT, 0, 11);
	request(0, 50);
	expect_urgent(PICK_REQUESTED, 0, 50);
	expect_urgent(PICK_PREFAULT, 0, 12);
	expect_urgent(PICK_PREFAULT, 0, 51);
	expect_urgent(PICK_PREFAULT, 0, 52);
	expect_no_urgent();
}

static void test_follow_moves_the_scan_and_wraps(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .push = true, .follow = true, .forward = 1 }, 2, 10, 4);
	expect_bulk(0, 0);
	request(0, 3, 7);
	expect_urgent(PICK_REQUESTED, 0, 3);
	expect_urgent(PICK_REQUESTED, 0, 7);
	expect_urgent(PICK_PREFAULT, 0, 4);
	expect_urgent(PICK_PREFAULT, 0, 8);
	/* The last requested page, plus forward, plus one. */
	expect_bulk(0, 9);
	for (uint64_t page = 0; page < 4; page++)
		expect_bulk(1, page);
	expect_bulk(0, 1);
	expect_bulk(0, 2);
	expect_bulk(0, 5);
	expect_bulk(0, 6);
	expect_no_bulk();
	assert_true(scheduler_all_sent(&scheduler));
}

static void test_follow_past_the_end_goes_to_the_next_region(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .push = true, .follow = true, .forward = 5 }, 2, 4, 4);
	request(0, 2);
	expect_urgent(PICK_REQUESTED, 0, 2);
	expect_urgent(PICK_PREFAULT, 0, 3);
	expect_bulk(1, 0);
	request(1, 3);
	expect_urgent(PICK_REQUESTED, 1, 3);
	expect_bulk(0, 0);
}

static void test_without_follow_the_scan_stays(void **state)
{
	(void)state;
	begin(push, 1, 10);
	expect_bulk(0, 0);
	request(0, 7);
	expect_urgent(PICK_REQUESTED, 0, 7);
	expect_bulk(0, 1);
}

static void test_without_push_nothing_goes_unasked(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ 0 }, 1, 3);
	expect_no_bulk();
	request(0, 0);
	expect_urgent(PICK_REQUESTED, 0, 0);
	expect_no_bulk();
	assert_false(scheduler_all_sent(&scheduler));
	request(0, 1, 2);
	expect_urgent(PICK_REQUESTED, 0, 1);
	expect_urgent(PICK_REQUESTED, 0, 2);
	expect_no_bulk();
	expect_no_urgent();
	/* The end: everything was asked for. */
	assert_true(scheduler_all_sent(&scheduler));
}

static void test_a_full_queue_refuses_and_loses_nothing(void **state)
{
	uint64_t pages[512], more = 0;

	(void)state;
	begin((struct scheduler_policy){ 0 }, 1, SCHEDULER_QUEUE + 1);
	for (uint64_t first = 0; first < SCHEDULER_QUEUE; first += 512) {
		for (uint64_t i = 0; i < 512; i++)
			pages[i] = first + i;
		assert_int_equal(scheduler_room(&scheduler), SCHEDULER_QUEUE - first);
		assert_int_equal(scheduler_request(&scheduler, 0, pages, 512, false), 0);
	}
	assert_int_equal(scheduler_room(&scheduler), 0);
	assert_int_equal(scheduler_request(&scheduler, 0, &more, 1, false), -ENOBUFS);
	for (uint64_t page = 0; page < SCHEDULER_QUEUE; page++)
		expect_urgent(PICK_REQUESTED, 0, page);
	expect_no_urgent();
	assert_int_equal(scheduler_room(&scheduler), SCHEDULER_QUEUE);
}

static void test_prefault_gives_way_to_requests_when_the_queue_is_full(void **state)
{
	uint64_t pages[512];

	(void)state;
	begin((struct scheduler_policy){ .forward = 1 }, 1, 4 * SCHEDULER_QUEUE);
	for (uint64_t first = 0; first < SCHEDULER_QUEUE; first += 512) {
		for (uint64_t i = 0; i < 512; i++)
			pages[i] = 2 * (first + i);
		assert_int_equal(scheduler_request(&scheduler, 0, pages, 512, false), 0);
		for (uint64_t i = 0; i < 512; i++)
			expect_urgent(PICK_REQUESTED, 0, pages[i]);
	}
	/* The queue is full of messages that are down to prefault. */
	assert_int_equal(scheduler_room(&scheduler), SCHEDULER_QUEUE);
	pages[0] = 4 * SCHEDULER_QUEUE - 2;
	assert_int_equal(scheduler_request(&scheduler, 0, pages, 1, false), 0);
	expect_urgent(PICK_REQUESTED, 0, pages[0]);
	/* The oldest message gave way, the second did not. */
	expect_urgent(PICK_PREFAULT, 0, 2 * 512 + 1);
}

static void test_the_queue_goes_round(void **state)
{
	(void)state;
	begin((struct scheduler_policy){ .forward = 1 }, 1, 20 * SCHEDULER_QUEUE);
	for (unsigned int i = 0; i < 5 * SCHEDULER_QUEUE; i++) {
		request(0, 4 * i, 4 * i + 2);
		expect_urgent(PICK_REQUESTED, 0, 4 * i);
		expect_urgent(PICK_REQUESTED, 0, 4 * i + 2);
		expect_urgent(PICK_PREFAULT, 0, 4 * i + 1);
		expect_urgent(PICK_PREFAULT, 0, 4 * i + 3);
		expect_no_urgent();
	}
	assert_true(scheduler_all_sent(&scheduler));
}

static void test_restart_sends_what_the_other_side_lacks(void **state)
{
	uint64_t bits[2] = { 0x5, ~0ULL };

	(void)state;
	begin(push, 2, 4, 70);
	expect_bulk(0, 0);
	expect_bulk(0, 1);
	request(0, 3);
	expect_urgent(PICK_REQUESTED, 0, 3);
	request(1, 1);	/* lost with the connection */
	scheduler_restart(&scheduler);
	/* Bits past the end of the region do not count. */
	scheduler_present(&scheduler, 0, 0, bits, 1);
	assert_int_equal(scheduler.pages_sent, 2);
	bits[0] = ~0ULL;
	scheduler_present(&scheduler, 1, 0, bits, 2);
	assert_int_equal(scheduler.pages_sent, 72);
	expect_no_urgent();
	/* What was under way on urgent is sent again when asked for. */
	request(0, 3);
	expect_urgent(PICK_REQUESTED, 0, 3);
	expect_bulk(0, 1);
	expect_no_bulk();
	assert_true(scheduler_all_sent(&scheduler));
	assert_int_equal(scheduler.duplicates, 0);
}

static void test_present_told_twice_counts_once(void **state)
{
	uint64_t bits = ~0ULL;

	(void)state;
	begin(push, 1, 128);
	scheduler_present(&scheduler, 0, 64, &bits, 1);
	scheduler_present(&scheduler, 0, 64, &bits, 1);
	assert_int_equal(scheduler.pages_sent, 64);
	scheduler_present(&scheduler, 0, 0, &bits, 1);
	assert_true(scheduler_all_sent(&scheduler));
	expect_no_bulk();
}

/* Whatever is asked in whatever order, everything goes, and only what was on bulk goes twice. */
static void test_random_requests(void **state)
{
	static uint8_t on_bulk[3][300], on_urgent[3][300];
	const uint64_t pages[3] = { 300, 1, 129 };
	struct scheduler_policy policy = { 5, 3, true, true };
	struct pick pick;
	uint64_t again = 0;

	(void)state;
	srand(7);
	assert_int_equal(scheduler_init(&scheduler, &policy, pages, 3), 0);
	for (int step = 0; step < 4000; step++) {
		if (rand() % 8 == 0) {
			unsigned int region = (unsigned int)rand() % 3;
			uint64_t list[4];

			for (int i = 0; i < 4; i++)
				list[i] = (uint64_t)rand() % pages[region];
			scheduler_request(&scheduler, region, list, 1 + (uint32_t)rand() % 4, false);
		}
		if (scheduler_urgent(&scheduler, &pick)) {
			assert_in_range(pick.region, 0, 2);
			assert_in_range(pick.page, 0, pages[pick.region] - 1);
			assert_int_equal(on_urgent[pick.region][pick.page], 0);
			if (pick.kind == PICK_PREFAULT)
				assert_int_equal(on_bulk[pick.region][pick.page], 0);
			again += on_bulk[pick.region][pick.page];
			on_urgent[pick.region][pick.page] = 1;
		} else if (scheduler_bulk(&scheduler, &pick)) {
			assert_int_equal(on_bulk[pick.region][pick.page], 0);
			assert_int_equal(on_urgent[pick.region][pick.page], 0);
			on_bulk[pick.region][pick.page] = 1;
		} else {
			continue;
		}
		scheduler_take(&scheduler, &pick);
	}
	assert_true(scheduler_all_sent(&scheduler));
	assert_int_equal(scheduler.duplicates, again);
	for (int region = 0; region < 3; region++) {
		for (uint64_t page = 0; page < pages[region]; page++)
			assert_true(on_bulk[region][page] || on_urgent[region][page]);
	}
}

static void expect_precopy(uint32_t region, uint64_t page)
{
	struct pick pick;

	if (!scheduler_precopy(&scheduler, &pick))
		fail_msg("nothing, wanted region %u page %llu", region, (unsigned long long)page);
	expect_pick(pick, PICK_BULK, region, page);
	scheduler_take(&scheduler, &pick);
}

static void expect_no_precopy(void)
{
	struct pick pick;

	assert_false(scheduler_precopy(&scheduler, &pick));
}

static void test_what_is_dirty_goes_again(void **state)
{
	const uint64_t dirty[] = { 1ULL << 3 | 1ULL << 63, 1 };

	(void)state;
	begin(push, 2, 70, 2);
	for (uint64_t page = 0; page < 70; page++)
		expect_precopy(0, page);
	expect_precopy(1, 0);
	/* Of what was not sent yet nothing changes. */
	scheduler_dirty(&scheduler, 1, 0, (const uint64_t[]){ 2 }, 1);
	assert_int_equal(scheduler.pages_sent, 71);
	expect_precopy(1, 1);
	expect_no_precopy();
	scheduler_dirty(&scheduler, 0, 0, dirty, 2);
	assert_int_equal(scheduler.pages_sent, 69);
	assert_false(scheduler_all_sent(&scheduler));
	expect_precopy(0, 3);
	expect_precopy(0, 63);
	expect_precopy(0, 64);
	expect_no_precopy();
	assert_int_equal(scheduler.duplicates, 0);
	assert_true(scheduler_all_sent(&scheduler));
}

static void test_requests_wait_while_the_guest_runs(void **state)
{
	(void)state;
	begin(push, 1, 4);
	request(0, 2);
	expect_precopy(0, 0);
	expect_precopy(0, 1);
	expect_urgent(PICK_REQUESTED, 0, 2);
	/* That page is final, whatever was found out later. */
	scheduler_dirty(&scheduler, 0, 0, (const uint64_t[]){ 0xf }, 1);
	assert_int_equal(scheduler.pages_sent, 1);
	expect_bulk(0, 1);
	expect_bulk(0, 3);
	expect_bulk(0, 0);
	expect_no_bulk();
}

static void test_ranges_that_are_unsent(void **state)
{
	struct page_range range = { 0, 70 };

	(void)state;
	begin(push, 1, 70);
	assert_true(scheduler_unsent(&scheduler, 0, &range));
	assert_int_equal(range.first, 0);
	assert_int_equal(range.end, 70);
	for (uint64_t page = 0; page < 70; page++)
		expect_precopy(0, page);
	assert_false(scheduler_unsent(&scheduler, 0, &range));
	scheduler_dirty(&scheduler, 0, 0, (const uint64_t[]){ 7ULL << 61, 1ULL }, 2);
	range = (struct page_range){ 0, 70 };
	assert_true(scheduler_unsent(&scheduler, 0, &range));
	assert_int_equal(range.first, 61);
	assert_int_equal(range.end, 65);
	range = (struct page_range){ 62, 63 };
	assert_true(scheduler_unsent(&scheduler, 0, &range));
	assert_int_equal(range.first, 62);
	assert_int_equal(range.end, 63);
	range = (struct page_range){ 65, 70 };
	assert_false(scheduler_unsent(&scheduler, 0, &range));
}

#define scheduler_test(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		scheduler_test(test_push_sends_every_page_once_in_order),
		scheduler_test(test_requests_go_before_bulk),
		scheduler_test(test_bulk_passes_over_what_was_requested),
		scheduler_test(test_a_page_under_way_on_bulk_goes_again_on_urgent),
		scheduler_test(test_again_insists),
		scheduler_test(test_prefault_order),
		scheduler_test(test_prefault_is_clipped_to_the_region),
		scheduler_test(test_huge_prefault_ends_at_the_region),
		scheduler_test(test_prefault_skips_what_was_sent),
		scheduler_test(test_a_prefaulted_page_is_not_sent_for_its_request),
		scheduler_test(test_a_new_request_overtakes_prefault),
		scheduler_test(test_follow_moves_the_scan_and_wraps),
		scheduler_test(test_follow_past_the_end_goes_to_the_next_region),
		scheduler_test(test_without_follow_the_scan_stays),
		scheduler_test(test_without_push_nothing_goes_unasked),
		scheduler_test(test_a_full_queue_refuses_and_loses_nothing),
		scheduler_test(test_prefault_gives_way_to_requests_when_the_queue_is_full),
		scheduler_test(test_the_queue_goes_round),
		scheduler_test(test_restart_sends_what_the_other_side_lacks),
		scheduler_test(test_present_told_twice_counts_once),
		scheduler_test(test_random_requests),
		scheduler_test(test_what_is_dirty_goes_again),
		scheduler_test(test_requests_wait_while_the_guest_runs),
		scheduler_test(test_ranges_that_are_unsent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
