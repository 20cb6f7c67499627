// SPDX-License-Identifier: GPL-2.0-only
/*
 * Regions of 2 MiB folios: their pages are missing and present one by one, no neighbour of
 * a page shows with it, and what is complete is mapped whole.
 */
#include "umem_selftest.h"
#include <sys/uio.h>

#define BLOCK		(2UL << 20)
#define BLOCK_PAGES	((int)(BLOCK / PAGE))
#define NR_BLOCKS	3
#define TAIL		(16 * PAGE)
#define LENGTH		(NR_BLOCKS * BLOCK + TAIL)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define SHMEM_ENABLED	"/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static int region_fd, pager_fd;
static char *guest;

static int huge_region(uint64_t length)
{
	return region_with(UMEM_CREATE_HUGE, length, NULL);
}

static void allocate(void)
{
	CHECK(!fallocate(region_fd, 0, 0, LENGTH), "fallocate: %s", strerror(errno));
}

/* A region with its memory allocated, all of it present. */
static void setup_present(void)
{
	region_fd = huge_region(LENGTH);
	pager_fd = pager(region_fd);
	guest = map(region_fd, LENGTH);
	allocate();
	if (info(region_fd).huge_fallbacks)
		skip("not enough memory in one piece");
}

static void setup(void)
{
	setup_present();
	CHECK_EQ(mark_missing(pager_fd, 0, LENGTH), LENGTH / PAGE);
	allocate();
	if (info(region_fd).huge_fallbacks)
		skip("not enough memory in one piece");
}

static char *page_of(int block, int page)
{
	return guest + block * BLOCK + page * PAGE;
}

static uint64_t offset_of(int block, int page)
{
	return block * BLOCK + page * PAGE;
}

/* Bytes of the view that are mapped 2 MiB at a time. */
static unsigned long mapped_whole(const char *view)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib = 0, sum = 0;
	bool ours = false;
	char line[512];

	CHECK(file, "smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = start >= (unsigned long)view &&
			       end <= (unsigned long)view + LENGTH;
		else if (ours && sscanf(line, "ShmemPmdMapped: %lu kB", &kib) == 1)
			sum += kib << 10;
	}
	fclose(file);
	return sum;
}

/* What /proc/self/pagemap has of a page: bit 63 if it is mapped, its frame in the low ones. */
static uint64_t pagemap(const char *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	CHECK_EQ(pread(fd, &entry, sizeof(entry), (uintptr_t)addr / PAGE * sizeof(entry)),
		 sizeof(entry));
	close(fd);
	return entry;
}

static bool is_mapped(const char *addr)
{
	return pagemap(addr) >> 63;
}

static uint64_t frame(const char *addr)
{
	return pagemap(addr) & ((1ULL << 55) - 1);
}

static int nr_mapped(int block)
{
	int nr = 0;

	for (int i = 0; i < BLOCK_PAGES; i++)
		nr += is_mapped(page_of(block, i));
	return nr;
}

static void copy_pages(uint64_t offset, int nr, int byte)
{
	char *from = malloc(nr * PAGE);
	struct umem_copy copy;

	CHECK(from, "malloc");
	memset(from, byte, nr * PAGE);
	CHECK(!copy_ioctl(pager_fd, &copy, offset, from, nr * PAGE), "UMEM_COPY: %s",
	      strerror(errno));
	CHECK_EQ(copy.out_pages, (uint64_t)nr);
	free(from);
}

static void expect_a_wait(char *addr, uint64_t offset, int byte)
{
	struct toucher t;

	start(&t, touch_read, addr);
	expect_request(pager_fd, offset);
	expect_waiters(region_fd, 1);
	CHECK_EQ(copy_byte(pager_fd, offset, byte), 1);
	finish(&t);
	CHECK_EQ(t.value, byte);
}

/* If its folio was split pages are copied, which has to wait until nobody else looks at them. */
static void collapse(char *addr)
{
	int err = EINVAL;

	wait_until_relaxed(addr);
	for (int i = 0; i < 2000 && err; i++) {
		err = madvise(addr, BLOCK, MADV_COLLAPSE) ? errno : 0;
		if (err)
			msleep(1);
	}
	CHECK(!err, "MADV_COLLAPSE: %s", strerror(err));
}

