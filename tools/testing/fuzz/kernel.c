// SPDX-License-Identifier: GPL-2.0-or-later
#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "common/util.h"
#include "libumem.h"

struct kernel kernel = {
	.regions = {
		{ .name = "pc.ram", .pages = 150, .fd = -1, .pager = -1 },
		{ .name = "vga", .pages = 3, .fd = -1, .pager = -1 },
	},
};

static uint8_t contents[35][PAGE_BYTES];

static void make(struct kernel_region *region)
{
	region->fd = memfd_create(region->name, MFD_CLOEXEC);
	must(region->fd >= 0 && !ftruncate(region->fd, (off_t)(region->pages * PAGE_BYTES)));
	region->memory = mmap(NULL, region->pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			      region->fd, 0);
	region->view = mmap(NULL, region->pages * PAGE_BYTES, PROT_READ, MAP_SHARED, region->fd, 0);
	must(region->memory != MAP_FAILED && region->view != MAP_FAILED);
	region->missing = calloc(region->pages, 1);
	region->requested = calloc(region->pages, 1);
	region->dirty = calloc(region->pages, 1);
	must(region->missing && region->requested && region->dirty);
}

/* Beside holes: some zeroes, some that compress and some that do not. */
static void make_contents(void)
{
	for (uint32_t page = 0; page < ARRAY_SIZE(contents); page++) {
		memset(contents[page], (uint8_t)(page % 7), PAGE_BYTES);
		for (uint32_t i = 0; page % 5 == 2 && i < PAGE_BYTES; i++)
			contents[page][i] = (uint8_t)(i * i * (page + 1) >> 3);
	}
}

static void punch(const struct kernel_region *region, uint64_t offset, uint64_t length)
{
	must(!fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			(off_t)length));
}

static void write_page(struct kernel_region *region, uint64_t page, uint8_t value)
{
	memset(region->memory + page * PAGE_BYTES, value, PAGE_BYTES);
	region->dirty[page] = true;
}

void kernel_begin(struct options *options, bool fill)
{
	if (kernel.regions[0].fd < 0)
		make_contents();
	for (uint32_t i = 0; i < KERNEL_REGIONS; i++) {
		struct kernel_region *region = &kernel.regions[i];

		if (region->fd < 0)
			make(region);
		punch(region, 0, region->pages * PAGE_BYTES);
		for (uint64_t page = 0; fill && page < region->pages; page++) {
			if (page % 5 != 1)
				memcpy(region->memory + page * PAGE_BYTES, contents[page % 35],
				       PAGE_BYTES);
		}
		memset(region->missing, 0, region->pages);
		memset(region->requested, 0, region->pages);
		memset(region->dirty, 0, region->pages);
		region->tracking = false;

		strcpy(options->regions[i].name, region->name);
		options->regions[i].length = region->pages * PAGE_BYTES;
		options->region_fds[i] = region->fd;
	}
	options->nr_regions = KERNEL_REGIONS;
}

uint64_t kernel_missing(void)
{
	uint64_t missing = 0;

	for (uint32_t i = 0; i < KERNEL_REGIONS; i++) {
		for (uint64_t page = 0; page < kernel.regions[i].pages; page++)
			missing += kernel.regions[i].missing[page];
	}
	return missing;
}

