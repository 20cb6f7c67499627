// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promise 1: nobody sees the contents of a missing page.
 * Promise 2: a present page is never overwritten by the pager.
 */
#include "missing_region.h"
#include <sys/sendfile.h>
#include <sys/stat.h>

static void born_present_and_zero(void)
{
	region_fd = region(NR * PAGE);
	guest = map(region_fd, NR * PAGE);
	for (int i = 0; i < NR; i++)
		CHECK(page_is(guest + i * PAGE, 0), "page %d", i);
	CHECK_EQ(info(region_fd).missing, 0);
}

static void cpu_read_waits(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest + 3 * PAGE);
	serve(&t, 3, 'x');
	CHECK_EQ(t.value, 'x');
	CHECK(page_is(guest + 3 * PAGE, 'x'), "wrong contents");
}

static void cpu_write_waits_and_keeps_the_rest(void)
{
	struct toucher t = { .value = 'w' };

	setup();
	start(&t, touch_write, guest + 3 * PAGE + 5);
	serve(&t, 3, 'x');
	CHECK_EQ(guest[3 * PAGE + 5], 'w');
	CHECK_EQ(guest[3 * PAGE + 4], 'x');
}

static void vm_readv(struct toucher *t)
{
	char byte = 0;
	struct iovec local = { &byte, 1 }, remote = { (void *)t->addr, 1 };

	t->ret = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	t->value = byte;
}

static void process_vm_readv_waits(void)
{
	struct toucher t;

	setup();
	start(&t, vm_readv, guest);
	serve(&t, 0, 'v');
	CHECK_EQ(t.ret, 1);
	CHECK_EQ(t.value, 'v');
}

static void vm_writev(struct toucher *t)
{
	char byte = 'n';
	struct iovec local = { &byte, 1 }, remote = { (void *)t->addr, 1 };

	t->ret = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
}

static void process_vm_writev_waits(void)
{
	struct toucher t;

	setup();
	start(&t, vm_writev, guest);
	serve(&t, 0, 'v');
	CHECK_EQ(t.ret, 1);
	CHECK_EQ(guest[0], 'n');
	CHECK_EQ(guest[1], 'v');
}

static int pipe_fds[2];

static void write_to_pipe(struct toucher *t)
{
	t->ret = write(pipe_fds[1], (void *)t->addr, 10);
}

static void system_call_buffer_waits(void)
{
	struct toucher t;
	char buf[10];

	setup();
	CHECK(!pipe(pipe_fds), "pipe");
	start(&t, write_to_pipe, guest + 2 * PAGE);
	serve(&t, 2, 'p');
	CHECK_EQ(t.ret, 10);
	CHECK_EQ(read(pipe_fds[0], buf, 10), 10);
	CHECK(!memcmp(buf, "pppppppppp", 10), "wrong contents");
}

static void vmsplice_to_pipe(struct toucher *t)
{
	struct iovec iov = { (void *)t->addr, 10 };

	t->ret = vmsplice(pipe_fds[1], &iov, 1, 0);
	t->err = errno;
}

/* GUP as vhost does it: get_user_pages_fast */
static void gup_fast_waits(void)
{
	struct toucher t;
	char buf[10];

	setup();
	CHECK(!pipe(pipe_fds), "pipe");
	start(&t, vmsplice_to_pipe, guest + 2 * PAGE);
	serve(&t, 2, 'g');
	CHECK_EQ(t.ret, 10);
	CHECK_EQ(read(pipe_fds[0], buf, 10), 10);
	CHECK(!memcmp(buf, "gggggggggg", 10), "wrong contents");
}

static void proc_mem_fails(void)
{
	int mem = open("/proc/self/mem", O_RDWR);
	char byte;

	setup();
	CHECK(mem >= 0, "/proc/self/mem");
	CHECK_ERRNO(pread(mem, &byte, 1, (uintptr_t)guest), EIO);
	CHECK_ERRNO(pwrite(mem, &byte, 1, (uintptr_t)guest), EIO);
	CHECK_EQ(info(region_fd).missing, NR * PAGE);
}

