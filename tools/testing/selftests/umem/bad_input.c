// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bad input: every ioctl with a wrong size, flag, range, address and descriptor
 * gives the errno of the table in linux/umem.h and changes nothing.
 */
#include "umem_selftest.h"
#include <stddef.h>

#define NR 16

enum target { DEVICE, REGION, PAGER, NR_TARGETS };

static int fds[NR_TARGETS];
static char source[PAGE];
static struct umem_copy_entry entry;
static uint64_t bits;

/* A good call of each ioctl; the tests spoil it one field at a time. */
static union arg {
	unsigned char bytes[512];
	uint32_t size;
	struct umem_create create;
	struct umem_open open;
	struct umem_attach attach;
	struct umem_info info;
	struct umem_range range;
	struct umem_copy copy;
	struct umem_bitmap bitmap;
	struct umem_track track;
} arg;

static const struct ioctl_test {
	const char *name;
	unsigned long cmd;
	uint32_t size;
	enum target target;
} ioctls[] = {
	{ "UMEM_CREATE", UMEM_CREATE, sizeof(struct umem_create), DEVICE },
	{ "UMEM_OPEN", UMEM_OPEN, sizeof(struct umem_open), DEVICE },
	{ "UMEM_ATTACH", UMEM_ATTACH, sizeof(struct umem_attach), REGION },
	{ "UMEM_INFO", UMEM_INFO, sizeof(struct umem_info), REGION },
	{ "UMEM_MARK_MISSING", UMEM_MARK_MISSING, sizeof(struct umem_range), PAGER },
	{ "UMEM_PUBLISH", UMEM_PUBLISH, sizeof(struct umem_range), PAGER },
	{ "UMEM_ZERO", UMEM_ZERO, sizeof(struct umem_range), PAGER },
	{ "UMEM_POISON", UMEM_POISON, sizeof(struct umem_range), PAGER },
	{ "UMEM_COPY", UMEM_COPY, sizeof(struct umem_copy), PAGER },
	{ "UMEM_GET_BITMAP", UMEM_GET_BITMAP, sizeof(struct umem_bitmap), PAGER },
	{ "UMEM_TRACK", UMEM_TRACK, sizeof(struct umem_track), PAGER },
};

#define NR_IOCTLS (sizeof(ioctls) / sizeof(*ioctls))

static struct umem_info before;
static uint32_t region_number;

static void start_tracking(void)
{
	struct umem_track track = { .size = sizeof(track), .op = UMEM_TRACK_START };

	CHECK(!ioctl(fds[PAGER], UMEM_TRACK, &track), "UMEM_TRACK: %s", strerror(errno));
}

static void setup(void)
{
	fds[DEVICE] = device();
	fds[REGION] = region_id(NR * PAGE, &region_number);
	fds[PAGER] = pager(fds[REGION]);
	mark_missing(fds[PAGER], 0, NR / 2 * PAGE);
	start_tracking();
	before = info(fds[REGION]);
}

static void expect_unchanged(const char *name)
{
	struct umem_info after = info(fds[REGION]);

	CHECK(!memcmp(&before, &after, sizeof(after)), "%s changed the region", name);
}

/* Make @arg a good call of the ioctl, of one page. */
static void good(const struct ioctl_test *test)
{
	memset(&arg, 0, sizeof(arg));
	arg.size = test->size;
	switch (test->cmd) {
	case UMEM_CREATE:
		arg.create.length = PAGE;
		break;
	case UMEM_OPEN:
		arg.open.id = region_number;
		break;
	case UMEM_ATTACH:
	case UMEM_INFO:
		break;
	case UMEM_COPY:
		entry = (struct umem_copy_entry){ 0, (uintptr_t)source, PAGE };
		arg.copy.entries = (uintptr_t)&entry;
		arg.copy.nr_entries = 1;
		break;
	case UMEM_GET_BITMAP:
		arg.bitmap.length = PAGE;
		arg.bitmap.bits = (uintptr_t)&bits;
		break;
	case UMEM_TRACK:
		arg.track.op = UMEM_TRACK_COLLECT;
		arg.track.length = PAGE;
		arg.track.bits = (uintptr_t)&bits;
		break;
	default:
		arg.range.length = PAGE;
	}
}

