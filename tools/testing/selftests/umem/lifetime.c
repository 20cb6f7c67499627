// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promise 7: the module cannot be unloaded under a region. And how long regions, their
 * ids and what maps them live. Who may and who pays is in owner.c.
 */
#include "umem_selftest.h"
#include <sys/syscall.h>

#define NR 16

static int unload(void)
{
	return syscall(SYS_delete_module, "umem", O_NONBLOCK);
}

/* The files of the last test may still be on their way out. */
static void expect_busy(void)
{
	CHECK(unload(), "the module is gone");
	CHECK(errno == EWOULDBLOCK || errno == EBUSY, "%s", strerror(errno));
}

static void region_fd_pins_the_module(void)
{
	int fd = region(NR * PAGE);

	expect_busy();
	CHECK_EQ(info(fd).length, NR * PAGE);
}

static void mapping_pins_the_module(void)
{
	int fd = region(NR * PAGE);
	char *guest = map(fd, NR * PAGE);

	close(fd);
	guest[0] = 1;
	expect_busy();
	CHECK_EQ(guest[0], 1);
	CHECK_EQ(guest[PAGE], 0);
}

static void pager_pins_the_module(void)
{
	int fd = region(NR * PAGE), pg = pager(fd);

	close(fd);
	expect_busy();
	CHECK_EQ(mark_missing(pg, 0, NR * PAGE), NR);
}

static void waiter_without_a_descriptor_pins_the_module(void)
{
	int fd = region(NR * PAGE), pg = pager(fd), status;
	char *guest = map(fd, NR * PAGE);
	struct toucher t;
	pid_t pid;

	mark_missing(pg, 0, NR * PAGE);
	close(pg);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		start(&t, touch_read, guest);
		expect_waiters(fd, 1);
		munmap(guest, NR * PAGE);
		close(fd);
		_exit(syscall(SYS_delete_module, "umem", O_NONBLOCK) ? 0 : 1);
	}
	munmap(guest, NR * PAGE);
	close(fd);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "status %x", status);
}

static void region_lives_as_long_as_its_pager(void)
{
	uint32_t id;
	int fd = region_id(NR * PAGE, &id), pg = pager(fd);
	struct umem_open open = { .size = sizeof(open), .id = id };

	mark_missing(pg, 0, NR * PAGE);
	copy_byte(pg, 0, 'r');
	close(fd);
	CHECK(!ioctl(device(), UMEM_OPEN, &open), "UMEM_OPEN: %s", strerror(errno));
	CHECK(page_is(map(open.out_fd, PAGE), 'r'), "contents");
}

static void closed_region_is_gone(void)
{
	uint32_t id;
	struct umem_open open = { .size = sizeof(open) };
	int fd = region_id(NR * PAGE, &id);

	close(fd);
	open.id = id;
	CHECK_ERRNO(ioctl(device(), UMEM_OPEN, &open), ENOENT);
}

static void mapping_the_device_makes_a_region(void)
{
	struct umem_info info_arg = { .size = sizeof(info_arg) };
	int dev = device();
	char *first, *second;

	CHECK_ERRNO(ioctl(dev, UMEM_INFO, &info_arg), ENXIO);
	CHECK_ERRNO(lseek(dev, 0, SEEK_END), ESPIPE);
	first = map(dev, NR * PAGE);
	first[0] = 'd';
	CHECK_EQ(info(dev).length, NR * PAGE);
	second = map(dev, NR * PAGE);
	CHECK_EQ(second[0], 'd');
	CHECK_EQ(mark_missing(pager(dev), 0, PAGE), 1);
	/* Another descriptor makes another region. */
	CHECK_EQ(map(device(), NR * PAGE)[0], 0);
	CHECK_EQ(first[PAGE], 0);
}

static const struct test tests[] = {
	TEST(region_fd_pins_the_module),
	TEST(mapping_pins_the_module),
	TEST(pager_pins_the_module),
	TEST(waiter_without_a_descriptor_pins_the_module),
	TEST(region_lives_as_long_as_its_pager),
	TEST(closed_region_is_gone),
	TEST(mapping_the_device_makes_a_region),
};

TEST_MAIN(tests)
