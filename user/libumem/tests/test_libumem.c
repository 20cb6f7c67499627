// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What the library hands to the kernel and what it makes of the answer. That
 * the kernel does what it should is for the selftests of the module.
 */
#include "libumem.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int __wrap_ioctl(int fd, unsigned long command, void *argument);

static struct {
	int fd, fail;
	unsigned long command;
	union {
		uint32_t size;
		struct umem_create create;
		struct umem_open open;
		struct umem_attach attach;
		struct umem_info info;
		struct umem_range range;
		struct umem_copy copy;
		struct umem_bitmap bitmap;
		struct umem_track track;
	} got;
} seen;

/* Remembers the argument, and answers as the kernel would. */
int __wrap_ioctl(int fd, unsigned long command, void *argument)
{
	uint32_t size = *(uint32_t *)argument;

	assert_in_range(size, 4, sizeof(seen.got));
	seen.fd = fd;
	seen.command = command;
	memset(&seen.got, 0, sizeof(seen.got));
	memcpy(&seen.got, argument, size);

	switch (command) {
	case UMEM_CREATE:
		((struct umem_create *)argument)->out_fd = 71;
		((struct umem_create *)argument)->out_id = 72;
		break;
	case UMEM_OPEN:
		((struct umem_open *)argument)->out_fd = 73;
		break;
	case UMEM_ATTACH:
		((struct umem_attach *)argument)->out_fd = 74;
		break;
	case UMEM_INFO:
		((struct umem_info *)argument)->missing = 75;
		break;
	case UMEM_COPY:
		((struct umem_copy *)argument)->out_pages = 76;
		((struct umem_copy *)argument)->out_skipped = 77;
		((struct umem_copy *)argument)->out_events = 1;
		break;
	case UMEM_GET_BITMAP:
		break;
	case UMEM_TRACK:
		((struct umem_track *)argument)->out_pages = 80;
		break;
	default:
		((struct umem_range *)argument)->out_pages = 78;
		((struct umem_range *)argument)->out_skipped = 79;
	}
	if (seen.fail) {
		errno = seen.fail;
		return -1;
	}
	return 0;
}

static int setup(void **state)
{
	(void)state;
	memset(&seen, 0, sizeof(seen));
	return 0;
}

static void test_create(void **state)
{
	char name[UMEM_NAME_MAX + 1];
	uint32_t id;
	int fd = -1;

	(void)state;
	assert_int_equal(umem_create(3, 8192, UMEM_CREATE_HUGE, "ram0", &fd, &id), 0);
	assert_int_equal(seen.fd, 3);
	assert_int_equal(seen.command, UMEM_CREATE);
	assert_int_equal(seen.got.create.size, sizeof(struct umem_create));
	assert_int_equal(seen.got.create.flags, UMEM_CREATE_HUGE);
	assert_int_equal(seen.got.create.length, 8192);
	assert_string_equal(seen.got.create.name, "ram0");
	assert_int_equal(fd, 71);
	assert_int_equal(id, 72);

	assert_int_equal(umem_create(3, 8192, 0, NULL, &fd, NULL), 0);
	assert_string_equal(seen.got.create.name, "");

	memset(name, 'n', sizeof(name));
	name[UMEM_NAME_MAX - 1] = '\0';
	assert_int_equal(umem_create(3, 8192, 0, name, &fd, NULL), 0);
	assert_string_equal(seen.got.create.name, name);
	name[UMEM_NAME_MAX - 1] = 'n';
	name[UMEM_NAME_MAX] = '\0';
	seen.command = 0;
	assert_int_equal(umem_create(3, 8192, 0, name, &fd, NULL), -ENAMETOOLONG);
	assert_int_equal(seen.command, 0);
}

static void test_failed_calls_leave_descriptors_alone(void **state)
{
	int fd = -1;

	(void)state;
	seen.fail = ENOSPC;
	assert_int_equal(umem_create(3, 8192, 0, "ram0", &fd, NULL), -ENOSPC);
	assert_int_equal(umem_open(3, 1, &fd), -ENOSPC);
	assert_int_equal(umem_attach(3, 0, &fd), -ENOSPC);
	assert_int_equal(fd, -1);
}

static void test_open_attach_info(void **state)
{
	struct umem_info info;
	int fd;

	(void)state;
	assert_int_equal(umem_open(3, 9, &fd), 0);
	assert_int_equal(seen.command, UMEM_OPEN);
	assert_int_equal(seen.got.open.size, sizeof(struct umem_open));
	assert_int_equal(seen.got.open.id, 9);
	assert_int_equal(fd, 73);

	assert_int_equal(umem_attach(4, UMEM_ATTACH_SIGBUS, &fd), 0);
	assert_int_equal(seen.command, UMEM_ATTACH);
	assert_int_equal(seen.got.attach.size, sizeof(struct umem_attach));
	assert_int_equal(seen.got.attach.flags, UMEM_ATTACH_SIGBUS);
	assert_int_equal(seen.got.attach.__reserved, 0);
	assert_int_equal(fd, 74);

	memset(&info, 0xff, sizeof(info));
	assert_int_equal(umem_info(4, &info), 0);
	assert_int_equal(seen.command, UMEM_INFO);
	assert_int_equal(seen.got.info.size, sizeof(struct umem_info));
	assert_int_equal(seen.got.info.flags, 0);
	assert_int_equal(info.missing, 75);
}