static void expect(const struct ioctl_test *test, const char *what, int want)
{
	int ret = ioctl(fds[test->target], test->cmd, &arg);

	CHECK(ret == -1 && errno == want, "%s with %s: %d, %s, want %s", test->name, what, ret,
	      ret ? strerror(errno) : "success", strerror(want));
	expect_unchanged(test->name);
}

#define for_each_ioctl(test) \
	for (const struct ioctl_test *test = ioctls; test < ioctls + NR_IOCTLS; test++)

/* As first published: one of them has grown. */
static uint32_t first_size(const struct ioctl_test *test)
{
	return test->cmd == UMEM_COPY ? offsetof(struct umem_copy, events) : test->size;
}

static void size_too_short(void)
{
	setup();
	for_each_ioctl(test) {
		for (uint32_t size = 0; size < first_size(test); size++) {
			good(test);
			arg.size = size;
			expect(test, "a short size", EINVAL);
		}
	}
}

/* A program that knows the structure as it was is served as it was. */
static void size_as_first_published_works(void)
{
	setup();
	for_each_ioctl(test) {
		uint32_t size = first_size(test);

		if (size == test->size)
			continue;
		good(test);
		memset(arg.bytes + size, 0xff, sizeof(arg) - size);
		arg.size = size;
		CHECK(!ioctl(fds[test->target], test->cmd, &arg), "%s: %s", test->name,
		      strerror(errno));
		CHECK_EQ(arg.size, size);
		for (uint32_t i = size; i < sizeof(arg); i++)
			CHECK_EQ(arg.bytes[i], 0xff);
	}
}

static void longer_size_with_something_in_it(void)
{
	setup();
	for_each_ioctl(test) {
		for (uint32_t i = test->size; i < sizeof(arg); i += 7) {
			good(test);
			arg.size = sizeof(arg);
			arg.bytes[i] = 1;
			expect(test, "an unknown field", E2BIG);
		}
		good(test);
		arg.size = 0x7fffffff;
		CHECK_EQ(ioctl(fds[test->target], test->cmd, &arg), -1);
		CHECK_EQ(errno, E2BIG);
		expect_unchanged(test->name);
	}
}

static void longer_size_with_zeroes_works(void)
{
	setup();
	close(fds[PAGER]);
	for_each_ioctl(test) {
		good(test);
		arg.size = sizeof(arg);
		CHECK(!ioctl(fds[test->target], test->cmd, &arg), "%s: %s", test->name,
		      strerror(errno));
		CHECK_EQ(arg.size, sizeof(arg));
		if (test->cmd == UMEM_ATTACH) {
			fds[PAGER] = arg.attach.out_fd;
			start_tracking();
		}
	}
}

static void unknown_flags(void)
{
	setup();
	for_each_ioctl(test) {
		for (int bit = 0; bit < 32; bit++) {
			good(test);
			/* the second word: flags, the kind of bitmap, or what to track */
			((uint32_t *)&arg)[1] = 1U << bit;
			if ((test->cmd == UMEM_CREATE || test->cmd == UMEM_ATTACH ||
			     test->cmd == UMEM_COPY || test->cmd == UMEM_ZERO) && bit == 0)
				continue;
			if ((test->cmd == UMEM_GET_BITMAP || test->cmd == UMEM_TRACK) && bit < 2)
				continue;
			expect(test, "an unknown flag", EOPNOTSUPP);
		}
	}
}