static void read_of_the_region_ends_before_a_missing_page(void)
{
	static char buf[4 * PAGE];

	setup();
	CHECK_ERRNO(pread(region_fd, buf, sizeof(buf), 0), EAGAIN);
	CHECK_EQ(copy_byte(pager_fd, 0, 7), 1);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, PAGE, PAGE), 1);
	memset(buf, -1, sizeof(buf));
	CHECK_EQ(pread(region_fd, buf, sizeof(buf), 0), 2 * PAGE);
	CHECK(page_is(buf, 7) && page_is(buf + PAGE, 0), "present pages");
	CHECK(page_is(buf + 2 * PAGE, 0xff), "a missing page was read");
	/* what is filled but not published is nobody's business */
	memset(map(pager_fd, NR * PAGE) + 2 * PAGE, 9, PAGE);
	CHECK_ERRNO(pread(region_fd, buf, PAGE, 2 * PAGE), EAGAIN);
	CHECK_EQ(change(pager_fd, UMEM_POISON, 3 * PAGE, PAGE), 1);
	CHECK_ERRNO(pread(region_fd, buf, PAGE, 3 * PAGE), EIO);
	/* from the middle, to the end, past it */
	CHECK_EQ(pread(region_fd, buf, 10, PAGE - 5), 10);
	CHECK(!memcmp(buf, "\7\7\7\7\7\0\0\0\0\0", 10), "across a page's end");
	CHECK_EQ(copy_byte(pager_fd, (NR - 1) * PAGE, 8), 1);
	CHECK_EQ(pread(region_fd, buf, sizeof(buf), (NR - 1) * PAGE), PAGE);
	CHECK_EQ(pread(region_fd, buf, PAGE, NR * PAGE), 0);
	/* nobody waits, nothing was asked for */
	CHECK_EQ(info(region_fd).faults, 0);
	munmap(guest, NR * PAGE);
	CHECK_ERRNO(pread(region_fd, guest, PAGE, 0), EFAULT);
}

static void read_of_a_hole_does_not_fill_it(void)
{
	char buf[PAGE];
	struct stat st;

	region_fd = region(NR * PAGE);
	CHECK_EQ(pread(region_fd, buf, PAGE, 3 * PAGE), PAGE);
	CHECK(page_is(buf, 0), "a hole");
	CHECK(!fstat(region_fd, &st), "fstat");
	CHECK_EQ(st.st_blocks, 0);
}

static void region_file_has_no_write(void)
{
	char buf[10] = "";

	setup();
	CHECK(!pipe(pipe_fds), "pipe");
	CHECK_ERRNO(write(region_fd, buf, sizeof(buf)), EINVAL);
	CHECK_ERRNO(sendfile(pipe_fds[1], region_fd, NULL, PAGE), EINVAL);
	CHECK_ERRNO(splice(region_fd, NULL, pipe_fds[1], NULL, PAGE, 0), EINVAL);
}

static void private_mapping_is_refused(void)
{
	setup();
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, region_fd, 0), EINVAL);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pager_fd, 0), EINVAL);
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, device(), 0), EINVAL);
}

static void length_does_not_change(void)
{
	setup();
	CHECK_ERRNO(ftruncate(region_fd, 0), EPERM);
	CHECK_ERRNO(ftruncate(region_fd, 2 * NR * PAGE), EPERM);
	CHECK_EQ(lseek(region_fd, 0, SEEK_END), NR * PAGE);
}