static void memory_is_huge_and_mapped_whole(void)
{
	setup_present();
	CHECK_EQ((uintptr_t)guest % BLOCK, 0);
	CHECK_EQ(info(region_fd).huge_folios, NR_BLOCKS);
	wait_until_relaxed(guest);
	guest[BLOCK + 5 * PAGE] = 'a';
	CHECK_EQ(mapped_whole(guest), BLOCK);
	CHECK(page_is(page_of(1, 6), 0), "memory is not zero");
}

static void the_end_that_is_no_block_has_pages(void)
{
	setup_present();
	guest[NR_BLOCKS * BLOCK] = 'a';
	CHECK_EQ(info(region_fd).huge_folios, NR_BLOCKS);
	CHECK_EQ(info(region_fd).huge_fallbacks, 0);
	CHECK_EQ(mapped_whole(guest), 0);
}

static void a_page_is_shown_without_its_neighbours(void)
{
	setup();
	copy_pages(offset_of(0, 5), 1, 'a');
	CHECK(page_is(page_of(0, 5), 'a'), "contents");
	CHECK_EQ(nr_mapped(0), 1);
	CHECK_EQ(mapped_whole(guest), 0);
	expect_a_wait(page_of(0, 6), offset_of(0, 6), 'b');
	expect_a_wait(page_of(0, 4), offset_of(0, 4), 'c');
	CHECK_EQ(nr_mapped(0), 3);
}

static void a_write_shows_no_neighbours(void)
{
	setup();
	copy_pages(offset_of(0, 5), 1, 'a');
	*page_of(0, 5) = 'b';
	CHECK_EQ(nr_mapped(0), 1);
	expect_a_wait(page_of(0, 6), offset_of(0, 6), 'b');
}

static void fault_around_passes_by_what_is_missing(void)
{
	setup();
	copy_pages(offset_of(0, 0), 7, 'a');
	copy_pages(offset_of(0, 8), BLOCK_PAGES - 8, 'a');
	for (int i = 0; i < BLOCK_PAGES; i++)
		CHECK(i == 7 || page_is(page_of(0, i), 'a'), "page %d", i);
	CHECK(!is_mapped(page_of(0, 7)), "page 7 is mapped");
	expect_a_wait(page_of(0, 7), offset_of(0, 7), 'b');
}

static void the_kernel_sees_no_neighbours(void)
{
	struct iovec to = { &(char){ 0 }, 1 }, from = { page_of(0, 6), 1 };
	char byte;

	setup();
	copy_pages(offset_of(0, 5), 1, 'a');
	from.iov_base = page_of(0, 5);
	CHECK_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), 1);
	CHECK_EQ(*(char *)to.iov_base, 'a');
	CHECK_EQ(nr_mapped(0), 1);
	CHECK_ERRNO(pread(region_fd, &byte, 1, offset_of(0, 6)), EAGAIN);
	CHECK_EQ(pread(region_fd, &byte, 1, offset_of(0, 5)), 1);
}

static void a_complete_block_is_mapped_at_once(void)
{
	setup();
	copy_pages(offset_of(1, 0), BLOCK_PAGES, 'a');
	(void)*(volatile char *)page_of(1, 9);
	CHECK_EQ(nr_mapped(1), BLOCK_PAGES);
	CHECK_EQ(nr_mapped(0), 0);
	CHECK(page_is(page_of(1, 511), 'a'), "contents");
	expect_a_wait(page_of(2, 0), offset_of(2, 0), 'b');
}