static void reserved_fields(void)
{
	setup();
	for_each_ioctl(test) {
		good(test);
		if (test->cmd == UMEM_ATTACH)
			arg.attach.__reserved = 1;
		else if (test->cmd == UMEM_COPY)
			arg.copy.__reserved = 1;
		else
			continue;
		expect(test, "a reserved field", EINVAL);
	}
}

static void set_range(const struct ioctl_test *test, uint64_t offset, uint64_t length)
{
	good(test);
	if (test->cmd == UMEM_COPY) {
		entry.offset = offset;
		entry.length = length;
	} else if (test->cmd == UMEM_GET_BITMAP) {
		arg.bitmap.offset = offset;
		arg.bitmap.length = length;
	} else if (test->cmd == UMEM_TRACK) {
		arg.track.offset = offset;
		arg.track.length = length;
	} else {
		arg.range.offset = offset;
		arg.range.length = length;
	}
}

static void ranges(void)
{
	static const struct {
		const char *name;
		uint64_t offset, length;
		int want;
	} ranges[] = {
		{ "an unaligned offset", 1, PAGE, EINVAL },
		{ "an unaligned length", 0, PAGE + 1, EINVAL },
		{ "no length", 0, 0, EINVAL },
		{ "one page past the end", 0, (NR + 1) * PAGE, EINVAL },
		{ "a start at the end", NR * PAGE, PAGE, EINVAL },
		{ "a start far away", 1ULL << 62, PAGE, EINVAL },
		{ "an overflow", -PAGE, 2 * PAGE, EOVERFLOW },
		{ "an overflow to 0", -PAGE, PAGE, EOVERFLOW },
		{ "the longest length", PAGE, -PAGE, EOVERFLOW },
	};

	setup();
	for_each_ioctl(test) {
		if (test->target != PAGER)
			continue;
		for (unsigned int i = 0; i < sizeof(ranges) / sizeof(*ranges); i++) {
			set_range(test, ranges[i].offset, ranges[i].length);
			expect(test, ranges[i].name, ranges[i].want);
		}
	}
}

static void one_bad_entry_of_a_copy_stops_all(void)
{
	struct umem_copy_entry entries[2] = {
		{ 0, (uintptr_t)source, PAGE },
		{ NR * PAGE, (uintptr_t)source, PAGE },
	};
	const struct ioctl_test test = { "UMEM_COPY", UMEM_COPY, sizeof(arg.copy), PAGER };

	setup();
	good(&test);
	arg.copy.entries = (uintptr_t)entries;
	arg.copy.nr_entries = 2;
	expect(&test, "a bad second entry", EINVAL);
	arg.copy.nr_entries = 0;
	expect(&test, "no entry", EINVAL);
	arg.copy.nr_entries = UMEM_COPY_MAX + 1;
	expect(&test, "too many entries", EINVAL);
}

static void room_for_events(void)
{
	const struct ioctl_test test = { "UMEM_COPY", UMEM_COPY, sizeof(arg.copy), PAGER };
	struct umem_event event;

	setup();
	good(&test);
	arg.copy.events = (uintptr_t)&event;
	expect(&test, "no room for events", EINVAL);
	good(&test);
	arg.copy.nr_events = 1;
	expect(&test, "room for events nowhere", EINVAL);
	for (uint32_t size = offsetof(struct umem_copy, events) + 1; size < test.size; size++) {
		good(&test);
		arg.copy.events = 0x0101010101010101;	/* some of it */
		arg.copy.nr_events = 1;
		arg.size = size;
		expect(&test, "no place to say how many events", EINVAL);
	}
}

