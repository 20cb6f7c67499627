// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a process may do to its mappings: fork, mremap, mlock, mprotect, madvise,
 * userfaultfd and their like. Documentation/memory-operations.rst sums it up.
 */
#include "operations.h"
#include <linux/userfaultfd.h>
#include <sys/mman.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#define GUARD_INSTALL		102	/* MADV_GUARD_INSTALL, since 6.13 */

static char *fill;

/* fork */

static void use_the_inherited_view(void)
{
	CHECK(page_is(guest, *present_byte), "a present page");
	guest[1] = 'c';
	CHECK(page_is(guest + PAGE, 'f'), "a page that came later");
}

static void fork_shares_pages_and_waits(void)
{
	pid_t pid;

	setup_mixed();
	CHECK(page_is(guest, *present_byte), "before");
	pid = child_that_waits(use_the_inherited_view);
	expect_request(pager_fd, PAGE);
	copy_byte(pager_fd, PAGE, 'f');
	expect_exit(pid, 0);
	CHECK_EQ(guest[1], 'c');
}

static void fork_takes_back_what_is_marked(void)
{
	int go[2];
	char byte;
	pid_t pid;

	setup_mixed();
	CHECK(page_is(guest, *present_byte) && !pipe(go), "before");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(go[1]);
		CHECK_EQ(read(go[0], &byte, 1), 0);
		_exit(guest[0] == 'n' ? 0 : 1);
	}
	CHECK_EQ(mark_missing(pager_fd, 0, PAGE), 1);
	close(go[1]);
	expect_request(pager_fd, 0);
	copy_byte(pager_fd, 0, 'n');
	expect_exit(pid, 0);
}

static void touch_the_fill_view(void)
{
	fill[2 * PAGE] = 1;
}

static void fork_leaves_the_fill_view_out(void)
{
	int status;

	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	fill[2 * PAGE] = 'f';
	status = in_child(touch_the_fill_view);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
	CHECK_EQ(fill[2 * PAGE], 'f');
}

/* mremap */