static void marking_takes_back_what_is_mapped(void)
{
	struct toucher t;

	setup();
	for (int i = 0; i < NR; i++)
		copy_byte(pager_fd, i * PAGE, 'a' + i);
	for (int i = 0; i < NR; i++)
		CHECK(page_is(guest + i * PAGE, 'a' + i), "page %d", i);
	CHECK_EQ(mark_missing(pager_fd, 4 * PAGE, 2 * PAGE), 2);
	CHECK_EQ(info(region_fd).missing, 2 * PAGE);
	start(&t, touch_read, guest + 5 * PAGE);
	serve(&t, 5, 'N');
	CHECK_EQ(t.value, 'N');
	CHECK(page_is(guest + 6 * PAGE, 'a' + 6), "a neighbour changed");
}

/* Whether this process has the page mapped, by /proc/self/pagemap. */
static bool mapped(char *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry;

	CHECK(fd >= 0, "pagemap");
	CHECK_EQ(pread(fd, &entry, 8, (uintptr_t)addr / PAGE * 8), 8);
	close(fd);
	return entry >> 63;
}

static void fault_around_shows_no_missing_neighbour(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	/* Contents in the page cache, half of them published */
	for (int i = 0; i < NR; i++)
		memset(fill + i * PAGE, 'f', PAGE);
	for (int i = 0; i < NR; i += 2)
		change(pager_fd, UMEM_PUBLISH, i * PAGE, PAGE);
	for (int i = 0; i < NR; i += 2)
		CHECK_EQ(guest[i * PAGE], 'f');
	for (int i = 1; i < NR; i += 2)
		CHECK(!mapped(guest + i * PAGE), "missing page %d is mapped", i);
}

static void filled_but_unpublished_is_not_seen(void)
{
	struct toucher t;
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	memset(fill, 'f', PAGE);
	start(&t, touch_read, guest);
	expect_request(pager_fd, 0);
	expect_waiters(region_fd, 1);
	memset(fill, 'F', PAGE);
	CHECK(!t.done, "it saw an unpublished page");
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, PAGE), 1);
	finish(&t);
	CHECK_EQ(t.value, 'F');
}

static void two_processes_see_one_region(void)
{
	int status;
	pid_t pid;

	setup();
	pid = fork();
	if (!pid) {
		char *mine = map(region_fd, NR * PAGE);

		/* Waits, as the parent does, then tells the parent through the page. */
		if (mine[PAGE] != 'q')
			_exit(1);
		mine[PAGE + 1] = 'c';
		_exit(0);
	}
	expect_request(pager_fd, PAGE);
	CHECK_EQ(copy_byte(pager_fd, PAGE, 'q'), 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(guest[PAGE], 'q');
	CHECK_EQ(guest[PAGE + 1], 'c');
}

static void region_reopens_through_proc(void)
{
	char path[64];
	int fd;

	setup();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", region_fd);
	fd = open(path, O_RDWR);
	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	CHECK_EQ(info(fd).id, info(region_fd).id);
	CHECK_EQ(info(fd).missing, NR * PAGE);
	copy_byte(pager_fd, 0, 'o');
	CHECK(page_is(map(fd, PAGE), 'o'), "another region");
	/* After a hole was punched the file still knows its region. */
	CHECK(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), "punch");
	fd = open(path, O_RDWR);
	CHECK_EQ(info(fd).id, info(region_fd).id);
}

static void copy_leaves_a_present_page_alone(void)
{
	setup();
	CHECK_EQ(copy_byte(pager_fd, 0, '1'), 1);
	guest[7] = 'g';
	CHECK_EQ(copy_byte(pager_fd, 0, '2'), 0);
	CHECK_EQ(guest[7], 'g');
	CHECK_EQ(guest[8], '1');
	CHECK_EQ(info(region_fd).duplicates, 1);
	CHECK_EQ(info(region_fd).copied, 1);
}

static void zero_leaves_a_present_page_alone(void)
{
	setup();
	copy_byte(pager_fd, 0, '1');
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 0, 2 * PAGE), 1);
	CHECK(page_is(guest, '1'), "page 0");
	CHECK(page_is(guest + PAGE, 0), "page 1");
	CHECK_EQ(info(region_fd).duplicates, 1);
	CHECK_EQ(info(region_fd).zeroed, 1);
}

