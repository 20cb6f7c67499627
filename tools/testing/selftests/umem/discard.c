// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promise 6: a guest that discards a page gets zeroes, at once, and the pager
 * is told.
 */
#include "missing_region.h"

static void punch(uint64_t offset, uint64_t length)
{
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length),
	      "punch: %s", strerror(errno));
}

static void expect_discard(uint64_t offset, uint64_t length)
{
	struct umem_event event = next_event(pager_fd);

	CHECK_EQ(event.type, UMEM_EVENT_DISCARD);
	CHECK_EQ(event.offset, offset);
	CHECK_EQ(event.length, length);
	CHECK(event.time_ns, "no time");
}

static void missing_page_reads_zero_at_once(void)
{
	setup();
	punch(2 * PAGE, 3 * PAGE);
	for (int i = 2; i < 5; i++)
		CHECK(page_is(guest + i * PAGE, 0), "page %d", i);
	expect_discard(2 * PAGE, 3 * PAGE);
	CHECK(!has_event(pager_fd), "more than one event");
	CHECK_EQ(info(region_fd).discarded, 3);
	CHECK_EQ(info(region_fd).missing, (NR - 3) * PAGE);
}

static void present_page_reads_zero(void)
{
	setup();
	copy_byte(pager_fd, 0, 'p');
	CHECK(page_is(guest, 'p'), "before");
	punch(0, PAGE);
	CHECK(page_is(guest, 0), "after");
	CHECK(!has_event(pager_fd), "the pager has nothing to do with it");
}

static void waiter_gets_zero(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest + PAGE);
	expect_waiters(region_fd, 1);
	punch(PAGE, PAGE);
	finish(&t);
	CHECK_EQ(t.value, 0);
	expect_discard(PAGE, PAGE);
	CHECK(!has_event(pager_fd), "the request should be gone");
}

static void late_page_is_dropped(void)
{
	setup();
	punch(0, PAGE);
	guest[1] = 'n';
	CHECK_EQ(copy_byte(pager_fd, 0, 'l'), 0);
	CHECK_EQ(guest[0], 0);
	CHECK_EQ(guest[1], 'n');
}

static void what_was_filled_in_does_not_show(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	memset(fill, 'f', 2 * PAGE);
	punch(0, PAGE);
	CHECK(page_is(guest, 0), "the fill view shows through");
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, 2 * PAGE), 1);
	CHECK(page_is(guest, 0), "published later");
	CHECK(page_is(guest + PAGE, 'f'), "the page next to it");
}

static void madv_remove_is_a_discard(void)
{
	setup();
	CHECK(!madvise(guest + PAGE, PAGE, MADV_REMOVE), "MADV_REMOVE: %s", strerror(errno));
	CHECK(page_is(guest + PAGE, 0), "contents");
	expect_discard(PAGE, PAGE);
}

static void madv_dontneed_is_none(void)
{
	setup();
	copy_byte(pager_fd, 0, 'k');
	CHECK_EQ(guest[0], 'k');
	CHECK(!madvise(guest, NR * PAGE, MADV_DONTNEED), "MADV_DONTNEED: %s", strerror(errno));
	CHECK_EQ(guest[0], 'k');
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
}

static void discard_cures_poison(void)
{
	setup();
	CHECK_EQ(change(pager_fd, UMEM_POISON, 0, PAGE), 1);
	punch(0, PAGE);
	CHECK(page_is(guest, 0), "contents");
	CHECK_EQ(info(region_fd).poisoned, 0);
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
}

static void a_new_pager_is_not_told_old_discards(void)
{
	struct umem_bitmap bitmap;
	uint64_t bits;

	setup();
	punch(0, PAGE);
	close(pager_fd);
	punch(PAGE, PAGE);
	pager_fd = pager(region_fd);
	CHECK(!has_event(pager_fd), "the bitmap tells it");
	bitmap = (struct umem_bitmap){ .size = sizeof(bitmap), .kind = UMEM_BITMAP_PRESENT,
				       .length = NR * PAGE, .bits = (uintptr_t)&bits };
	CHECK(!ioctl(pager_fd, UMEM_GET_BITMAP, &bitmap), "UMEM_GET_BITMAP");
	CHECK_EQ(bits, 3);
}

static void bad_holes_are_refused(void)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	setup();
	CHECK_ERRNO(fallocate(region_fd, mode, 1, PAGE), EINVAL);
	CHECK_ERRNO(fallocate(region_fd, mode, 0, PAGE + 1), EINVAL);
	CHECK_ERRNO(fallocate(region_fd, mode, 0, (NR + 1) * PAGE), EINVAL);
	CHECK_ERRNO(fallocate(region_fd, FALLOC_FL_ZERO_RANGE, 0, PAGE), EOPNOTSUPP);
	CHECK_ERRNO(fallocate(region_fd, 0, 0, (NR + 1) * PAGE), EPERM);
	CHECK_EQ(info(region_fd).missing, NR * PAGE);
	CHECK_EQ(info(region_fd).discarded, 0);
}

static const struct test tests[] = {
	TEST(missing_page_reads_zero_at_once),
	TEST(present_page_reads_zero),
	TEST(waiter_gets_zero),
	TEST(late_page_is_dropped),
	TEST(what_was_filled_in_does_not_show),
	TEST(madv_remove_is_a_discard),
	TEST(madv_dontneed_is_none),
	TEST(discard_cures_poison),
	TEST(a_new_pager_is_not_told_old_discards),
	TEST(bad_holes_are_refused),
};

TEST_MAIN(tests)
