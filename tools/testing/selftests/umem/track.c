// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking: a write after a collection is told by the next, whoever writes
 * and whatever happens to the mapping it was made through.
 */
#include "dirty_region.h"
#include <sys/resource.h>

static void every_page_is_dirty_at_first(void)
{
	setup();
	track_start();
	CHECK_EQ(collect(), -1);
}

static void a_write_is_told_once(void)
{
	setup_clean();
	guest[7 * PAGE + 100] = 'w';
	guest[63 * PAGE] = 'w';
	CHECK_EQ(collect(), 1ULL << 7 | 1ULL << 63);
	CHECK_EQ(collect(), 0);
	guest[7 * PAGE + 200] = 'w';
	CHECK_EQ(collect(), 1ULL << 7);
}

static void a_read_of_a_mapped_page_is_not_told(void)
{
	setup_clean();
	for (int i = 0; i < NR; i++)
		CHECK_EQ(*(volatile char *)(guest + i * PAGE), 'a');
	CHECK_EQ(collect(), 0);
}

static void read_of_the_region_is_not_told(void)
{
	static char buf[NR * PAGE];

	setup_clean();
	CHECK_EQ(pread(region_fd, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
	CHECK_EQ(buf[3 * PAGE], 'a');
	/* but for what a CPU's list of recently used pages may hold for a moment */
	collect_until_clean();
	guest[5 * PAGE] = 'w';
	CHECK_EQ(pread(region_fd, buf, sizeof(buf), 0), (ssize_t)sizeof(buf));
	CHECK_EQ(buf[5 * PAGE], 'w');
	CHECK_EQ(collect() & 1ULL << 5, 1ULL << 5);
}

static void only_the_range_is_collected(void)
{
	struct umem_track t;
	uint64_t bits;

	setup_clean();
	guest[3 * PAGE] = 'w';
	guest[4 * PAGE] = 'w';
	guest[5 * PAGE] = 'w';
	CHECK(!track(UMEM_TRACK_COLLECT, &t, 4 * PAGE, PAGE, &bits), "COLLECT");
	CHECK_EQ(bits, 1);
	CHECK_EQ(t.out_pages, 1);
	CHECK_EQ(collect(), 1ULL << 3 | 1ULL << 5);
}

static void a_write_through_another_mapping_is_told(void)
{
	char *other;

	setup_clean();
	other = map(region_fd, NR * PAGE);
	other[2 * PAGE] = 'w';
	CHECK_EQ(collect() & 1ULL << 2, 1ULL << 2);
	other[2 * PAGE] = 'v';
	CHECK_EQ(collect() & 1ULL << 2, 1ULL << 2);
}

static void a_write_through_a_mapping_that_went_is_told(void)
{
	char *other;

	setup_clean();
	other = map(region_fd, NR * PAGE);
	CHECK_EQ(*(volatile char *)(other + 2 * PAGE), 'a');
	collect_until_clean();
	other[2 * PAGE] = 'w';
	munmap(other, NR * PAGE);
	CHECK_EQ(collect(), 1ULL << 2);
	CHECK_EQ(guest[2 * PAGE], 'w');
}

static void a_write_before_madvise_dontneed_is_told(void)
{
	setup_clean();
	guest[2 * PAGE] = 'w';
	CHECK(!madvise(guest + 2 * PAGE, PAGE, MADV_DONTNEED), "madvise");
	CHECK_EQ(collect(), 1ULL << 2);
	CHECK_EQ(guest[2 * PAGE], 'w');
}

static void a_write_through_a_mapping_that_came_and_went_is_told(void)
{
	char *other;

	setup_clean();
	other = map(region_fd, NR * PAGE);
	other[2 * PAGE] = 'w';
	munmap(other, NR * PAGE);
	CHECK_EQ(collect(), 1ULL << 2);
}

/* Mapped for reading when it was clean, by a fault or around one: not to be written unseen. */
static void a_write_after_a_fault_nearby_is_told(void)
{
	char *other;

	setup_clean();
	other = map(region_fd, NR * PAGE);
	CHECK_EQ(*(volatile char *)(other + 3 * PAGE), 'a');
	other[2 * PAGE] = 'w';
	munmap(other, NR * PAGE);
	CHECK_EQ(collect(), 1ULL << 2);
}

/* The mapping is older than START. */
static void a_write_after_a_new_fault_for_reading_is_told(void)
{
	setup_clean();
	CHECK(!madvise(guest, NR * PAGE, MADV_DONTNEED), "madvise");
	for (int i = 0; i < NR; i++)
		CHECK_EQ(*(volatile char *)(guest + i * PAGE), 'a');
	CHECK_EQ(collect(), 0);
	guest[2 * PAGE] = 'w';
	CHECK_EQ(collect(), 1ULL << 2);
}

static void a_write_after_the_mapping_changed_is_told(void)
{
	char *moved;

	setup_clean();
	/* Split in three; the middle may not be written to for a while. */
	CHECK(!mprotect(guest + 2 * PAGE, PAGE, PROT_READ), "mprotect");
	CHECK(!mprotect(guest + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE), "mprotect");
	guest[2 * PAGE] = 'w';
	guest[3 * PAGE] = 'w';
	CHECK_EQ(collect(), 1ULL << 2 | 1ULL << 3);
	moved = mremap(guest + 3 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       map(region_fd, PAGE));
	CHECK(moved != MAP_FAILED, "mremap: %s", strerror(errno));
	moved[0] = 'v';
	CHECK_EQ(collect(), 1ULL << 3);
}

/* The fork's mapping comes as the writer's goes: as many as before. */
static void a_write_before_a_fork_takes_over_is_told(void)
{
	int to_child[2];
	pid_t pid;

	setup_clean();
	CHECK(!pipe(to_child), "pipe");
	pid = fork();
	if (!pid) {
		char c;

		close(to_child[1]);
		_exit(read(to_child[0], &c, 1));
	}
	close(to_child[0]);
	guest[2 * PAGE] = 'w';
	CHECK(!madvise(guest + 2 * PAGE, PAGE, MADV_DONTNEED), "madvise");
	CHECK_EQ(collect() & 1ULL << 2, 1ULL << 2);
	close(to_child[1]);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

static void a_write_by_another_process_is_told(void)
{
	pid_t pid;

	setup_clean();
	pid = fork();
	if (!pid) {
		guest[2 * PAGE] = 'w';
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(collect() & 1ULL << 2, 1ULL << 2);
	CHECK_EQ(guest[2 * PAGE], 'w');
}

static void a_write_of_the_kernel_is_told(void)
{
	struct iovec to, from = { "w", 1 };
	int fds[2];

	setup_clean();
	CHECK(!pipe(fds) && write(fds[1], "w", 1) == 1, "pipe");
	CHECK_EQ(read(fds[0], guest + 2 * PAGE, 1), 1);
	to = (struct iovec){ guest + 3 * PAGE, 1 };
	CHECK_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), 1);
	CHECK_EQ(collect(), 1ULL << 2 | 1ULL << 3);
}

static void punch_page(int page)
{
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page * PAGE, PAGE),
	      "punch");
}