static void zero_erases_what_was_filled(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	memset(fill, 'f', PAGE);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 0, PAGE), 1);
	CHECK(page_is(guest, 0), "what was filled shows");
}

static void fill_view_gives_no_present_page(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	memset(fill, 'f', 2 * PAGE);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, PAGE), 1);
	CHECK_EQ(copy_byte(pager_fd, PAGE, 'c'), 1);

	/* The fill view is the parent's: VM_DONTCOPY, so the child maps its own. */
	for (int i = 0; i < 2; i++) {
		char byte = 'Z';
		struct iovec local = { &byte, 1 }, remote = { fill + i * PAGE, 1 };

		CHECK_ERRNO(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), EFAULT);
		CHECK_ERRNO(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), EFAULT);
	}
	CHECK(page_is(guest, 'f'), "page 0");
	CHECK(page_is(guest + PAGE, 'c'), "page 1");
	CHECK_EQ(fill[2 * PAGE], 0);
}

static volatile sig_atomic_t bus_errors;

static void next_page(int sig, siginfo_t *si, void *ctx)
{
	char *page = (char *)((uintptr_t)si->si_addr & ~(PAGE - 1));

	(void)sig;
	(void)ctx;
	bus_errors++;
	/* Let the store go somewhere else. */
	mmap(page, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static void store_to_present_page_in_fill_view_is_sigbus(void)
{
	struct sigaction sa = { .sa_sigaction = next_page, .sa_flags = SA_SIGINFO };
	volatile char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	sigaction(SIGBUS, &sa, NULL);
	fill[0] = 'f';
	change(pager_fd, UMEM_PUBLISH, 0, PAGE);
	fill[0] = 'X';
	CHECK_EQ(bus_errors, 1);
	CHECK_EQ(guest[0], 'f');
}

static void fill_view_does_not_wait(void)
{
	char *fill;

	setup();
	fill = map(pager_fd, NR * PAGE);
	CHECK(page_is(fill + 3 * PAGE, 0), "fresh page");
	CHECK(!has_event(pager_fd), "the fill view made a request");
}

static void past_the_end_is_sigbus(void)
{
	char *beyond, *fill;

	setup();
	beyond = map(region_fd, (NR + 1) * PAGE);
	fill = map(pager_fd, (NR + 1) * PAGE);
	CHECK_EQ(sigbus_code(beyond + NR * PAGE, false), BUS_ADRERR);
	(void)fill;
}

static void poison_raises_machine_check(void)
{
	setup();
	CHECK_EQ(change(pager_fd, UMEM_POISON, 0, PAGE), 1);
	CHECK_EQ(sigbus_code(guest, false), BUS_MCEERR_AR);
	CHECK_EQ(info(region_fd).poisoned, PAGE);
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
	/* Nothing cures it but a discard or a new mark. */
	CHECK_EQ(copy_byte(pager_fd, 0, 'c'), 0);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 0, PAGE), 0);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, PAGE), 0);
	CHECK_EQ(sigbus_code(guest, true), BUS_MCEERR_AR);
	CHECK_EQ(mark_missing(pager_fd, 0, PAGE), 1);
	CHECK_EQ(copy_byte(pager_fd, 0, 'c'), 1);
	CHECK(page_is(guest, 'c'), "after the cure");
}

static uint64_t bitmap_word(uint32_t kind, uint64_t offset, uint64_t length)
{
	uint64_t word[2] = { ~0ULL, 0x1234 };
	struct umem_bitmap bitmap = { .size = sizeof(bitmap), .kind = kind, .offset = offset,
				      .length = length, .bits = (uintptr_t)word };

	CHECK(!ioctl(pager_fd, UMEM_GET_BITMAP, &bitmap), "UMEM_GET_BITMAP: %s",
	      strerror(errno));
	CHECK_EQ(word[1], 0x1234);
	return word[0];
}