static void test_ranges(void **state)
{
	static const struct {
		int (*function)(int pager, uint64_t offset, uint64_t length,
				struct umem_done *done);
		unsigned long command;
	} calls[] = {
		{ umem_mark_missing, UMEM_MARK_MISSING },
		{ umem_publish, UMEM_PUBLISH },
		{ umem_poison, UMEM_POISON },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		struct umem_done done = { 0 };

		seen.fail = 0;
		assert_int_equal(calls[i].function(5, 4096, 8192, &done), 0);
		assert_int_equal(seen.fd, 5);
		assert_int_equal(seen.command, calls[i].command);
		assert_int_equal(seen.got.range.size, sizeof(struct umem_range));
		assert_int_equal(seen.got.range.flags, 0);
		assert_int_equal(seen.got.range.offset, 4096);
		assert_int_equal(seen.got.range.length, 8192);
		assert_int_equal(done.pages, 78);
		assert_int_equal(done.skipped, 79);
		assert_int_equal(calls[i].function(5, 4096, 8192, NULL), 0);

		done = (struct umem_done){ 0 };
		seen.fail = EINTR;
		assert_int_equal(calls[i].function(5, 4096, 8192, &done), -EINTR);
		assert_int_equal(done.pages, 78);
		assert_int_equal(done.skipped, 79);
	}
}

static void test_zero(void **state)
{
	struct umem_done done = { 0 };

	(void)state;
	assert_int_equal(umem_zero(5, UMEM_FILL_UNPUBLISHED, 4096, 8192, &done), 0);
	assert_int_equal(seen.command, UMEM_ZERO);
	assert_int_equal(seen.got.range.size, sizeof(struct umem_range));
	assert_int_equal(seen.got.range.flags, UMEM_FILL_UNPUBLISHED);
	assert_int_equal(seen.got.range.offset, 4096);
	assert_int_equal(seen.got.range.length, 8192);
	assert_int_equal(done.pages, 78);
	assert_int_equal(done.skipped, 79);
}

static void test_copy(void **state)
{
	struct umem_copy_entry entries[2] = { { .length = 4096 }, { .length = 8192 } };
	struct umem_done done = { 0 };

	(void)state;
	assert_int_equal(umem_copy(5, UMEM_FILL_UNPUBLISHED, entries, 2, &done), 0);
	assert_int_equal(seen.command, UMEM_COPY);
	assert_int_equal(seen.got.copy.size, sizeof(struct umem_copy));
	assert_int_equal(seen.got.copy.flags, UMEM_FILL_UNPUBLISHED);
	assert_int_equal(seen.got.copy.__reserved, 0);
	assert_int_equal(seen.got.copy.nr_entries, 2);
	assert_ptr_equal((void *)(uintptr_t)seen.got.copy.entries, entries);
	assert_int_equal(seen.got.copy.events, 0);
	assert_int_equal(seen.got.copy.nr_events, 0);
	assert_int_equal(done.pages, 76);
	assert_int_equal(done.skipped, 77);

	done = (struct umem_done){ 0 };
	seen.fail = ENOMEM;
	assert_int_equal(umem_copy(5, 0, entries, 2, &done), -ENOMEM);
	assert_int_equal(done.pages, 76);
}

static void test_copy_gives_events(void **state)
{
	struct umem_copy_entry entry = { .length = 4096 };
	struct umem_event events[3];
	struct umem_done done = { 0 };
	size_t count = 0;

	(void)state;
	assert_int_equal(umem_copy_events(5, 0, &entry, 1, &done, events, 3, &count), 0);
	assert_int_equal(seen.command, UMEM_COPY);
	assert_int_equal(seen.got.copy.nr_entries, 1);
	assert_ptr_equal((void *)(uintptr_t)seen.got.copy.events, events);
	assert_int_equal(seen.got.copy.nr_events, 3);
	assert_int_equal(done.skipped, 77);
	assert_int_equal(count, 1);

	assert_int_equal(umem_copy_events(5, 0, &entry, 1, NULL, events, 0, &count), 0);
	assert_int_equal(seen.got.copy.events, 0);
	assert_int_equal(seen.got.copy.nr_events, 0);
}