static char *somewhere(void)
{
	char *addr = mmap(NULL, NR * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(addr != MAP_FAILED, "mmap");
	return addr;
}

static void mremap_moves_a_view(void)
{
	char *to = somewhere();

	setup_mixed();
	CHECK_EQ(guest[0], *present_byte);
	CHECK(mremap(guest, NR * PAGE, NR * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
	      "mremap: %s", strerror(errno));
	expect_as_before(to);
}

static void mremap_moves_the_fill_view(void)
{
	char *to = somewhere();

	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	fill[2 * PAGE] = 'f';
	CHECK(mremap(fill, NR * PAGE, NR * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
	      "mremap: %s", strerror(errno));
	CHECK_EQ(to[2 * PAGE], 'f');
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, 2 * PAGE, PAGE), 1);
	CHECK_EQ(guest[2 * PAGE], 'f');
}

static void mremap_shrinks_a_view(void)
{
	setup_mixed();
	CHECK(mremap(guest, NR * PAGE, 2 * PAGE, 0) == guest, "mremap: %s", strerror(errno));
	expect_as_before(guest);
}

static void mremap_grows_and_doubles_no_view(void)
{
	setup_mixed();
	CHECK(mremap(guest, NR * PAGE, 2 * NR * PAGE, MREMAP_MAYMOVE) == MAP_FAILED &&
	      errno == EFAULT, "growing: %s", strerror(errno));
	CHECK(mremap(guest, 0, NR * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT,
	      "doubling: %s", strerror(errno));
	CHECK(mremap(guest, NR * PAGE, NR * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP) ==
	      MAP_FAILED && errno == EINVAL, "doubling: %s", strerror(errno));
	expect_as_before(guest);
}

/* mlock and others that bring pages in */

static void lock_three(struct toucher *t)
{
	t->ret = mlock((void *)t->addr, 3 * PAGE);
}

static void populate_read(struct toucher *t)
{
	t->ret = madvise((void *)t->addr, 3 * PAGE, MADV_POPULATE_READ);
}

static void populate_write(struct toucher *t)
{
	t->ret = madvise((void *)t->addr, 3 * PAGE, MADV_POPULATE_WRITE);
}

static void map_populated(struct toucher *t)
{
	t->addr = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		       region_fd, 0);
	t->ret = t->addr == MAP_FAILED;
}

/* Pages 1 and 2 are asked for, one after the other. */
static void expect_populated(void (*touch)(struct toucher *))
{
	struct toucher t;

	setup_mixed();
	start(&t, touch, guest);
	for (int i = 1; i < 3; i++) {
		expect_request(pager_fd, i * PAGE);
		expect_waiters(region_fd, 1);
		CHECK(!has_event(pager_fd), "more than one page is asked for");
		CHECK(!t.done, "it did not wait");
		copy_byte(pager_fd, i * PAGE, 'l');
	}
	finish(&t);
	CHECK_EQ(t.ret, 0);
	CHECK(page_is(guest, *present_byte) && page_is(guest + 2 * PAGE, 'l'), "contents");
	CHECK_EQ(info(region_fd).missing, (NR - 3) * PAGE);
}

static void mlock_waits(void)
{
	expect_populated(lock_three);
}

static void mlock_all(void)
{
	mlock(guest, NR * PAGE);
}

static void mlock_is_killable(void)
{
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(mlock_all);
	kill(pid, SIGKILL);
	expect_killed(pid, SIGKILL);
}

static void mlock_locks_nothing(void)
{
	setup_mixed();
	CHECK(!mlock(guest, PAGE), "mlock: %s", strerror(errno));
	CHECK(!mlock2(guest, PAGE, MLOCK_ONFAULT), "mlock2: %s", strerror(errno));
	CHECK_EQ(smaps_kib(guest, "Locked"), 0);
	expect_as_before(guest);
}

/* With nothing missing a view may do what any shared memory does, soon after it was made. */
static void complete_views_are_as_any(void)
{
	char *grown;

	region_fd = region(NR * PAGE);
	guest = map(region_fd, NR * PAGE);
	wait_until_relaxed(guest);
	guest[(NR - 1) * PAGE] = 'a';
	grown = mremap(guest, NR * PAGE, 2 * NR * PAGE, MREMAP_MAYMOVE);
	CHECK(grown != MAP_FAILED, "mremap: %s", strerror(errno));
	CHECK_EQ(grown[(NR - 1) * PAGE], 'a');
	CHECK_EQ(sigbus_code(grown + NR * PAGE, false), BUS_ADRERR);
	CHECK(!mlock(grown, PAGE), "mlock: %s", strerror(errno));
	CHECK_EQ(smaps_kib(grown, "Locked"), 4);
}

static void map_populate_waits(void)
{
	expect_populated(map_populated);
}

static void madv_populate_read_waits(void)
{
	expect_populated(populate_read);
}

static void madv_populate_write_waits(void)
{
	expect_populated(populate_write);
}

static void madv_populate_of_a_poisoned_page_fails(void)
{
	setup_mixed();
	CHECK_EQ(change(pager_fd, UMEM_POISON, PAGE, PAGE), 1);
	CHECK_ERRNO(madvise(guest, 2 * PAGE, MADV_POPULATE_READ), EHWPOISON);
}

/* mprotect */

static volatile char *forbidden;
static bool forbidden_write;

static void touch_forbidden(void)
{
	if (forbidden_write)
		*forbidden = 1;
	else
		(void)*forbidden;
}

static void expect_segv(char *addr, bool write)
{
	int status;

	forbidden = addr;
	forbidden_write = write;
	status = in_child(touch_forbidden);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
}

static void mprotect_goes_before_missing(void)
{
	setup_mixed();
	CHECK(!mprotect(guest, NR * PAGE, PROT_NONE), "mprotect: %s", strerror(errno));
	for (int i = 0; i < 2; i++) {
		expect_segv(guest + i * PAGE, false);
		expect_segv(guest + i * PAGE, true);
	}
	CHECK(!mprotect(guest, NR * PAGE, PROT_READ), "mprotect: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		expect_segv(guest + i * PAGE, true);
	CHECK(!mprotect(guest, NR * PAGE, PROT_READ | PROT_WRITE), "mprotect: %s",
	      strerror(errno));
	expect_as_before(guest);
	guest[PAGE] = 'w';
	CHECK_EQ(guest[PAGE], 'w');
}

static void read_only_descriptor_maps_no_writing(void)
{
	char path[64];
	int fd;

	setup_mixed();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", region_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0, "%s: %s", path, strerror(errno));
	CHECK_ERRNO(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
	guest = mmap(NULL, NR * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(guest != MAP_FAILED, "mmap: %s", strerror(errno));
	CHECK_ERRNO(mprotect(guest, PAGE, PROT_READ | PROT_WRITE), EACCES);
	CHECK_ERRNO(madvise(guest, PAGE, MADV_REMOVE), EACCES);
	CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), EBADF);
	expect_as_before(guest);
}

/* madvise, one by one. MADV_DONTNEED and MADV_REMOVE are in discard.c. */

static void expect_advice(int advice, int error)
{
	setup_mixed();
	CHECK_EQ(guest[0], *present_byte);
	if (error)
		CHECK_ERRNO(madvise(guest, NR * PAGE, advice), error);
	else
		CHECK(!madvise(guest, NR * PAGE, advice), "madvise: %s", strerror(errno));
	expect_as_before(guest);
}

#define CHANGES_NOTHING(name, advice)						\
static void madv_##name##_changes_nothing(void) { expect_advice(advice, 0); }
#define IS_REFUSED(name, advice)						\
static void madv_##name##_is_refused(void) { expect_advice(advice, EINVAL); }

CHANGES_NOTHING(normal, MADV_NORMAL)
CHANGES_NOTHING(random, MADV_RANDOM)
CHANGES_NOTHING(sequential, MADV_SEQUENTIAL)
CHANGES_NOTHING(willneed, MADV_WILLNEED)
CHANGES_NOTHING(dontneed_locked, MADV_DONTNEED_LOCKED)
IS_REFUSED(free, MADV_FREE)
CHANGES_NOTHING(hugepage, MADV_HUGEPAGE)
CHANGES_NOTHING(nohugepage, MADV_NOHUGEPAGE)
IS_REFUSED(collapse, MADV_COLLAPSE)
CHANGES_NOTHING(dontdump, MADV_DONTDUMP)
IS_REFUSED(dodump, MADV_DODUMP)
IS_REFUSED(wipeonfork, MADV_WIPEONFORK)
CHANGES_NOTHING(keeponfork, MADV_KEEPONFORK)
CHANGES_NOTHING(cold, MADV_COLD)
CHANGES_NOTHING(pageout, MADV_PAGEOUT)
IS_REFUSED(guard_install, GUARD_INSTALL)

static void madv_mergeable_merges_nothing(void)
{
	char flags[256];

	setup_mixed();
	if (madvise(guest, NR * PAGE, MADV_MERGEABLE)) {
		CHECK_EQ(errno, EINVAL);
		skip("a kernel without KSM");
	}
	smaps(guest, "VmFlags", flags);
	CHECK(!strstr(flags, " mg"), "it is mergeable: %s", flags);
	CHECK(!madvise(guest, NR * PAGE, MADV_UNMERGEABLE), "madvise: %s", strerror(errno));
	expect_as_before(guest);
}

static void touch_guest(void)
{
	(void)*(volatile char *)guest;
}

static void madv_dontfork_leaves_a_view_out(void)
{
	int status;

	setup_mixed();
	CHECK(!madvise(guest, NR * PAGE, MADV_DONTFORK), "madvise: %s", strerror(errno));
	status = in_child(touch_guest);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
	/* Seen on Linux 7.3: it is refused, for mappings like ours. */
	if (madvise(guest, NR * PAGE, MADV_DOFORK))
		CHECK_EQ(errno, EINVAL);
	else
		CHECK_EQ(in_child(touch_guest), 0);
	expect_as_before(guest);
}

/* userfaultfd: it would bring pages past the pager */

static void userfaultfd_is_refused(void)
{
	static const uint64_t modes[] = { UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP,
					  UFFDIO_REGISTER_MODE_MINOR };
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (uffd < 0)
		skip("no userfaultfd here");
	setup_mixed();
	CHECK(!ioctl(uffd, UFFDIO_API, &api), "UFFDIO_API: %s", strerror(errno));
	for (int i = 0; i < 3; i++) {
		struct uffdio_register reg = { .range = { (uintptr_t)guest, NR * PAGE },
					       .mode = modes[i] };

		CHECK_ERRNO(ioctl(uffd, UFFDIO_REGISTER, &reg), EINVAL);
	}
	expect_as_before(guest);
}

/* The rest */

static void mincore_waits_for_nothing(void)
{
	unsigned char in_core[NR];

	setup_mixed();
	CHECK(!mincore(guest, NR * PAGE, in_core), "mincore: %s", strerror(errno));
	CHECK_EQ(in_core[0] & 1, 1);
	CHECK_EQ(in_core[1] & 1, 0);
	expect_as_before(guest);
}

static void msync_and_fsync_do_nothing(void)
{
	setup_mixed();
	CHECK(!msync(guest, NR * PAGE, MS_SYNC), "msync: %s", strerror(errno));
	CHECK(!fsync(region_fd), "fsync: %s", strerror(errno));
	expect_as_before(guest);
}

/* Promise 2: through the fill view, nobody gets at present pages. */
static void fill_view_punches_no_hole(void)
{
	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	CHECK(madvise(fill, 2 * PAGE, MADV_REMOVE), "MADV_REMOVE works");
	expect_as_before(guest);
}

static void fill_view_makes_no_guest_view(void)
{
	setup_mixed();
	fill = map(pager_fd, NR * PAGE);
	CHECK(syscall(SYS_remap_file_pages, fill, PAGE, 0, 0, 0), "remap_file_pages works");
	CHECK_EQ(sigbus_code(guest, false), 0);
	expect_as_before(guest);
}

static const struct test tests[] = {
	TEST(fork_shares_pages_and_waits),
	TEST(fork_takes_back_what_is_marked),
	TEST(fork_leaves_the_fill_view_out),
	TEST(mremap_moves_a_view),
	TEST(mremap_moves_the_fill_view),
	TEST(mremap_shrinks_a_view),
	TEST(mremap_grows_and_doubles_no_view),
	TEST(mlock_waits),
	TEST(mlock_is_killable),
	TEST(mlock_locks_nothing),
	TEST(complete_views_are_as_any),
	TEST(map_populate_waits),
	TEST(mprotect_goes_before_missing),
	TEST(read_only_descriptor_maps_no_writing),
	TEST(madv_normal_changes_nothing),
	TEST(madv_random_changes_nothing),
	TEST(madv_sequential_changes_nothing),
	TEST(madv_willneed_changes_nothing),
	TEST(madv_dontneed_locked_changes_nothing),
	TEST(madv_free_is_refused),
	TEST(madv_dontfork_leaves_a_view_out),
	TEST(madv_mergeable_merges_nothing),
	TEST(madv_hugepage_changes_nothing),
	TEST(madv_nohugepage_changes_nothing),
	TEST(madv_collapse_is_refused),
	TEST(madv_dontdump_changes_nothing),
	TEST(madv_dodump_is_refused),
	TEST(madv_wipeonfork_is_refused),
	TEST(madv_keeponfork_changes_nothing),
	TEST(madv_cold_changes_nothing),
	TEST(madv_pageout_changes_nothing),
	TEST(madv_guard_install_is_refused),
	TEST(madv_populate_read_waits),
	TEST(madv_populate_write_waits),
	TEST(madv_populate_of_a_poisoned_page_fails),
	TEST(userfaultfd_is_refused),
	TEST(mincore_waits_for_nothing),
	TEST(msync_and_fsync_do_nothing),
	TEST(fill_view_punches_no_hole),
	TEST(fill_view_makes_no_guest_view),
};

TEST_MAIN(tests)