static void bitmaps_tell_the_state(void)
{
	struct toucher t;

	setup();
	copy_byte(pager_fd, 1 * PAGE, 'p');
	copy_byte(pager_fd, 15 * PAGE, 'p');
	change(pager_fd, UMEM_POISON, 4 * PAGE, PAGE);
	start(&t, touch_read, guest + 6 * PAGE);
	expect_request(pager_fd, 6 * PAGE);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_PRESENT, 0, NR * PAGE), 0x8002);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_PRESENT, PAGE, 3 * PAGE), 1);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_POISONED, 0, NR * PAGE), 0x10);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_REQUESTED, 0, NR * PAGE), 0x40);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_REQUESTED, 5 * PAGE, 3 * PAGE), 2);
	copy_byte(pager_fd, 6 * PAGE, 'p');
	finish(&t);
	CHECK_EQ(bitmap_word(UMEM_BITMAP_REQUESTED, 0, NR * PAGE), 0);
}

static void bitmap_of_a_large_region(void)
{
	const uint64_t nr = 100000, words = (nr + 63) / 64;
	uint64_t *bits = calloc(words, 8);
	int fd = region(nr * PAGE), pg = pager(fd);
	struct umem_bitmap bitmap = { .size = sizeof(bitmap), .length = nr * PAGE,
				      .bits = (uintptr_t)bits };

	mark_missing(pg, 0, nr * PAGE);
	change(pg, UMEM_ZERO, 0, PAGE);
	change(pg, UMEM_ZERO, 40000 * PAGE, PAGE);
	change(pg, UMEM_ZERO, (nr - 1) * PAGE, PAGE);
	CHECK(!ioctl(pg, UMEM_GET_BITMAP, &bitmap), "UMEM_GET_BITMAP");
	for (uint64_t i = 0; i < nr; i++)
		CHECK_EQ(bits[i / 64] >> (i % 64) & 1, i == 0 || i == 40000 || i == nr - 1);
	CHECK_EQ(bits[words - 1] >> (nr % 64), 0);
}

static void copy_takes_a_vector(void)
{
	char pages[3 * PAGE];
	struct umem_copy_entry entries[2] = {
		{ 2 * PAGE, (uintptr_t)pages, 2 * PAGE },
		{ 9 * PAGE, (uintptr_t)pages + 2 * PAGE, PAGE },
	};
	struct umem_copy copy = { .size = sizeof(copy), .entries = (uintptr_t)entries,
				  .nr_entries = 2 };

	setup();
	for (int i = 0; i < 3; i++)
		memset(pages + i * PAGE, 'a' + i, PAGE);
	CHECK(!ioctl(pager_fd, UMEM_COPY, &copy), "UMEM_COPY");
	CHECK_EQ(copy.out_pages, 3);
	CHECK(page_is(guest + 2 * PAGE, 'a'), "page 2");
	CHECK(page_is(guest + 3 * PAGE, 'b'), "page 3");
	CHECK(page_is(guest + 9 * PAGE, 'c'), "page 9");
}

static void unpublished_copies_are_shown_by_publish(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest + PAGE);
	expect_request(pager_fd, PAGE);
	for (int byte = 'a'; byte <= 'c'; byte++)
		CHECK_EQ(copy_byte_unpublished(pager_fd, PAGE, byte), 1);
	msleep(50);
	CHECK(!t.done, "it saw what was not published");
	CHECK_EQ(info(region_fd).missing, NR * PAGE);
	CHECK_EQ(info(region_fd).copied, 0);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, PAGE, PAGE), 1);
	finish(&t);
	CHECK(page_is(guest + PAGE, 'c'), "the last copy");
	CHECK(!has_event(pager_fd), "it was asked for again");
}