static void tell(struct kernel_region *region, uint32_t type, uint64_t page)
{
	struct umem_event event = {
		.type = type,
		.tid = 7,
		.offset = page * PAGE_BYTES,
		.length = PAGE_BYTES,
		.time_ns = now_ns(),
	};

	/* A pager that does not read has to be told later; here it is not told. */
	if (region->pager >= 0)
		send(region->pager, &event, sizeof(event), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void kernel_touch(uint32_t index, uint64_t page)
{
	struct kernel_region *region = &kernel.regions[index % KERNEL_REGIONS];

	page %= region->pages;
	if (!region->missing[page] || region->requested[page])
		return;
	region->requested[page] = true;
	tell(region, UMEM_EVENT_REQUEST, page);
}

void kernel_discard(uint32_t index, uint64_t page)
{
	struct kernel_region *region = &kernel.regions[index % KERNEL_REGIONS];

	page %= region->pages;
	punch(region, page * PAGE_BYTES, PAGE_BYTES);
	region->missing[page] = region->requested[page] = false;
	tell(region, UMEM_EVENT_DISCARD, page);
}

void kernel_write(uint32_t index, uint64_t page, uint8_t value)
{
	struct kernel_region *region = &kernel.regions[index % KERNEL_REGIONS];

	write_page(region, page % region->pages, value);
}

/* The ioctls. */

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : st.st_ino;
}

static struct kernel_region *region_of(int fd, bool *pager)
{
	for (uint32_t i = 0; i < KERNEL_REGIONS; i++) {
		struct kernel_region *region = &kernel.regions[i];

		*pager = region->pager >= 0 && inode_of(fd) == region->inode;
		if (*pager || fd == region->fd)
			return region;
	}
	return NULL;
}

/* There may be one pager at a time; umemd leaves some to the end of its process. */
static void detach(struct kernel_region *region)
{
	if (region->pager < 0)
		return;
	close(region->pager);
	if (inode_of(region->pager_fd) == region->inode)
		close(region->pager_fd);
	region->pager = -1;
}

void kernel_end(void)
{
	for (uint32_t i = 0; i < KERNEL_REGIONS; i++)
		detach(&kernel.regions[i]);
}

static int attach(struct kernel_region *region, struct umem_attach *attach)
{
	int pair[2];

	must(region->pager < 0 || inode_of(region->pager_fd) != region->inode);
	detach(region);
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	region->pager = pair[0];
	region->inode = inode_of(pair[1]);
	attach->out_fd = region->pager_fd = pair[1];
	return 0;
}

static void check_range(const struct kernel_region *region, uint64_t offset, uint64_t length)
{
	must(offset % PAGE_BYTES == 0 && length % PAGE_BYTES == 0 && length);
	must(offset < region->pages * PAGE_BYTES);
	must(length <= region->pages * PAGE_BYTES - offset);
}

/* @data: NULL for zeroes */
static void fill(struct kernel_region *region, uint64_t offset, uint64_t length,
		 const uint8_t *data, uint32_t flags)
{
	check_range(region, offset, length);
	must(!(flags & ~(uint32_t)UMEM_FILL_UNPUBLISHED));
	for (uint64_t page = offset / PAGE_BYTES; page < (offset + length) / PAGE_BYTES; page++) {
		uint8_t *to = region->memory + page * PAGE_BYTES;

		if (kernel.check && !(flags & UMEM_FILL_UNPUBLISHED))
			kernel.check((uint32_t)(region - kernel.regions), page, data);
		if (region->missing[page] && data)
			memcpy(to, data, PAGE_BYTES);
		else if (region->missing[page])
			memset(to, 0, PAGE_BYTES);
		if (!(flags & UMEM_FILL_UNPUBLISHED))
			region->missing[page] = region->requested[page] = false;
		data = data ? data + PAGE_BYTES : NULL;
	}
}

static int copy(struct kernel_region *region, struct umem_copy *copy)
{
	const struct umem_copy_entry *entries = (void *)(uintptr_t)copy->entries;

	must(copy->nr_entries && copy->nr_entries <= UMEM_COPY_MAX);
	for (uint32_t i = 0; i < copy->nr_entries; i++)
		fill(region, entries[i].offset, entries[i].length,
		     (void *)(uintptr_t)entries[i].addr, copy->flags);
	must(!copy->events == !copy->nr_events);
	if (copy->events) {
		ssize_t n = recv(region->pager_fd, (void *)(uintptr_t)copy->events,
				 copy->nr_events * sizeof(struct umem_event), MSG_DONTWAIT);

		copy->out_events = n > 0 ? (uint32_t)((size_t)n / sizeof(struct umem_event)) : 0;
	}
	return 0;
}

static int mark(struct kernel_region *region, const struct umem_range *range, bool missing)
{
	check_range(region, range->offset, range->length);
	for (uint64_t page = range->offset / PAGE_BYTES;
	     page < (range->offset + range->length) / PAGE_BYTES; page++) {
		if (!missing && kernel.show && region->missing[page])
			kernel.show((uint32_t)(region - kernel.regions), page,
				    region->memory + page * PAGE_BYTES);
		region->missing[page] = missing;
		region->requested[page] = false;
	}
	if (missing)
		punch(region, range->offset, range->length);
	return 0;
}

static void put_bits(const struct kernel_region *region, uint64_t offset, uint64_t length,
		     uint64_t *bits, const bool *which, bool inverted)
{
	uint64_t first = offset / PAGE_BYTES, pages = length / PAGE_BYTES;

	check_range(region, offset, length);
	memset(bits, 0, (pages + 63) / 64 * sizeof(*bits));
	for (uint64_t i = 0; i < pages; i++) {
		if (which[first + i] != inverted)
			bits[i / 64] |= 1ULL << i % 64;
	}
}

static int get_bitmap(struct kernel_region *region, const struct umem_bitmap *bitmap)
{
	bool present = bitmap->kind == UMEM_BITMAP_PRESENT;

	must(present || bitmap->kind == UMEM_BITMAP_REQUESTED);
	put_bits(region, bitmap->offset, bitmap->length, (void *)(uintptr_t)bitmap->bits,
		 present ? region->missing : region->requested, present);
	return 0;
}

static int track(struct kernel_region *region, const struct umem_track *track)
{
	if (track->op == UMEM_TRACK_COLLECT) {
		must(region->tracking);
		put_bits(region, track->offset, track->length, (void *)(uintptr_t)track->bits,
			 region->dirty, false);
		memset(region->dirty + track->offset / PAGE_BYTES, 0, track->length / PAGE_BYTES);
		return 0;
	}
	region->tracking = track->op == UMEM_TRACK_START;
	/* What there was before is all to be sent. */
	memset(region->dirty, region->tracking, region->pages);
	return 0;
}

static int info(const struct kernel_region *region, struct umem_info *info)
{
	info->length = region->pages * PAGE_BYTES;
	for (uint64_t page = 0; page < region->pages; page++)
		info->missing += region->missing[page] * PAGE_BYTES;
	return 0;
}

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);