static void test_bitmap(void **state)
{
	uint64_t bits[2];

	(void)state;
	assert_int_equal(umem_get_bitmap(5, UMEM_BITMAP_REQUESTED, 4096, 65 * 4096, bits), 0);
	assert_int_equal(seen.command, UMEM_GET_BITMAP);
	assert_int_equal(seen.got.bitmap.size, sizeof(struct umem_bitmap));
	assert_int_equal(seen.got.bitmap.kind, UMEM_BITMAP_REQUESTED);
	assert_int_equal(seen.got.bitmap.offset, 4096);
	assert_int_equal(seen.got.bitmap.length, 65 * 4096);
	assert_ptr_equal((void *)(uintptr_t)seen.got.bitmap.bits, bits);

	assert_int_equal(umem_bitmap_words(0), 0);
	assert_int_equal(umem_bitmap_words(64 * 4096), 1);
	assert_int_equal(umem_bitmap_words(65 * 4096), 2);
}

static void test_dirty_tracking(void **state)
{
	uint64_t bits[2], pages = 0;

	(void)state;
	assert_int_equal(umem_track_start(5), 0);
	assert_int_equal(seen.command, UMEM_TRACK);
	assert_int_equal(seen.got.track.size, sizeof(struct umem_track));
	assert_int_equal(seen.got.track.op, UMEM_TRACK_START);
	assert_int_equal(seen.got.track.length, 0);
	assert_int_equal(umem_track_stop(5), 0);
	assert_int_equal(seen.got.track.op, UMEM_TRACK_STOP);

	assert_int_equal(umem_track_collect(5, 4096, 65 * 4096, bits, &pages), 0);
	assert_int_equal(seen.got.track.op, UMEM_TRACK_COLLECT);
	assert_int_equal(seen.got.track.offset, 4096);
	assert_int_equal(seen.got.track.length, 65 * 4096);
	assert_ptr_equal((void *)(uintptr_t)seen.got.track.bits, bits);
	assert_int_equal(pages, 80);
	seen.fail = ENODATA;
	assert_int_equal(umem_track_collect(5, 0, 4096, bits, NULL), -ENODATA);
}

static void test_events_are_whole_records(void **state)
{
	struct umem_event sent[3] = { { .offset = 1 }, { .offset = 2 }, { .offset = 3 } };
	struct umem_event events[2];
	size_t count = 7;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_NONBLOCK), 0);
	assert_int_equal(umem_read_events(fds[0], events, 2, &count), -EAGAIN);
	assert_int_equal(count, 0);

	assert_int_equal(write(fds[1], sent, sizeof(sent)), sizeof(sent));
	assert_int_equal(umem_read_events(fds[0], events, 2, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(events[1].offset, 2);
	assert_int_equal(umem_read_events(fds[0], events, 2, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(events[0].offset, 3);

	assert_int_equal(write(fds[1], sent, 5), 5);
	assert_int_equal(umem_read_events(fds[0], events, 2, &count), -EIO);
	close(fds[1]);
	assert_int_equal(umem_read_events(fds[0], events, 2, &count), -EIO);
	close(fds[0]);
}

/* A memfd has mmap() and fallocate() as a region has. */
static void test_maps_allocation_and_holes(void **state)
{
	unsigned char *guest, *fill;
	void *address;
	int fd;

	(void)state;
	fd = memfd_create("region", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(umem_map_guest(-1, 0, 4096, PROT_READ, &address), -EBADF);
	assert_int_equal(umem_map_guest(fd, 0, 0, PROT_READ, &address), -EINVAL);
	assert_int_equal(umem_allocate(fd, 0, 3 * 4096), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), 3 * 4096);
	assert_int_equal(umem_map_fill(fd, 4096, 4096, &address), 0);
	fill = address;
	assert_int_equal(umem_map_guest(fd, 0, 3 * 4096, PROT_READ, &address), 0);
	guest = address;
	fill[5] = 42;
	assert_int_equal(guest[4096 + 5], 42);
	assert_int_equal(umem_discard(fd, 4096, 4096), 0);
	assert_int_equal(guest[4096 + 5], 0);
	assert_int_equal(umem_unmap(fill, 4096), 0);
	assert_int_equal(umem_unmap(guest, 3 * 4096), 0);
	assert_int_equal(umem_unmap(guest, 0), -EINVAL);
	close(fd);
	assert_int_equal(umem_allocate(fd, 0, 4096), -EBADF);
	assert_int_equal(umem_discard(fd, 0, 4096), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_create, setup),
		cmocka_unit_test_setup(test_failed_calls_leave_descriptors_alone, setup),
		cmocka_unit_test_setup(test_open_attach_info, setup),
		cmocka_unit_test_setup(test_ranges, setup),
		cmocka_unit_test_setup(test_zero, setup),
		cmocka_unit_test_setup(test_copy, setup),
		cmocka_unit_test_setup(test_copy_gives_events, setup),
		cmocka_unit_test_setup(test_bitmap, setup),
		cmocka_unit_test_setup(test_dirty_tracking, setup),
		cmocka_unit_test_setup(test_events_are_whole_records, setup),
		cmocka_unit_test_setup(test_maps_allocation_and_holes, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
