// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the kernel puts pages: swap, nodes of NUMA, compaction, memory that is taken
 * away or breaks. Documentation/memory-operations.rst sums it up.
 */
#include "operations.h"
#include <dirent.h>
#include <sys/swap.h>

#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif

#define SWAP_DEVICE	"/dev/zram0"
#define SWAP_PAGES	4096U

static char *fill;

/* Swap */

static void swap_setup(void)
{
	struct {
		char boot[1024];
		uint32_t version, last_page, bad_pages;
		char rest[PAGE - 1024 - 12 - 10];
		char magic[10];
	} __attribute__((packed)) header = {
		.version = 1, .last_page = SWAP_PAGES - 1, .magic = "SWAPSPACE2",
	};
	int fd;

	if (system("modprobe -q zram num_devices=1") ||
	    system("echo 1 >/sys/block/zram0/reset && echo 16M >/sys/block/zram0/disksize"))
		skip("no zram to swap to");
	fd = open(SWAP_DEVICE, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0, SWAP_DEVICE ": %s", strerror(errno));
	CHECK_EQ(write(fd, &header, sizeof(header)), PAGE);
	CHECK(!fsync(fd) && !close(fd), "fsync");
	CHECK(!swapon(SWAP_DEVICE, 0), "swapon: %s", strerror(errno));
}

static void swap_teardown(void)
{
	CHECK(!swapoff(SWAP_DEVICE), "swapoff: %s", strerror(errno));
}

static long swapped_pages(void)
{
	return smaps_kib(guest, "Swap") * 1024 / (long)PAGE;
}

/* Swap out pages that one view has mapped. */
static void page_out(char *view, long pages)
{
	long before = swapped_pages();

	for (int i = 0; i < 100 && swapped_pages() < before + pages; i++) {
		empty_lists();
		CHECK(!madvise(view, pages * PAGE, MADV_PAGEOUT), "madvise: %s",
		      strerror(errno));
	}
	CHECK_EQ(swapped_pages(), before + pages);
}

static void swapped_pages_stay_present(void)
{
	char buf[PAGE];

	setup_mixed();
	for (int i = 1; i < 8; i++)
		copy_byte(pager_fd, i * PAGE, 'a' + i);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(guest[i * PAGE], i ? 'a' + i : *present_byte);
	swap_setup();
	page_out(guest, 8);
	CHECK_EQ(info(region_fd).missing, (NR - 8) * PAGE);
	for (int i = 1; i < 8; i++)
		CHECK_EQ(copy_byte(pager_fd, i * PAGE, 'X'), 0);
	CHECK_EQ(pread(region_fd, buf, PAGE, PAGE), PAGE);
	CHECK(page_is(buf, 'b'), "read of page 1");
	for (int i = 1; i < 8; i++)
		CHECK(page_is(guest + i * PAGE, 'a' + i), "page %d", i);
	CHECK(page_is(guest, *present_byte), "page 0");
	CHECK(!has_event(pager_fd), "a swapped page was asked for");
	swap_teardown();
}

static void swapped_pages_stay_missing(void)
{
	struct toucher t;

	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	memset(fill + PAGE, 'f', 4 * PAGE);
	swap_setup();
	page_out(fill + PAGE, 4);
	start(&t, touch_read, guest + PAGE);
	expect_request(pager_fd, PAGE);
	expect_waiters(region_fd, 1);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, PAGE, PAGE), 1);
	finish(&t);
	CHECK(page_is(guest + PAGE, 'f'), "published");
	CHECK_EQ(copy_byte(pager_fd, 2 * PAGE, 'c'), 1);
	CHECK(page_is(guest + 2 * PAGE, 'c'), "copied");
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 3 * PAGE, PAGE), 1);
	CHECK(page_is(guest + 3 * PAGE, 0), "zeroed");
	CHECK(page_is(fill + 4 * PAGE, 'f'), "the fill view has it back");
	swap_teardown();
}

