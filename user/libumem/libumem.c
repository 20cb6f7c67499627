// SPDX-License-Identifier: LGPL-2.1-or-later
#include "libumem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int call(int fd, unsigned long command, void *argument)
{
	return ioctl(fd, command, argument) < 0 ? -errno : 0;
}

int umem_device_open(int *device)
{
	int fd = open(UMEM_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	*device = fd;
	return 0;
}

int umem_create(int device, uint64_t length, uint32_t flags, const char *name, int *region,
		uint32_t *id)
{
	struct umem_create create = {
		.size = sizeof(create),
		.flags = flags,
		.length = length,
	};
	int err;

	if (name) {
		size_t used = strlen(name);

		if (used >= sizeof(create.name))
			return -ENAMETOOLONG;
		memcpy(create.name, name, used);
	}
	err = call(device, UMEM_CREATE, &create);
	if (err)
		return err;
	*region = create.out_fd;
	if (id)
		*id = create.out_id;
	return 0;
}

int umem_open(int device, uint32_t id, int *region)
{
	struct umem_open open = {
		.size = sizeof(open),
		.id = id,
	};
	int err = call(device, UMEM_OPEN, &open);

	if (!err)
		*region = open.out_fd;
	return err;
}

int umem_attach(int region, uint32_t flags, int *pager)
{
	struct umem_attach attach = {
		.size = sizeof(attach),
		.flags = flags,
	};
	int err = call(region, UMEM_ATTACH, &attach);

	if (!err)
		*pager = attach.out_fd;
	return err;
}

int umem_info(int region, struct umem_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return call(region, UMEM_INFO, info);
}

static int range(int pager, unsigned long command, uint32_t flags, uint64_t offset,
		 uint64_t length, struct umem_done *done)
{
	struct umem_range range = {
		.size = sizeof(range),
		.flags = flags,
		.offset = offset,
		.length = length,
	};
	int err = call(pager, command, &range);

	if (done) {
		done->pages = range.out_pages;
		done->skipped = range.out_skipped;
	}
	return err;
}

int umem_mark_missing(int pager, uint64_t offset, uint64_t length, struct umem_done *done)
{
	return range(pager, UMEM_MARK_MISSING, 0, offset, length, done);
}

int umem_publish(int pager, uint64_t offset, uint64_t length, struct umem_done *done)
{
	return range(pager, UMEM_PUBLISH, 0, offset, length, done);
}

int umem_zero(int pager, uint32_t flags, uint64_t offset, uint64_t length, struct umem_done *done)
{
	return range(pager, UMEM_ZERO, flags, offset, length, done);
}

int umem_poison(int pager, uint64_t offset, uint64_t length, struct umem_done *done)
{
	return range(pager, UMEM_POISON, 0, offset, length, done);
}

int umem_copy_events(int pager, uint32_t flags, const struct umem_copy_entry *entries,
		     uint32_t entries_count, struct umem_done *done, struct umem_event *events,
		     uint32_t max, size_t *count)
{
	struct umem_copy copy = {
		.size = sizeof(copy),
		.flags = flags,
		.entries = (uintptr_t)entries,
		.nr_entries = entries_count,
		.events = max ? (uintptr_t)events : 0,
		.nr_events = max,
	};
	int err = call(pager, UMEM_COPY, &copy);

	if (done) {
		done->pages = copy.out_pages;
		done->skipped = copy.out_skipped;
	}
	*count = copy.out_events;
	return err;
}

int umem_copy(int pager, uint32_t flags, const struct umem_copy_entry *entries, uint32_t count,
	      struct umem_done *done)
{
	size_t none;

	return umem_copy_events(pager, flags, entries, count, done, NULL, 0, &none);
}

int umem_get_bitmap(int pager, uint32_t kind, uint64_t offset, uint64_t length, uint64_t *bits)
{
	struct umem_bitmap bitmap = {
		.size = sizeof(bitmap),
		.kind = kind,
		.offset = offset,
		.length = length,
		.bits = (uintptr_t)bits,
	};

	return call(pager, UMEM_GET_BITMAP, &bitmap);
}

static int track(int pager, uint32_t op)
{
	struct umem_track track = { .size = sizeof(track), .op = op };

	return call(pager, UMEM_TRACK, &track);
}

int umem_track_start(int pager)
{
	return track(pager, UMEM_TRACK_START);
}

int umem_track_stop(int pager)
{
	return track(pager, UMEM_TRACK_STOP);
}

int umem_track_collect(int pager, uint64_t offset, uint64_t length, uint64_t *bits,
		       uint64_t *pages)
{
	struct umem_track track = {
		.size = sizeof(track),
		.op = UMEM_TRACK_COLLECT,
		.offset = offset,
		.length = length,
		.bits = (uintptr_t)bits,
	};
	int err = call(pager, UMEM_TRACK, &track);

	if (pages)
		*pages = track.out_pages;
	return err;
}

int umem_read_events(int pager, struct umem_event *events, size_t max, size_t *count)
{
	ssize_t n = read(pager, events, max * sizeof(*events));

	*count = 0;
	if (n < 0)
		return -errno;
	if (!n || (size_t)n % sizeof(*events))
		return -EIO;
	*count = (size_t)n / sizeof(*events);
	return 0;
}

static int map(int fd, uint64_t offset, uint64_t length, int prot, void **address)
{
	void *mapping;

	if ((uint64_t)(size_t)length != length || (uint64_t)(off_t)offset != offset)
		return -EOVERFLOW;
	mapping = mmap(NULL, (size_t)length, prot, MAP_SHARED, fd, (off_t)offset);
	if (mapping == MAP_FAILED)
		return -errno;
	*address = mapping;
	return 0;
}

int umem_map_guest(int region, uint64_t offset, uint64_t length, int prot, void **address)
{
	return map(region, offset, length, prot, address);
}

int umem_map_fill(int pager, uint64_t offset, uint64_t length, void **address)
{
	return map(pager, offset, length, PROT_READ | PROT_WRITE, address);
}

int umem_unmap(void *address, uint64_t length)
{
	return munmap(address, (size_t)length) < 0 ? -errno : 0;
}

int umem_allocate(int region, uint64_t offset, uint64_t length)
{
	return fallocate(region, 0, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}

int umem_discard(int region, uint64_t offset, uint64_t length)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	return fallocate(region, mode, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}