static void what_the_pager_and_discards_change_is_told(void)
{
	setup_clean();
	CHECK_EQ(mark_missing(pager_fd, 2 * PAGE, 2 * PAGE), 2);
	collect();
	CHECK_EQ(copy_byte(pager_fd, 2 * PAGE, 'c'), 1);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 3 * PAGE, PAGE), 1);
	punch_page(9);
	CHECK_EQ(collect() & ~(1ULL << 2), 1ULL << 3 | 1ULL << 9);
}

/* Nothing but the change itself tells of these pages: nobody maps them. */
static void what_was_put_there_before_is_told_when_it_is_shown(void)
{
	setup_clean();
	CHECK_EQ(mark_missing(pager_fd, 2 * PAGE, 3 * PAGE), 3);
	for (int i = 2; i < 5; i++)
		CHECK_EQ(copy_byte_unpublished(pager_fd, i * PAGE, 'u'), 1);
	collect_until_clean();
	CHECK_EQ(copy_byte(pager_fd, 2 * PAGE, 'c'), 1);
	CHECK_EQ(collect() & 1ULL << 2, 1ULL << 2);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 3 * PAGE, PAGE), 1);
	CHECK_EQ(collect(), 1ULL << 3);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 4 * PAGE, PAGE), 1);
	CHECK_EQ(collect(), 1ULL << 4);
	CHECK_EQ(guest[2 * PAGE], 'c');
	CHECK_EQ(guest[3 * PAGE], 0);
	CHECK_EQ(guest[4 * PAGE], 'u');
}