static void swapped_pages_are_discarded_and_marked(void)
{
	struct toucher t;

	setup_mixed();
	for (int i = 1; i < 4; i++)
		copy_byte(pager_fd, i * PAGE, 'a' + i);
	for (int i = 0; i < 4; i++)
		CHECK(guest[i * PAGE], "page %d", i);
	swap_setup();
	page_out(guest, 4);
	CHECK(!madvise(guest + PAGE, PAGE, MADV_REMOVE), "MADV_REMOVE: %s", strerror(errno));
	CHECK(page_is(guest + PAGE, 0), "discarded");
	CHECK_EQ(mark_missing(pager_fd, 2 * PAGE, PAGE), 1);
	start(&t, touch_read, guest + 2 * PAGE);
	serve(&t, 2, 'n');
	CHECK(page_is(guest + 2 * PAGE, 'n'), "marked and brought again");
	swap_teardown();
	CHECK(page_is(guest + 3 * PAGE, 'd') && page_is(guest, *present_byte), "the others");
}

/* swapoff brings every page back, shown or not. */
static void swapoff_shows_nothing(void)
{
	struct toucher t;

	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	memset(fill + PAGE, 'f', 2 * PAGE);
	swap_setup();
	page_out(fill + PAGE, 2);
	start(&t, touch_read, guest + PAGE);
	expect_waiters(region_fd, 1);
	swap_teardown();
	CHECK_EQ(swapped_pages(), 0);
	CHECK(!t.done, "it saw an unpublished page");
	expect_request(pager_fd, PAGE);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, PAGE, 2 * PAGE), 2);
	finish(&t);
	CHECK(page_is(guest + PAGE, 'f') && page_is(guest + 2 * PAGE, 'f'), "contents");
}

static uint64_t collect_dirty(uint32_t op)
{
	uint64_t bits = 0;
	struct umem_track track = { .size = sizeof(track), .op = op };

	if (op == UMEM_TRACK_COLLECT) {
		track.length = NR * PAGE;
		track.bits = (uintptr_t)&bits;
	}
	CHECK(!ioctl(pager_fd, UMEM_TRACK, &track), "UMEM_TRACK: %s", strerror(errno));
	return bits;
}

static void a_write_before_swap_is_told_once(void)
{
	setup_mixed();
	CHECK_EQ(copy_byte(pager_fd, PAGE, 'q'), 1);
	collect_dirty(UMEM_TRACK_START);
	for (int i = 0; i < 10; i++) {
		empty_lists();
		collect_dirty(UMEM_TRACK_COLLECT);
	}
	guest[0] = 'w';
	CHECK_EQ(guest[PAGE], 'q');
	swap_setup();
	page_out(guest, 2);
	CHECK_EQ(collect_dirty(UMEM_TRACK_COLLECT), 1);
	CHECK_EQ(guest[0], 'w');
	empty_lists();
	collect_dirty(UMEM_TRACK_COLLECT);	/* who has just read it in, has a reference */
	empty_lists();
	CHECK_EQ(collect_dirty(UMEM_TRACK_COLLECT), 0);
	guest[0] = 'v';
	CHECK_EQ(collect_dirty(UMEM_TRACK_COLLECT) & 1, 1);
	swap_teardown();
}

/* Nodes */

#define MPOL_BIND	2
#define MPOL_MF_STRICT	1
#define MPOL_MF_MOVE	2

static int node_of(const char *addr)
{
	const void *page = addr;
	int status = -1;

	CHECK(!syscall(SYS_move_pages, 0, 1UL, &page, NULL, &status, 0), "move_pages: %s",
	      strerror(errno));
	return status;
}

static bool has_two_nodes(void)
{
	return !access("/sys/devices/system/node/node1", F_OK);
}

static void need_two_nodes(void)
{
	if (!has_two_nodes())
		skip("one node of memory");
}

static void bind_to(char *addr, uint64_t length, int node, int flags)
{
	unsigned long mask = 1UL << node;

	CHECK(!syscall(SYS_mbind, addr, length, MPOL_BIND, &mask, 8UL, flags), "mbind: %s",
	      strerror(errno));
}

