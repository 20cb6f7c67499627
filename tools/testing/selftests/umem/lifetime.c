// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promise 7: the module cannot be unloaded under a region; memory is charged to
 * the region's creator; regions are limited in number and in length. And what
 * belongs to whom: ids, descriptors, mappings of /dev/umem.
 */
#include "umem_selftest.h"
#include <sys/mount.h>
#include <sys/stat.h>
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

static void ids_are_for_the_creator(void)
{
	struct umem_open open = { .size = sizeof(open) };
	int dev = device(), status;
	uint32_t id;
	pid_t pid;

	region_id(NR * PAGE, &id);
	open.id = id;
	CHECK(!ioctl(dev, UMEM_OPEN, &open), "UMEM_OPEN by its creator: %s", strerror(errno));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		CHECK(!setgid(65534) && !setuid(65534), "setuid");
		CHECK_ERRNO(ioctl(dev, UMEM_OPEN, &open), EPERM);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void a_stranger_cannot_reopen_it(void)
{
	int fd = region(NR * PAGE);
	struct stat st;

	CHECK(!fstat(fd, &st), "fstat");
	CHECK_EQ(st.st_size, NR * PAGE);
	CHECK_EQ(st.st_mode, S_IFREG | 0600);
	CHECK_EQ(st.st_uid, geteuid());
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

static void set_parameter(const char *name, unsigned long value)
{
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/umem/parameters/%s", name);
	file = fopen(path, "w");
	if (!file)
		skip("cannot set the module's parameters");
	fprintf(file, "%lu\n", value);
	CHECK(!fclose(file), "%s", path);
}

static int create(uint64_t length)
{
	struct umem_create create = { .size = sizeof(create), .length = length };

	return ioctl(device(), UMEM_CREATE, &create) ? -1 : create.out_fd;
}

static void regions_are_limited_in_number(void)
{
	int fds[3];

	set_parameter("max_regions", 2);
	for (int i = 0; i < 2; i++)
		fds[i] = create(PAGE);
	fds[2] = create(PAGE);
	int err = errno;

	set_parameter("max_regions", 4096);
	CHECK(fds[0] >= 0 && fds[1] >= 0, "within the limit");
	CHECK(fds[2] < 0 && err == ENOSPC, "%s", strerror(err));
	CHECK(create(PAGE) >= 0, "after the limit was raised: %s", strerror(errno));
}

static void regions_are_limited_in_length(void)
{
	int one, two, three, err;

	set_parameter("max_mib", 4);
	one = create(3 << 20);
	two = create(2 << 20);
	err = errno;
	close(one);
	three = create(4 << 20);
	set_parameter("max_mib", 16 << 20);
	CHECK(one >= 0, "within the limit");
	CHECK(two < 0 && err == ENOSPC, "%s", strerror(err));
	CHECK(three >= 0, "a closed region still counts");
}

#define CGROUP "/tmp/umem-cgroup"

static unsigned long charged(const char *group)
{
	char path[128], line[64];
	unsigned long pages = 0;
	FILE *file;

	snprintf(path, sizeof(path), CGROUP "/%s/memory.stat", group);
	file = fopen(path, "r");
	CHECK(file, "%s", path);
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "shmem %lu", &pages) == 1)
			break;
	fclose(file);
	return pages;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) > 0, "%s: %s", path, strerror(errno));
	close(fd);
}

static void join_cgroup(const char *group)
{
	char path[128];

	snprintf(path, sizeof(path), CGROUP "/%s/cgroup.procs", group);
	write_file(path, "0");
}

/* Created in one cgroup; filled by a pager and touched by a guest in another. */
static void the_creator_pays(void)
{
	const int pages = 512;
	unsigned long creator, other;
	char *guest;
	int fd, pg;

	mkdir(CGROUP, 0700);
	if (mount("none", CGROUP, "cgroup2", 0, NULL))
		skip("no cgroup2 to mount");
	write_file(CGROUP "/cgroup.subtree_control", "+memory");
	mkdir(CGROUP "/creator", 0700);
	mkdir(CGROUP "/other", 0700);

	join_cgroup("creator");
	fd = region(pages * PAGE);
	join_cgroup("other");
	pg = pager(fd);
	guest = map(fd, pages * PAGE);
	mark_missing(pg, 0, pages / 2 * PAGE);
	for (int i = 0; i < pages / 2; i++)
		copy_byte(pg, i * PAGE, 'c');
	for (int i = pages / 2; i < pages; i++)
		guest[i * PAGE] = 't';
	creator = charged("creator");
	other = charged("other");

	write_file(CGROUP "/cgroup.procs", "0");
	munmap(guest, pages * PAGE);
	close(pg);
	close(fd);
	rmdir(CGROUP "/creator");
	rmdir(CGROUP "/other");
	umount(CGROUP);
	/* The counters of a cgroup are exact to a batch of a processor. */
	CHECK(creator >= (pages - 64) * PAGE, "the creator is charged %lu KiB", creator / 1024);
	CHECK(other <= 64 * PAGE, "another cgroup is charged %lu KiB", other / 1024);
}

static const struct test tests[] = {
	TEST(region_fd_pins_the_module),
	TEST(mapping_pins_the_module),
	TEST(pager_pins_the_module),
	TEST(waiter_without_a_descriptor_pins_the_module),
	TEST(region_lives_as_long_as_its_pager),
	TEST(closed_region_is_gone),
	TEST(ids_are_for_the_creator),
	TEST(a_stranger_cannot_reopen_it),
	TEST(mapping_the_device_makes_a_region),
	TEST(regions_are_limited_in_number),
	TEST(regions_are_limited_in_length),
	TEST(the_creator_pays),
};

TEST_MAIN(tests)