static void a_discard_is_told_though_nobody_maps_it(void)
{
	setup_clean();
	CHECK_EQ(mark_missing(pager_fd, 2 * PAGE, PAGE), 1);
	CHECK(!madvise(guest + 3 * PAGE, PAGE, MADV_DONTNEED), "madvise");
	collect_until_clean();
	punch_page(2);
	punch_page(3);
	CHECK_EQ(collect(), 1ULL << 2 | 1ULL << 3);
}

/* Writes to @addr from a page that is missing: it pins first and waits then. */
static char *missing_source;

static void write_slowly(struct toucher *toucher)
{
	struct iovec from = { missing_source, 1 }, to = { (char *)toucher->addr, 1 };

	toucher->ret = process_vm_writev(getpid(), &from, 1, &to, 1, 0);
}

static void a_write_through_a_pin_is_told_when_it_ends(void)
{
	int source_fd = region(PAGE), source_pager = pager(source_fd);
	struct toucher t;

	setup_clean();
	missing_source = map(source_fd, PAGE);
	mark_missing(source_pager, 0, PAGE);
	start(&t, write_slowly, guest + 2 * PAGE);
	expect_waiters(source_fd, 1);

	/* Told while it is pinned, written to or not. */
	CHECK_EQ(collect(), 1ULL << 2);
	CHECK_EQ(collect(), 1ULL << 2);
	CHECK_EQ(guest[2 * PAGE], 'a');
	CHECK_EQ(copy_byte(source_pager, 0, 'w'), 1);
	finish(&t);
	CHECK_EQ(t.ret, 1);
	CHECK_EQ(collect(), 1ULL << 2);
	CHECK_EQ(guest[2 * PAGE], 'w');
	CHECK_EQ(collect(), 0);
}

static void nothing_is_lost_if_it_cannot_be_told(void)
{
	struct umem_track t;

	setup_clean();
	guest[2 * PAGE] = 'w';
	CHECK_ERRNO(track(UMEM_TRACK_COLLECT, &t, 0, NR * PAGE, (uint64_t *)16), EFAULT);
	CHECK_EQ(t.out_pages, 0);
	CHECK_EQ(collect(), 1ULL << 2);
}

static void start_and_stop(void)
{
	struct umem_track t;
	uint64_t bits;

	setup();
	CHECK_ERRNO(track(UMEM_TRACK_STOP, &t, 0, 0, NULL), ENODATA);
	CHECK_ERRNO(track(UMEM_TRACK_COLLECT, &t, 0, PAGE, &bits), ENODATA);
	track_start();
	CHECK_ERRNO(track(UMEM_TRACK_START, &t, 0, 0, NULL), EALREADY);
	CHECK_ERRNO(track(UMEM_TRACK_START, &t, 0, PAGE, NULL), EINVAL);
	CHECK_ERRNO(track(UMEM_TRACK_STOP, &t, PAGE, 0, NULL), EINVAL);
	CHECK_ERRNO(track(UMEM_TRACK_STOP, &t, 0, 0, &bits), EINVAL);
	CHECK_ERRNO(track(3, &t, 0, 0, NULL), EOPNOTSUPP);
	CHECK(!track(UMEM_TRACK_STOP, &t, 0, 0, NULL), "STOP");
	CHECK_ERRNO(track(UMEM_TRACK_COLLECT, &t, 0, PAGE, &bits), ENODATA);
	track_start();
	CHECK_EQ(collect(), -1);
}

/* Faults that reading the region from a new mapping takes. */
static long faults_of_reading(void)
{
	volatile char *fresh = map(region_fd, NR * PAGE);
	struct rusage before, after;

	wait_until_relaxed(fresh);
	CHECK(!getrusage(RUSAGE_SELF, &before), "getrusage");
	for (int i = 0; i < NR; i++)
		(void)fresh[i * PAGE];
	CHECK(!getrusage(RUSAGE_SELF, &after), "getrusage");
	munmap((void *)fresh, NR * PAGE);
	return after.ru_minflt - before.ru_minflt;
}