static void mbind_places_what_the_pager_brings(void)
{
	need_two_nodes();
	setup_mixed();
	bind_to(guest + PAGE, 4 * PAGE, 0, 0);
	bind_to(guest + 5 * PAGE, 4 * PAGE, 1, 0);
	CHECK(!has_event(pager_fd), "mbind asks for pages");
	fill = map(pager_fd, NR * PAGE);
	for (int i = 1; i < 9; i += 2) {
		copy_byte(pager_fd, i * PAGE, 'n');
		fill[(i + 1) * PAGE] = 'n';
		change(pager_fd, UMEM_PUBLISH, (i + 1) * PAGE, PAGE);
	}
	for (int i = 1; i < 9; i++) {
		CHECK_EQ(guest[i * PAGE], 'n');
		CHECK_EQ(node_of(guest + i * PAGE), i >= 5);
	}
}

static void mbind_moves_present_pages(void)
{
	need_two_nodes();
	setup_mixed();
	for (int node = 0; node < 4; node++) {
		CHECK_EQ(guest[0], *present_byte);
		empty_lists();
		bind_to(guest, NR * PAGE, node & 1, MPOL_MF_MOVE | MPOL_MF_STRICT);
		CHECK_EQ(guest[0], *present_byte);
		CHECK_EQ(node_of(guest), node & 1);
	}
	CHECK(node_of(guest + PAGE) < 0, "the missing page is somewhere");
	expect_as_before(guest);
}

/* Contents that are moved about while a thread reads them and another waits */

#define MANY	256UL
#define OTHERS	16384UL

static uint64_t many_pfns[MANY];
static struct toucher many_waiter, many_reader;
static atomic_bool many_stop;

static void get_pfns(char *addr, uint64_t *pfns, unsigned long pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	CHECK(fd >= 0, "pagemap");
	CHECK_EQ(pread(fd, pfns, pages * 8, (uintptr_t)addr / PAGE * 8), pages * 8);
	close(fd);
	for (unsigned long i = 0; i < pages; i++)
		pfns[i] &= (1ULL << 55) - 1;
}

static uint64_t pfn_of(char *addr)
{
	uint64_t pfn;

	get_pfns(addr, &pfn, 1);
	return pfn;
}

static void expect_many(void)
{
	for (unsigned long i = 0; i < MANY; i++)
		CHECK(*(volatile unsigned long *)(guest + i * PAGE) == i &&
		      *(volatile unsigned long *)(guest + (i + 1) * PAGE - 8) == ~i, "page %lu", i);
}

static void read_many(struct toucher *t)
{
	(void)t;
	while (!many_stop)
		expect_many();
}

/* MANY present pages and a missing one, all on the first node */
static void many_setup(void)
{
	region_fd = region((MANY + 1) * PAGE);
	pager_fd = pager(region_fd);
	guest = map(region_fd, (MANY + 1) * PAGE);
	if (has_two_nodes())
		bind_to(guest, (MANY + 1) * PAGE, 0, 0);
	mark_missing(pager_fd, MANY * PAGE, PAGE);
	for (unsigned long i = 0; i < MANY; i++) {
		*(unsigned long *)(guest + i * PAGE) = i;
		*(unsigned long *)(guest + (i + 1) * PAGE - 8) = ~i;
	}
	get_pfns(guest, many_pfns, MANY);
	if (!many_pfns[0])
		skip("pagemap tells no addresses");
}

static void many_start(void)
{
	start(&many_waiter, touch_read, guest + MANY * PAGE);
	start(&many_reader, read_many, NULL);
	expect_waiters(region_fd, 1);
	empty_lists();
}

/* How many pages moved. All are as they were. */
static unsigned long many_finish(void)
{
	uint64_t pfns[MANY];
	unsigned long moved = 0;

	many_stop = true;
	finish(&many_reader);
	expect_many();
	get_pfns(guest, pfns, MANY);
	for (unsigned long i = 0; i < MANY; i++)
		moved += pfns[i] != many_pfns[i];
	CHECK(!many_waiter.done, "it did not wait");
	expect_request(pager_fd, MANY * PAGE);
	CHECK(!has_event(pager_fd), "more was asked for");
	copy_byte(pager_fd, MANY * PAGE, 'l');
	finish(&many_waiter);
	CHECK_EQ(many_waiter.value, 'l');
	return moved;
}