int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
	const struct umem_range *range = argument;
	struct kernel_region *region;
	bool pager;

	if (_IOC_TYPE(request) != UMEM_IOCTL_TYPE || _IOC_SIZE(request))
		return __real_ioctl(fd, request, argument);
	region = region_of(fd, &pager);
	must(region);
	must(pager == (request != UMEM_ATTACH && request != UMEM_INFO));
	switch (request) {
	case UMEM_ATTACH:
		return attach(region, argument);
	case UMEM_INFO:
		return info(region, argument);
	case UMEM_MARK_MISSING:
		return mark(region, range, true);
	case UMEM_PUBLISH:
		return mark(region, range, false);
	case UMEM_COPY:
		return copy(region, argument);
	case UMEM_ZERO:
		fill(region, range->offset, range->length, NULL, range->flags);
		return 0;
	case UMEM_GET_BITMAP:
		return get_bitmap(region, argument);
	case UMEM_TRACK:
		return track(region, argument);
	}
	must(!"an ioctl that this kernel has not");
	return -1;
}

int __wrap_umem_map_guest(int region, uint64_t offset, uint64_t length, int prot, void **address);

/* umemd leaves its mappings to the end of the process: it is given one that stays. */
int __wrap_umem_map_guest(int fd, uint64_t offset, uint64_t length, int prot, void **address)
{
	bool pager;
	struct kernel_region *region = region_of(fd, &pager);

	must(region && !offset && length == region->pages * PAGE_BYTES && prot == PROT_READ);
	*address = region->view;
	return 0;
}