static void unpublished_zeroes_are_shown_by_publish(void)
{
	setup();
	CHECK_EQ(copy_byte_unpublished(pager_fd, PAGE, 'a'), 1);
	CHECK_EQ(copy_byte_unpublished(pager_fd, 2 * PAGE, 'b'), 1);
	CHECK_EQ(zero_unpublished(pager_fd, 0, 2 * PAGE), 2);
	CHECK_EQ(info(region_fd).missing, NR * PAGE);
	CHECK_EQ(info(region_fd).zeroed, 0);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 0, 4 * PAGE), 4);
	CHECK(page_is(guest, 0) && page_is(guest + PAGE, 0), "zeroes");
	CHECK(page_is(guest + 2 * PAGE, 'b'), "a copy");
	CHECK(page_is(guest + 3 * PAGE, 0), "nothing was put there");
}

static void present_pages_are_not_filled_unpublished(void)
{
	setup();
	CHECK_EQ(copy_byte(pager_fd, 0, 'p'), 1);
	CHECK_EQ(copy_byte_unpublished(pager_fd, 0, 'a'), 0);
	CHECK_EQ(zero_unpublished(pager_fd, 0, PAGE), 0);
	CHECK(page_is(guest, 'p'), "contents");
	CHECK_EQ(info(region_fd).duplicates, 2);
	/* and the other way round: a copy that publishes wins */
	CHECK_EQ(copy_byte_unpublished(pager_fd, PAGE, 'a'), 1);
	CHECK_EQ(copy_byte(pager_fd, PAGE, 'q'), 1);
	CHECK(page_is(guest + PAGE, 'q'), "contents");
	/* what is marked missing again forgets what was put there */
	CHECK_EQ(copy_byte_unpublished(pager_fd, 2 * PAGE, 'a'), 1);
	CHECK_EQ(mark_missing(pager_fd, 2 * PAGE, PAGE), 0);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 2 * PAGE, PAGE), 1);
	CHECK(page_is(guest + 2 * PAGE, 0), "contents");
}

static void copy_reads_unaligned_memory(void)
{
	char buf[2 * PAGE];
	struct umem_copy copy;

	setup();
	memset(buf, 'u', sizeof(buf));
	CHECK(!copy_ioctl(pager_fd, &copy, 0, buf + 123, PAGE), "UMEM_COPY");
	CHECK(page_is(guest, 'u'), "contents");
}

static void copy_tells_how_far_it_came(void)
{
	char *src = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	struct umem_copy copy;

	setup();
	memset(src, 's', 2 * PAGE);
	munmap(src + PAGE, PAGE);
	CHECK_ERRNO(copy_ioctl(pager_fd, &copy, 0, src, 2 * PAGE), EFAULT);
	CHECK_EQ(copy.out_pages, 1);
	CHECK(page_is(guest, 's'), "page 0");
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
}

static void allocation_changes_no_state(void)
{
	struct toucher t;

	setup();
	CHECK(!fallocate(region_fd, 0, 0, NR * PAGE), "fallocate: %s", strerror(errno));
	CHECK_EQ(info(region_fd).missing, NR * PAGE);
	start(&t, touch_read, guest);
	serve(&t, 0, 'a');
	CHECK_EQ(t.value, 'a');
	CHECK_EQ(change(pager_fd, UMEM_ZERO, PAGE, PAGE), 1);
	CHECK(page_is(guest + PAGE, 0), "page 1");
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 2 * PAGE, PAGE), 1);
	CHECK(page_is(guest + 2 * PAGE, 0), "page 2");
	CHECK(page_is(guest, 'a'), "page 0");
}