static void faults_are_as_many_after_stop_as_before_start(void)
{
	struct umem_track t;
	long before;

	setup();
	memset(guest, 'a', NR * PAGE);
	faults_of_reading();
	before = faults_of_reading();
	CHECK(before < NR / 4, "%ld faults", before);
	track_start();
	collect();
	CHECK_EQ(faults_of_reading(), before);
	CHECK(!track(UMEM_TRACK_STOP, &t, 0, 0, NULL), "STOP");
	CHECK_EQ(faults_of_reading(), before);
}

/* Faults of writing, through the mapping that was there all the time, to what it has read. */
static long faults_of_writing(void)
{
	struct rusage before, after;

	CHECK(!madvise(guest, NR * PAGE, MADV_DONTNEED), "madvise");
	for (int i = 0; i < NR; i++)
		(void)*(volatile char *)(guest + i * PAGE);
	CHECK(!getrusage(RUSAGE_SELF, &before), "getrusage");
	for (int i = 0; i < NR; i++)
		guest[i * PAGE] = 'w';
	CHECK(!getrusage(RUSAGE_SELF, &after), "getrusage");
	return after.ru_minflt - before.ru_minflt;
}

static void writing_is_as_cheap_after_stop_as_before_start(void)
{
	struct umem_track t;
	char *other;

	setup();
	memset(guest, 'a', NR * PAGE);
	CHECK_EQ(faults_of_writing(), 0);
	track_start();
	collect();
	CHECK_EQ(faults_of_writing(), NR);
	CHECK(!track(UMEM_TRACK_STOP, &t, 0, 0, NULL), "STOP");
	CHECK_EQ(faults_of_writing(), 0);

	track_start();
	other = guest;
	guest = map(region_fd, NR * PAGE);
	munmap(other, NR * PAGE);
	CHECK_EQ(faults_of_writing(), NR);
	close(pager_fd);
	CHECK_EQ(faults_of_writing(), 0);
}

static void the_pagers_end_stops_it(void)
{
	struct umem_track t;
	uint64_t bits;

	setup();
	track_start();
	close(pager_fd);
	pager_fd = pager(region_fd);
	CHECK_ERRNO(track(UMEM_TRACK_COLLECT, &t, 0, PAGE, &bits), ENODATA);
}

static void write_by_cpu(unsigned int *seed)
{
	guest[rand_r(seed) % (NR / 4) * PAGE + rand_r(seed) % PAGE]++;
}

static void write_by_remapping(unsigned int *seed)
{
	uint64_t page = NR / 4 + rand_r(seed) % (NR / 4);
	char *other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, region_fd,
			   page * PAGE);

	CHECK(other != MAP_FAILED, "mmap: %s", strerror(errno));
	other[rand_r(seed) % PAGE]++;
	munmap(other, PAGE);
	if (!(*seed % 8))
		madvise(guest + page * PAGE, PAGE, MADV_DONTNEED);
}

static void write_by_kernel(unsigned int *seed)
{
	char value = rand_r(seed);
	struct iovec from = { &value, 1 };
	struct iovec to = { guest + (NR / 2 + rand_r(seed) % (NR / 4)) * PAGE +
			    rand_r(seed) % PAGE, 1 };

	CHECK_EQ(process_vm_writev(getpid(), &from, 1, &to, 1, 0), 1);
}

/* The file is on a file system that reads into the pages themselves, if one is. */
static void write_by_direct_read(unsigned int *seed)
{
	static int fd = -1;
	uint64_t page = 3 * NR / 4 + rand_r(seed) % (NR / 4);

	if (fd < 0)
		fd = open("/proc/self/exe", O_RDONLY | O_DIRECT | O_CLOEXEC);
	CHECK(fd >= 0, "O_DIRECT: %s", strerror(errno));
	CHECK_EQ(pread(fd, guest + page * PAGE, PAGE, rand_r(seed) % 4 * PAGE), PAGE);
}