/* Memory on the first node that is not the region's */
static char *others(void)
{
	char *addr = mmap(NULL, OTHERS * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(addr != MAP_FAILED, "mmap: %s", strerror(errno));
	madvise(addr, OTHERS * PAGE, MADV_NOHUGEPAGE);
	if (has_two_nodes())
		bind_to(addr, OTHERS * PAGE, 0, 0);
	for (unsigned long i = 0; i < OTHERS; i++)
		addr[i * PAGE] = 1;
	return addr;
}

/* None of it stays below these pages, and a hole next to each page above. */
static void make_holes(char *addr)
{
	static uint64_t pfns[OTHERS];

	get_pfns(addr, pfns, OTHERS);
	for (unsigned long i = 0; i < OTHERS; i++)
		if (i & 1 || pfns[i] < many_pfns[0])
			CHECK(!madvise(addr + i * PAGE, PAGE, MADV_DONTNEED), "MADV_DONTNEED");
}

/* It moves pages up to holes. What others got, before these pages or after, may be further up. */
static void compact(void)
{
	unsigned long moved;
	char *before, *after;

	before = others();
	many_setup();
	after = others();
	make_holes(before);
	make_holes(after);
	many_start();
	write_file("/proc/sys/vm/compact_memory", "1");
	moved = many_finish();
	printf("# compaction moved %lu pages of %lu\n", moved, MANY);
	fflush(stdout);
	_exit(moved ? 0 : EXIT_SKIP);
}

static void compaction_keeps_contents(void)
{
	int status;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		skip("a kernel without compaction");
	/* Pages from further down may take all the holes, and are further up the next time. */
	for (int i = 0; i < 5; i++) {
		status = in_child(compact);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SKIP)
			break;
	}
	skip_as(status);
}

static void moved_pages_keep_contents(void)
{
	int nodes[MANY], status[MANY];
	void *pages[MANY];

	need_two_nodes();
	many_setup();
	many_start();
	for (int round = 0; round < 4; round++) {
		for (unsigned long i = 0; i < MANY; i++) {
			pages[i] = guest + i * PAGE;
			nodes[i] = round & 1;
			/* As it stays where a page that the writer holds keeps others from moving. */
			status[i] = -EBUSY;
		}
		CHECK(syscall(SYS_move_pages, 0, MANY, pages, nodes, status, MPOL_MF_MOVE) >= 0,
		      "move_pages: %s", strerror(errno));
	}
	for (unsigned long i = 0; i < MANY; i++)
		CHECK(status[i] == 1 || status[i] == -EBUSY, "page %lu: %d", i, status[i]);
	CHECK(many_finish(), "no page was moved");
}

/* Memory that is to be unplugged */

#define MEMORY "/sys/devices/system/memory"

static uint64_t block_pages(void)
{
	FILE *file = fopen(MEMORY "/block_size_bytes", "r");
	uint64_t bytes;

	if (!file || fscanf(file, "%lx", &bytes) != 1)
		skip("a kernel without memory hotplug");
	fclose(file);
	return bytes / PAGE;
}

static bool block_is_movable(uint64_t block)
{
	char path[96], zones[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), MEMORY "/memory%lu/valid_zones", block);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (!fgets(zones, sizeof(zones), file))
		zones[0] = 0;
	fclose(file);
	return !strncmp(zones, "Movable", 7);
}

/* The first of the pages that is in memory that could go; skips if none is. */
static uint64_t movable_block(uint64_t pages)
{
	for (unsigned long i = 0; i < MANY; i++)
		if (block_is_movable(many_pfns[i] / pages))
			return many_pfns[i] / pages;
	many_finish();
	skip("its pages are not in memory that could go");
	return 0;
}

static void nothing(int sig)
{
	(void)sig;
}