static void a_complete_region_can_be_collapsed_without_copying(void)
{
	uint64_t before;

	setup();
	for (int i = 0; i < BLOCK_PAGES; i++) {
		copy_pages(offset_of(0, i), 1, 'a');
		*page_of(0, i) = 'b';
	}
	CHECK_EQ(mapped_whole(guest), 0);
	CHECK_ERRNO(madvise(guest, BLOCK, MADV_COLLAPSE), EINVAL);
	before = frame(page_of(0, 100));
	CHECK(before, "no frame");
	change(pager_fd, UMEM_ZERO, BLOCK, LENGTH - BLOCK);
	collapse(guest);
	CHECK_EQ(mapped_whole(guest), BLOCK);
	CHECK_EQ(frame(page_of(0, 100)), before);
	CHECK_EQ(*page_of(0, 100), 'b');
}

static void a_page_that_becomes_missing_leaves_its_neighbours(void)
{
	setup_present();
	wait_until_relaxed(guest);
	memset(guest, 'a', BLOCK);
	CHECK_EQ(mapped_whole(guest), BLOCK);
	CHECK_EQ(mark_missing(pager_fd, offset_of(0, 3), PAGE), 1);
	CHECK_EQ(mapped_whole(guest), 0);
	CHECK(page_is(page_of(0, 2), 'a') && page_is(page_of(0, 4), 'a'), "neighbours");
	expect_a_wait(page_of(0, 3), offset_of(0, 3), 'b');
}

static void nothing_is_collapsed_from_when_a_page_is_missing(void)
{
	setup_present();
	memset(guest, 'a', LENGTH);
	collapse(guest);
	CHECK_EQ(mark_missing(pager_fd, offset_of(2, 3), PAGE), 1);
	CHECK_ERRNO(madvise(guest, BLOCK, MADV_COLLAPSE), EINVAL);
	CHECK_EQ(copy_byte(pager_fd, offset_of(2, 3), 'b'), 1);
	collapse(guest);
}

static void copies_of_a_view_are_as_it_is(void)
{
	char *part = guest + BLOCK;
	int status;
	pid_t pid;

	setup_present();
	memset(guest, 'a', LENGTH);
	collapse(guest);
	part = guest + BLOCK;
	CHECK(!mprotect(part, BLOCK, PROT_READ), "mprotect: %s", strerror(errno));
	pid = fork();
	CHECK(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		/* Both processes' views, whole and split, are guarded again. */
		CHECK_EQ(mark_missing(pager_fd, offset_of(1, 0), PAGE), 1);
		CHECK_ERRNO(madvise(guest, BLOCK, MADV_COLLAPSE), EINVAL);
		CHECK_ERRNO(madvise(part, BLOCK, MADV_COLLAPSE), EINVAL);
		CHECK_EQ(copy_byte(pager_fd, offset_of(1, 0), 'b'), 1);
		collapse(part);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "status %x", status);
	collapse(guest);
	CHECK_EQ(*part, 'b');
}

static void a_discard_leaves_what_its_neighbours_have(void)
{
	setup();
	copy_pages(offset_of(0, 2), 1, 'a');
	CHECK_EQ(copy_byte_unpublished(pager_fd, offset_of(0, 3), 'b'), 1);
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(0, 4),
			 PAGE), "punch: %s", strerror(errno));
	CHECK(page_is(page_of(0, 4), 0), "not zero");
	CHECK(page_is(page_of(0, 2), 'a'), "neighbour");
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, offset_of(0, 3), PAGE), 1);
	CHECK(page_is(page_of(0, 3), 'b'), "neighbour that was missing");
	CHECK(!is_mapped(page_of(0, 5)), "page 5 is mapped");
}

static void a_poisoned_page_never_shows_with_its_neighbours(void)
{
	setup();
	CHECK_EQ(change(pager_fd, UMEM_POISON, offset_of(0, 9), PAGE), 1);
	copy_pages(offset_of(0, 0), 9, 'a');
	copy_pages(offset_of(0, 10), BLOCK_PAGES - 10, 'a');
	change(pager_fd, UMEM_ZERO, BLOCK, LENGTH - BLOCK);
	for (int i = 0; i < BLOCK_PAGES; i++)
		CHECK(i == 9 || page_is(page_of(0, i), 'a'), "page %d", i);
	CHECK_EQ(mapped_whole(guest), 0);
	CHECK_EQ(sigbus_code(page_of(0, 9), false), BUS_MCEERR_AR);
	msleep(50);
	CHECK_ERRNO(madvise(guest, BLOCK, MADV_COLLAPSE), EINVAL);
}