static void holes_are_told_apart(void)
{
	setup();
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 0, NR * PAGE), NR);
	CHECK_ERRNO(lseek(region_fd, 0, SEEK_DATA), ENXIO);
	CHECK_EQ(lseek(region_fd, PAGE, SEEK_HOLE), PAGE);
	guest[3 * PAGE] = 'w';
	CHECK_EQ(lseek(region_fd, 1, SEEK_DATA), 3 * PAGE);
	CHECK_EQ(lseek(region_fd, 3 * PAGE, SEEK_HOLE), 4 * PAGE);
	CHECK_ERRNO(lseek(region_fd, 4 * PAGE, SEEK_DATA), ENXIO);
	CHECK_ERRNO(lseek(region_fd, NR * PAGE, SEEK_DATA), ENXIO);
	CHECK_ERRNO(lseek(region_fd, -1, SEEK_DATA), ENXIO);
	CHECK_ERRNO(lseek(region_fd, -1, SEEK_HOLE), ENXIO);
}

/* Who skips holes as zeroes must not skip a page that has yet to come. */
static void a_missing_page_is_no_hole(void)
{
	setup();
	CHECK_EQ(lseek(region_fd, 0, SEEK_DATA), 0);
	CHECK_EQ(lseek(region_fd, PAGE + 1, SEEK_DATA), PAGE + 1);
	CHECK_EQ(lseek(region_fd, 0, SEEK_HOLE), NR * PAGE);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 0, 5 * PAGE), 5);
	CHECK_EQ(lseek(region_fd, 0, SEEK_DATA), 5 * PAGE);
	CHECK_EQ(lseek(region_fd, 5 * PAGE, SEEK_HOLE), NR * PAGE);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, 8 * PAGE, PAGE), 1);
	CHECK_EQ(lseek(region_fd, 5 * PAGE, SEEK_HOLE), 8 * PAGE);
	CHECK_EQ(lseek(region_fd, 8 * PAGE, SEEK_DATA), 9 * PAGE);
	CHECK_EQ(change(pager_fd, UMEM_POISON, 9 * PAGE, PAGE), 1);
	CHECK_EQ(lseek(region_fd, 8 * PAGE, SEEK_DATA), 9 * PAGE);
}

static const struct test tests[] = {
	TEST(born_present_and_zero),
	TEST(cpu_read_waits),
	TEST(cpu_write_waits_and_keeps_the_rest),
	TEST(process_vm_readv_waits),
	TEST(process_vm_writev_waits),
	TEST(system_call_buffer_waits),
	TEST(gup_fast_waits),
	TEST(proc_mem_fails),
	TEST(read_of_the_region_ends_before_a_missing_page),
	TEST(read_of_a_hole_does_not_fill_it),
	TEST(region_file_has_no_write),
	TEST(private_mapping_is_refused),
	TEST(length_does_not_change),
	TEST(marking_takes_back_what_is_mapped),
	TEST(fault_around_shows_no_missing_neighbour),
	TEST(filled_but_unpublished_is_not_seen),
	TEST(two_processes_see_one_region),
	TEST(region_reopens_through_proc),
	TEST(copy_leaves_a_present_page_alone),
	TEST(zero_leaves_a_present_page_alone),
	TEST(zero_erases_what_was_filled),
	TEST(fill_view_gives_no_present_page),
	TEST(store_to_present_page_in_fill_view_is_sigbus),
	TEST(fill_view_does_not_wait),
	TEST(past_the_end_is_sigbus),
	TEST(poison_raises_machine_check),
	TEST(bitmaps_tell_the_state),
	TEST(bitmap_of_a_large_region),
	TEST(copy_takes_a_vector),
	TEST(unpublished_copies_are_shown_by_publish),
	TEST(unpublished_zeroes_are_shown_by_publish),
	TEST(present_pages_are_not_filled_unpublished),
	TEST(copy_reads_unaligned_memory),
	TEST(copy_tells_how_far_it_came),
	TEST(allocation_changes_no_state),
	TEST(holes_are_told_apart),
	TEST(a_missing_page_is_no_hole),
};

TEST_MAIN(tests)