static void writers_race_collection(void)
{
	static struct writer writers[] = {
		{ .name = "CPU", .write = write_by_cpu },
		{ .name = "CPU again", .write = write_by_cpu },
		{ .name = "mappings that come and go", .write = write_by_remapping },
		{ .name = "process_vm_writev", .write = write_by_kernel },
		{ .name = "O_DIRECT", .write = write_by_direct_read },
	};

	race(writers, sizeof(writers) / sizeof(*writers));
}

/* Mapped, split, moved, copied by a fork; ended by munmap and by the end of a process. */
static void come_and_go(unsigned int *seed)
{
	char *view = map(region_fd, NR * PAGE), *place = map(region_fd, PAGE);
	pid_t pid;

	view[rand_r(seed) % (NR - 1) * PAGE]++;
	pid = fork();
	CHECK(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		view[rand_r(seed) % (NR - 1) * PAGE]++;
		map(region_fd, NR * PAGE)[rand_r(seed) % (NR - 1) * PAGE]++;
		_exit(0);
	}
	CHECK(!mprotect(view + 3 * PAGE, PAGE, PROT_READ), "mprotect");
	CHECK(mremap(view + 7 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place) == place,
	      "mremap: %s", strerror(errno));
	view[9 * PAGE]++;
	munmap(view + 5 * PAGE, 2 * PAGE);
	munmap(view, NR * PAGE);
	munmap(place, PAGE);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

/* For 10 seconds, or until enough has happened: the kernel may be one that looks for bugs. */
static void views_come_and_go_while_it_starts_and_stops(void)
{
	struct writer writers[3] = { 0 };
	time_t end = time(NULL) + 10;
	unsigned long rounds = 0;
	struct umem_track t;
	char *view;

	setup();
	for (int i = 0; i < 3; i++) {
		writers[i].write = come_and_go;
		CHECK(!pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]),
		      "pthread_create");
	}
	for (; time(NULL) < end || rounds <= 10 || !all_wrote(writers, 3, 10); rounds++) {
		view = map(region_fd, NR * PAGE);
		(void)*(volatile char *)(view + (NR - 1) * PAGE);
		track_start();
		CHECK_EQ(collect(), -1);
		guest[(NR - 1) * PAGE]++;
		CHECK_EQ(collect() >> (NR - 1), 1);
		view[(NR - 1) * PAGE]++;
		CHECK_EQ(collect() >> (NR - 1), 1);
		munmap(view, NR * PAGE);
		CHECK(!track(UMEM_TRACK_STOP, &t, 0, 0, NULL), "STOP");
	}
	race_stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(writers[i].thread, NULL);
	printf("# %lu rounds, views of %lu processes\n", rounds,
	       writers[0].writes + writers[1].writes + writers[2].writes);
}

static const struct test tests[] = {
	TEST(every_page_is_dirty_at_first),
	TEST(a_write_is_told_once),
	TEST(a_read_of_a_mapped_page_is_not_told),
	TEST(read_of_the_region_is_not_told),
	TEST(only_the_range_is_collected),
	TEST(a_write_through_another_mapping_is_told),
	TEST(a_write_through_a_mapping_that_went_is_told),
	TEST(a_write_before_madvise_dontneed_is_told),
	TEST(a_write_through_a_mapping_that_came_and_went_is_told),
	TEST(a_write_after_a_fault_nearby_is_told),
	TEST(a_write_after_a_new_fault_for_reading_is_told),
	TEST(a_write_after_the_mapping_changed_is_told),
	TEST(a_write_before_a_fork_takes_over_is_told),
	TEST(a_write_by_another_process_is_told),
	TEST(a_write_of_the_kernel_is_told),
	TEST(what_the_pager_and_discards_change_is_told),
	TEST(what_was_put_there_before_is_told_when_it_is_shown),
	TEST(a_discard_is_told_though_nobody_maps_it),
	TEST(a_write_through_a_pin_is_told_when_it_ends),
	TEST(nothing_is_lost_if_it_cannot_be_told),
	TEST(start_and_stop),
	TEST(faults_are_as_many_after_stop_as_before_start),
	TEST(writing_is_as_cheap_after_stop_as_before_start),
	TEST(the_pagers_end_stops_it),
	TEST(views_come_and_go_while_it_starts_and_stops),
	TEST(writers_race_collection),
};

TEST_MAIN(tests)