static bool can_read(char *addr)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { addr, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

static void the_fill_view_has_single_pages(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, LENGTH);
	fill[offset_of(0, 5)] = 'a';
	copy_pages(offset_of(0, 6), 1, 'b');
	CHECK(!can_read(fill + offset_of(0, 6)), "the fill view has a present page");
	CHECK_EQ(fill[offset_of(0, 5)], 'a');
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, offset_of(0, 5), PAGE), 1);
	CHECK(!can_read(fill + offset_of(0, 5)), "the fill view has a published page");
	CHECK_EQ(*page_of(0, 5), 'a');
	CHECK(!is_mapped(page_of(0, 7)), "page 7 is mapped");
}

static void what_was_not_filled_is_zero(void)
{
	setup_present();
	memset(guest, 'a', LENGTH);
	CHECK_EQ(mark_missing(pager_fd, 0, BLOCK + 3 * PAGE), BLOCK_PAGES + 3);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, BLOCK + 3 * PAGE), BLOCK_PAGES + 3);
	for (int i = 0; i < BLOCK_PAGES + 3; i++)
		CHECK(page_is(page_of(0, i), 0), "page %d", i);
	CHECK(page_is(page_of(1, 3), 'a'), "neighbour");
}

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
	      strerror(errno));
	close(fd);
}

/* The one in brackets of those that a file of sysfs lists. */
static void read_choice(const char *path, char *choice, size_t size)
{
	FILE *file = fopen(path, "re");
	char line[256], *from, *to;

	CHECK(file && fgets(line, sizeof(line), file), "%s: %s", path, strerror(errno));
	fclose(file);
	from = strchr(line, '[');
	to = strchr(line, ']');
	CHECK(from && to, "%s", line);
	snprintf(choice, size, "%.*s", (int)(to - from - 1), from + 1);
}

static char shmem_enabled[32];	/* what it was before */

/* A region that is made, and missing, while the kernel has that for all of shared memory */
static void setup_while(const char *choice, uint32_t flags)
{
	read_choice(SHMEM_ENABLED, shmem_enabled, sizeof(shmem_enabled));
	write_text(SHMEM_ENABLED, choice);
	region_fd = region_with(flags, LENGTH, NULL);
	pager_fd = pager(region_fd);
	guest = map(region_fd, LENGTH);
	CHECK_EQ(mark_missing(pager_fd, 0, LENGTH), LENGTH / PAGE);
}

static void without_huge_folios_there_are_pages(void)
{
	setup_while("deny", UMEM_CREATE_HUGE);
	allocate();
	write_text(SHMEM_ENABLED, shmem_enabled);
	CHECK_EQ(info(region_fd).huge_folios, 0);
	CHECK_EQ(info(region_fd).huge_fallbacks, NR_BLOCKS * BLOCK_PAGES);
	copy_pages(offset_of(0, 0), BLOCK_PAGES, 'a');
	CHECK(page_is(page_of(0, 5), 'a'), "contents");
	CHECK_EQ(mapped_whole(guest), 0);
	expect_a_wait(page_of(1, 0), offset_of(1, 0), 'b');
}

static void a_region_that_did_not_ask_has_pages(void)
{
	region_fd = region(LENGTH);
	guest = map(region_fd, LENGTH);
	memset(guest, 'a', LENGTH);
	CHECK_EQ(mapped_whole(guest), 0);
	CHECK_EQ(info(region_fd).huge_folios, 0);
	CHECK_EQ(info(region_fd).huge_fallbacks, 0);
}