static void hot_unplug_moves_pages_away(void)
{
	uint64_t pages = block_pages(), block;
	unsigned long moved;
	char path[96];
	int fd;

	many_setup();
	many_start();
	block = movable_block(pages);
	snprintf(path, sizeof(path), MEMORY "/memory%lu/online", block);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	/* It tries for as long as no signal comes. */
	CHECK(!sigaction(SIGALRM, &(struct sigaction){ .sa_handler = nothing }, NULL), "sigaction");
	alarm(10);
	if (write(fd, "0", 1) != 1) {
		CHECK(errno == EBUSY || errno == EINTR || errno == EAGAIN, "%s", strerror(errno));
		alarm(test_seconds());
		many_finish();
		skip("other memory next to it cannot go");
	}
	for (unsigned long i = 0; i < MANY; i++)
		CHECK(pfn_of(guest + i * PAGE) / pages != block, "page %lu is still there", i);
	CHECK_EQ(pwrite(fd, "1", 1, 0), 1);
	close(fd);
	moved = many_finish();
	printf("# %lu pages of %lu had to go\n", moved, MANY);
	CHECK(moved, "no page was moved");
}

/* Memory that breaks */

/* From Linux 6.10 on who breaks memory is told at once, as if he had touched it. */
static void inject(char *addr, int advice)
{
	struct sigaction told = { .sa_handler = nothing }, before;
	int err;

	CHECK(!sigaction(SIGBUS, &told, &before), "sigaction");
	err = madvise(addr, PAGE, advice) ? errno : 0;
	CHECK(!sigaction(SIGBUS, &before, NULL), "sigaction");
	if (!err)
		return;
	CHECK(err == EINVAL || err == EPERM, "%s", strerror(err));
	skip("no memory failures to be had");
}

static void soft_offline_moves_the_page(void)
{
	uint64_t pfn;

	setup_mixed();
	CHECK_EQ(guest[0], *present_byte);
	pfn = pfn_of(guest);
	inject(guest, MADV_SOFT_OFFLINE);
	CHECK(page_is(guest, *present_byte), "contents");
	CHECK(pfn_of(guest) != pfn, "it is where it was");
	expect_as_before(guest);
}

static void broken_memory_is_machine_check_until_discarded(void)
{
	setup_mixed();
	for (int i = 1; i < 3; i++)
		copy_byte(pager_fd, i * PAGE, 'b');
	CHECK_EQ(guest[PAGE], 'b');
	inject(guest + PAGE, MADV_HWPOISON);
	CHECK_EQ(sigbus_code(guest + PAGE, false), BUS_MCEERR_AR);
	CHECK(page_is(guest, *present_byte) && page_is(guest + 2 * PAGE, 'b'), "its neighbours");
	CHECK(!madvise(guest + PAGE, PAGE, MADV_REMOVE), "MADV_REMOVE: %s", strerror(errno));
	CHECK(page_is(map(region_fd, NR * PAGE) + PAGE, 0), "after it was discarded");
}

/* What was filled in is lost, but not yet needed: bringing it again is enough. */
static void broken_memory_is_filled_anew(void)
{
	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	memset(fill + PAGE, 'f', 3 * PAGE);
	inject(fill + PAGE, MADV_HWPOISON);
	inject(fill + 2 * PAGE, MADV_HWPOISON);
	CHECK_EQ(copy_byte(pager_fd, PAGE, 'n'), 1);
	CHECK(page_is(guest + PAGE, 'n'), "copied again");
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 2 * PAGE, PAGE), 1);
	CHECK(page_is(guest + 2 * PAGE, 0), "zeroed");
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 3 * PAGE, PAGE), 1);
	CHECK(page_is(guest + 3 * PAGE, 'f'), "its neighbour");
}

static const struct test tests[] = {
	TEST(swapped_pages_stay_present),
	TEST(swapped_pages_stay_missing),
	TEST(swapped_pages_are_discarded_and_marked),
	TEST(swapoff_shows_nothing),
	TEST(a_write_before_swap_is_told_once),
	TEST(mbind_places_what_the_pager_brings),
	TEST(mbind_moves_present_pages),
	TEST(moved_pages_keep_contents),
	TEST(hot_unplug_moves_pages_away),
	TEST(compaction_keeps_contents),
	TEST(soft_offline_moves_the_page),
	TEST(broken_memory_is_machine_check_until_discarded),
	TEST(broken_memory_is_filled_anew),
};

TEST_MAIN(tests)