static void addresses(void)
{
	void *const bad = (void *)16;

	setup();
	for_each_ioctl(test) {
		CHECK_ERRNO(ioctl(fds[test->target], test->cmd, bad), EFAULT);
		expect_unchanged(test->name);
		good(test);
		if (test->cmd == UMEM_COPY) {
			arg.copy.entries = 16;
			expect(test, "entries nowhere", EFAULT);
			good(test);
			entry.addr = 16;
			expect(test, "contents nowhere", EFAULT);
			entry.addr = -2 * PAGE;
			expect(test, "contents in the kernel", EFAULT);
		} else if (test->cmd == UMEM_GET_BITMAP) {
			arg.bitmap.bits = 16;
			expect(test, "bits nowhere", EFAULT);
		} else if (test->cmd == UMEM_TRACK) {
			arg.track.bits = 16;
			expect(test, "bits nowhere", EFAULT);
		}
	}
}

/* An answer that cannot be written must not leave a descriptor behind. */
static void read_only_argument(void)
{
	union arg *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1, 0);
	int next;

	setup();
	for_each_ioctl(test) {
		if (test->target == PAGER)
			continue;
		good(test);
		if (test->cmd == UMEM_ATTACH)
			close(fds[PAGER]);
		CHECK(!mprotect(page, PAGE, PROT_READ | PROT_WRITE), "mprotect");
		*page = arg;
		CHECK(!mprotect(page, PAGE, PROT_READ), "mprotect");
		next = dup(0);
		close(next);
		CHECK_ERRNO(ioctl(fds[test->target], test->cmd, page), EFAULT);
		CHECK_EQ(dup(0), next);
		close(next);
		if (test->cmd == UMEM_ATTACH) {
			/* and no pager: another one can attach */
			fds[PAGER] = pager(fds[REGION]);
		}
	}
}

static void wrong_descriptor(void)
{
	setup();
	for_each_ioctl(test) {
		for (int target = 0; target < NR_TARGETS; target++) {
			int want = ENOTTY;

			if (target == (int)test->target)
				continue;
			if (target == DEVICE && test->target == REGION)
				want = ENXIO;
			good(test);
			CHECK_ERRNO(ioctl(fds[target], test->cmd, &arg), want);
			expect_unchanged(test->name);
		}
	}
}

static void unknown_ioctls(void)
{
	setup();
	good(&ioctls[0]);
	for (int target = 0; target < NR_TARGETS; target++) {
		CHECK_ERRNO(ioctl(fds[target], _IO(UMEM_IOCTL_TYPE, 0xff), &arg), ENOTTY);
		CHECK_ERRNO(ioctl(fds[target], _IO(0x12, 1), &arg), ENOTTY);
	}
}

static void create_lengths_and_names(void)
{
	const struct ioctl_test *test = &ioctls[0];

	setup();
	for (int i = 0; i < 4; i++) {
		static const uint64_t lengths[] = { 0, 1, PAGE + 1, -PAGE };

		good(test);
		arg.create.length = lengths[i];
		expect(test, "a bad length", EINVAL);
	}
	good(test);
	memset(arg.create.name, 'n', sizeof(arg.create.name));
	expect(test, "a name without end", EINVAL);
}

static void read_only_region_attaches_no_pager(void)
{
	char path[64];

	setup();
	close(fds[PAGER]);
	before = info(fds[REGION]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[REGION]);
	fds[REGION] = open(path, O_RDONLY);
	CHECK(fds[REGION] >= 0, "%s", path);
	good(&ioctls[2]);
	expect(&ioctls[2], "a read-only descriptor", EBADF);
}

static const struct test tests[] = {
	TEST(size_too_short),
	TEST(size_as_first_published_works),
	TEST(longer_size_with_something_in_it),
	TEST(longer_size_with_zeroes_works),
	TEST(unknown_flags),
	TEST(reserved_fields),
	TEST(ranges),
	TEST(one_bad_entry_of_a_copy_stops_all),
	TEST(room_for_events),
	TEST(addresses),
	TEST(read_only_argument),
	TEST(wrong_descriptor),
	TEST(unknown_ioctls),
	TEST(create_lengths_and_names),
	TEST(read_only_region_attaches_no_pager),
};

TEST_MAIN(tests)