/* What is meant for testing gives them to every file. */
static void a_region_that_did_not_ask_gets_them_as_well(void)
{
	setup_while("force", 0);
	copy_pages(offset_of(0, 5), 1, 'a');
	CHECK_EQ(*page_of(0, 5), 'a');
	CHECK_EQ(nr_mapped(0), 1);
	change(pager_fd, UMEM_ZERO, 0, LENGTH);
	write_text(SHMEM_ENABLED, shmem_enabled);
	CHECK_EQ(*page_of(0, 5), 'a');
	wait_until_relaxed(guest);
	CHECK(!madvise(guest, BLOCK, MADV_DONTNEED), "madvise: %s", strerror(errno));
	CHECK_EQ(*page_of(0, 5), 'a');
	CHECK_EQ(mark_missing(pager_fd, offset_of(0, 6), PAGE), 1);
	CHECK_EQ(*page_of(0, 5), 'a');
	CHECK(!is_mapped(page_of(0, 6)), "page 6 is mapped");
}

/* Dirty tracking */

static void track(uint32_t op, uint64_t length, uint64_t *bits)
{
	struct umem_track track = { .size = sizeof(track), .op = op, .length = length,
				    .bits = (uintptr_t)bits };

	CHECK(!ioctl(pager_fd, UMEM_TRACK, &track), "TRACK %u: %s", op, strerror(errno));
}

/* How many pages of the first block are dirty; @only is one that is, if one is. */
static int collect(int *only)
{
	uint64_t bits[BLOCK_PAGES / 64];
	int nr = 0;

	track(UMEM_TRACK_COLLECT, BLOCK, bits);
	for (int i = 0; i < BLOCK_PAGES; i++) {
		if (!(bits[i / 64] >> i % 64 & 1))
			continue;
		nr++;
		if (only)
			*only = i;
	}
	return nr;
}

static void setup_tracked(void)
{
	setup_present();
	memset(guest, 'a', BLOCK);
	track(UMEM_TRACK_START, 0, NULL);
	CHECK_EQ(collect(NULL), BLOCK_PAGES);
	for (int i = 0; i < 10; i++) {
		empty_lists();
		if (!collect(NULL))
			return;
	}
	CHECK_EQ(collect(NULL), 0);
}

static void a_write_is_told_of_one_page(void)
{
	int page = -1;

	setup_tracked();
	*page_of(0, 77) = 'b';
	CHECK_EQ(collect(&page), 1);
	CHECK_EQ(page, 77);
	*page_of(0, 77) = 'c';
	*page_of(0, 78) = 'c';
	CHECK_EQ(collect(NULL), 2);
	CHECK_EQ(collect(NULL), 0);
	CHECK_EQ(*page_of(0, 77), 'c');
	CHECK_EQ(*page_of(0, 76), 'a');
}

static void a_write_after_a_read_is_told_of_one_page(void)
{
	int page = -1;

	setup_tracked();
	(void)*(volatile char *)page_of(0, 5);
	CHECK_EQ(nr_mapped(0), BLOCK_PAGES);
	CHECK_EQ(collect(NULL), 0);
	*page_of(0, 78) = 'b';
	CHECK_EQ(collect(&page), 1);
	CHECK_EQ(page, 78);
}

static void a_write_by_the_kernel_is_told_of_one_page(void)
{
	char value = 'b';
	struct iovec from = { &value, 1 }, to = { NULL, 1 };
	int page = -1;

	setup_tracked();
	to.iov_base = page_of(0, 79);
	CHECK_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), 1);
	CHECK_EQ(collect(&page), 1);
	CHECK_EQ(page, 79);
}

/* A pipe holds a page; what holds one page of a folio holds all. */
static void a_page_that_is_held_is_told_until_it_is_not(void)
{
	struct iovec iov;
	int fds[2], page = -1;
	char byte;

	setup_tracked();
	CHECK(!pipe2(fds, O_CLOEXEC), "pipe2: %s", strerror(errno));
	*page_of(0, 80) = 'b';
	iov = (struct iovec){ page_of(0, 80), 1 };
	CHECK_EQ(vmsplice(fds[1], &iov, 1, 0), 1);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(collect(&page), 1);
		CHECK_EQ(page, 80);
	}
	CHECK_EQ(read(fds[0], &byte, 1), 1);
	empty_lists();
	CHECK_EQ(collect(&page), 1);
	CHECK_EQ(collect(NULL), 0);
}

static void writing_is_mapped_whole_again_after_the_end(void)
{
	setup_tracked();
	CHECK_ERRNO(madvise(guest, BLOCK, MADV_COLLAPSE), EINVAL);
	track(UMEM_TRACK_STOP, 0, NULL);
	CHECK(!madvise(guest, BLOCK, MADV_COLLAPSE), "MADV_COLLAPSE: %s", strerror(errno));
	*page_of(0, 3) = 'b';
	CHECK_EQ(mapped_whole(guest), BLOCK);
}

/*
 * Much more than there is memory for: it is missing, and the bitmaps are what it takes. A
 * quarter of it where the kernel looks for bugs, and at each word of these.
 */
static void a_region_of_4_tib_is_no_burden(void)
{
	const uint64_t length = (test_seconds() > 30 ? 1ULL : 4ULL) << 40;
	const uint64_t end = length - BLOCK, punched = 1ULL << 30;
	struct umem_bitmap bitmap = { .size = sizeof(bitmap), .offset = end, .length = BLOCK };
	uint64_t bits[BLOCK_PAGES / 64];
	struct umem_range range;

	region_fd = huge_region(length);
	pager_fd = pager(region_fd);
	guest = map(region_fd, length);
	CHECK_EQ(mark_missing(pager_fd, 0, length), length / PAGE);
	CHECK_EQ(info(region_fd).missing, length);
	expect_a_wait(guest + end + PAGE, end + PAGE, 'a');
	bitmap.bits = (uintptr_t)bits;
	CHECK(!ioctl(pager_fd, UMEM_GET_BITMAP, &bitmap), "GET_BITMAP: %s", strerror(errno));
	CHECK_EQ(bits[0], 2);
	CHECK_EQ(lseek(region_fd, 0, SEEK_DATA), 0);
	CHECK(!range_ioctl(pager_fd, UMEM_POISON, &range, end, PAGE), "POISON: %s",
	      strerror(errno));
	track(UMEM_TRACK_START, 0, NULL);
	track(UMEM_TRACK_STOP, 0, NULL);
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, punched),
	      "punch: %s", strerror(errno));
	CHECK_EQ(info(region_fd).missing, length - punched - 2 * PAGE);
	CHECK_EQ(info(region_fd).poisoned, PAGE);
	CHECK_EQ(*guest, 0);
}

static const struct test tests[] = {
	TEST(memory_is_huge_and_mapped_whole),
	TEST(the_end_that_is_no_block_has_pages),
	TEST(a_page_is_shown_without_its_neighbours),
	TEST(a_write_shows_no_neighbours),
	TEST(fault_around_passes_by_what_is_missing),
	TEST(the_kernel_sees_no_neighbours),
	TEST(a_complete_block_is_mapped_at_once),
	TEST(a_complete_region_can_be_collapsed_without_copying),
	TEST(a_page_that_becomes_missing_leaves_its_neighbours),
	TEST(nothing_is_collapsed_from_when_a_page_is_missing),
	TEST(copies_of_a_view_are_as_it_is),
	TEST(a_discard_leaves_what_its_neighbours_have),
	TEST(a_poisoned_page_never_shows_with_its_neighbours),
	TEST(the_fill_view_has_single_pages),
	TEST(what_was_not_filled_is_zero),
	TEST(without_huge_folios_there_are_pages),
	TEST(a_region_that_did_not_ask_has_pages),
	TEST(a_region_that_did_not_ask_gets_them_as_well),
	TEST(a_write_is_told_of_one_page),
	TEST(a_write_after_a_read_is_told_of_one_page),
	TEST(a_write_by_the_kernel_is_told_of_one_page),
	TEST(a_page_that_is_held_is_told_until_it_is_not),
	TEST(writing_is_mapped_whole_again_after_the_end),
	TEST(a_region_of_4_tib_is_no_burden),
};

TEST_MAIN(tests)
