// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may, and who pays: the device, ids of regions, user namespaces, limits, and
 * memory cgroups. Documentation/memory-operations.rst sums it up.
 */
#include "cgroup.h"
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>

#define STRANGER	65534

static int dev;
static uint32_t id;

static void become(uid_t uid)
{
	CHECK(!setgroups(0, NULL) && !setgid(uid) && !setuid(uid), "setuid: %s", strerror(errno));
	/* or not even its own /proc/self is open to it */
	CHECK(!prctl(PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE");
}

static int open_id(void)
{
	struct umem_open open = { .size = sizeof(open), .id = id };

	return ioctl(dev, UMEM_OPEN, &open);
}

/* A region fd, or -1 */
static int create(uint64_t length)
{
	struct umem_create create = { .size = sizeof(create), .length = length };

	if (ioctl(dev, UMEM_CREATE, &create))
		return -1;
	id = create.out_id;
	return create.out_fd;
}

/* The device */

static void open_device_as_stranger(void)
{
	become(STRANGER);
	CHECK_ERRNO(open("/dev/umem", O_RDWR), EACCES);
	CHECK_ERRNO(open("/dev/umem", O_RDONLY), EACCES);
}

static void device_is_for_its_owner_and_group(void)
{
	struct stat st;

	CHECK(!stat("/dev/umem", &st), "/dev/umem: %s", strerror(errno));
	CHECK_EQ(st.st_mode, S_IFCHR | 0660);
	CHECK_EQ(st.st_uid, 0);
	CHECK_EQ(in_child(open_device_as_stranger), 0);
}

/* Ids and files */

static void open_id_as_stranger(void)
{
	become(STRANGER);
	CHECK_ERRNO(open_id(), EPERM);
}

static void ids_are_for_the_creator(void)
{
	dev = device();
	region_id(NR * PAGE, &id);
	CHECK(!open_id(), "by its creator: %s", strerror(errno));
	CHECK_EQ(in_child(open_id_as_stranger), 0);
}

static void create_as_stranger(void)
{
	become(STRANGER);
	region_fd = create(NR * PAGE);
	CHECK(region_fd >= 0, "UMEM_CREATE: %s", strerror(errno));
	CHECK(!open_id(), "by its creator: %s", strerror(errno));
}

static void ids_are_for_the_administrator(void)
{
	int out[2];
	pid_t pid;

	dev = device();
	CHECK(!pipe(out), "pipe");
	fflush(stdout);
	pid = fork();
	if (!pid) {
		create_as_stranger();
		CHECK_EQ(write(out[1], &id, sizeof(id)), sizeof(id));
		pause();
	}
	close(out[1]);
	CHECK_EQ(read(out[0], &id, sizeof(id)), sizeof(id));
	CHECK(!open_id(), "UMEM_OPEN: %s", strerror(errno));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void reopen_as_stranger(void)
{
	char path[64];

	become(STRANGER);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", region_fd);
	CHECK_ERRNO(open(path, O_RDONLY), EACCES);
	CHECK_ERRNO(open(path, O_RDWR), EACCES);
}

static void a_stranger_cannot_reopen_it(void)
{
	struct stat st;

	region_fd = region(NR * PAGE);
	CHECK(!fstat(region_fd, &st), "fstat");
	CHECK_EQ(st.st_size, NR * PAGE);
	CHECK_EQ(st.st_mode, S_IFREG | 0600);
	CHECK_EQ(st.st_uid, geteuid());
	CHECK_EQ(in_child(reopen_as_stranger), 0);
}

/* User namespaces: the stranger becomes root of one. */

static void become_root_of_a_namespace(void)
{
	char map[32];

	if (unshare(CLONE_NEWUSER))
		skip("no user namespaces for users");
	snprintf(map, sizeof(map), "0 %d 1", STRANGER);
	write_file("/proc/self/uid_map", map);
	CHECK_EQ(geteuid(), 0);
}

static void open_id_as_root_of_a_namespace(void)
{
	become(STRANGER);
	become_root_of_a_namespace();
	CHECK_ERRNO(open_id(), EPERM);
}

static void root_of_a_user_namespace_is_a_stranger(void)
{
	dev = device();
	region_id(NR * PAGE, &id);
	skip_as(in_child(open_id_as_root_of_a_namespace));
}

static void create_and_go_to_a_namespace(void)
{
	int other;

	become(STRANGER);
	other = create(NR * PAGE);
	CHECK(other >= 0, "UMEM_CREATE: %s", strerror(errno));
	become_root_of_a_namespace();
	CHECK(!open_id(), "UMEM_OPEN: %s", strerror(errno));
	CHECK(create(NR * PAGE) >= 0, "UMEM_CREATE: %s", strerror(errno));
	CHECK(!open_id(), "UMEM_OPEN: %s", strerror(errno));
}

static void a_creator_stays_one_in_a_user_namespace(void)
{
	dev = device();
	skip_as(in_child(create_and_go_to_a_namespace));
}

/* Limits */

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

static unsigned long parameter(const char *name)
{
	char path[96];
	unsigned long value;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/umem/parameters/%s", name);
	file = fopen(path, "r");
	CHECK(file && fscanf(file, "%lu", &value) == 1, "%s", path);
	fclose(file);
	return value;
}

static void regions_are_limited_in_number(void)
{
	unsigned long before = parameter("max_regions");
	int fds[3], err;

	dev = device();
	set_parameter("max_regions", 2);
	for (int i = 0; i < 2; i++)
		fds[i] = create(PAGE);
	fds[2] = create(PAGE);
	err = errno;
	set_parameter("max_regions", before);
	CHECK(fds[0] >= 0 && fds[1] >= 0, "within the limit");
	CHECK(fds[2] < 0 && err == ENOSPC, "%s", strerror(err));
	CHECK(create(PAGE) >= 0, "after the limit was raised: %s", strerror(errno));
}

static void regions_are_limited_in_length(void)
{
	unsigned long before = parameter("max_mib");
	int one, two, three, err;

	dev = device();
	set_parameter("max_mib", 4);
	one = create(3 << 20);
	two = create(2 << 20);
	err = errno;
	close(one);
	three = create(4 << 20);
	set_parameter("max_mib", before);
	CHECK(one >= 0, "within the limit");
	CHECK(two < 0 && err == ENOSPC, "%s", strerror(err));
	CHECK(three >= 0, "a closed region still counts");
}

static void create_three_as_stranger(void)
{
	int one, two;

	become(STRANGER);
	one = create(PAGE);
	two = create(PAGE);
	CHECK(one >= 0 && two >= 0, "within the limit: %s", strerror(errno));
	CHECK_ERRNO(create(PAGE), ENOSPC);
	close(one);
	CHECK(create(PAGE) >= 0, "a closed region still counts: %s", strerror(errno));
}

static void regions_of_a_user_are_limited_in_number(void)
{
	unsigned long before = parameter("max_user_regions");
	int status, fds[3];

	dev = device();
	set_parameter("max_user_regions", 2);
	/* Whoever may go beyond limits of resources may here, and counts for himself. */
	for (int i = 0; i < 3; i++)
		fds[i] = create(PAGE);
	status = in_child(create_three_as_stranger);
	set_parameter("max_user_regions", before);
	for (int i = 0; i < 3; i++)
		CHECK(fds[i] >= 0, "the administrator");
	CHECK_EQ(status, 0);
}

/* Memory cgroups. Their counters are exact to a batch of a processor. */

#define PAGES	512
#define BATCH	(64 * PAGE)

static void expect_charged(unsigned long before, unsigned long creator)
{
	unsigned long now = cgroup_stat("creator/memory.stat", "shmem") - before;
	unsigned long other = cgroup_stat("other/memory.stat", "shmem");

	CHECK(now + BATCH >= creator, "the creator is charged %lu KiB", now / 1024);
	CHECK(other <= BATCH, "another group is charged %lu KiB", other / 1024);
}

/* Each way to allocate pages, taken by a pager and a guest in another group. */
static void the_creator_pays(void)
{
	unsigned long before = 0;
	const uint64_t quarter = PAGES * PAGE;
	char *fill;

	cgroup_setup();
	cgroup_join("creator");
	region_fd = region(4 * quarter);
	cgroup_join("other");
	pager_fd = pager(region_fd);
	guest = map(region_fd, 4 * quarter);
	mark_missing(pager_fd, 0, 2 * quarter);
	for (int i = 0; i < PAGES; i++)
		copy_byte(pager_fd, i * PAGE, 'c');
	expect_charged(before, quarter);
	before += quarter;

	fill = map(pager_fd, 4 * quarter);
	for (int i = 0; i < PAGES; i++)
		fill[quarter + i * PAGE] = 'f';
	expect_charged(before, quarter);
	before += quarter;

	for (int i = 0; i < PAGES; i++)
		guest[2 * quarter + i * PAGE] = 'g';
	expect_charged(before, quarter);
	before += quarter;

	CHECK(!fallocate(region_fd, 0, 3 * quarter, quarter), "fallocate: %s", strerror(errno));
	expect_charged(before, quarter);
	munmap(fill, 4 * quarter);
	munmap(guest, 4 * quarter);
	close(pager_fd);
	close(region_fd);
	cgroup_teardown();
}

#define LIMIT		"8M"
#define LIMIT_PAGES	(8UL << 20 >> UMEM_PAGE_SHIFT)

/* A region of twice what the creator's group may have; this process is in another. */
static void limited_setup(void)
{
	cgroup_setup();
	cgroup_join("creator");
	region_fd = region(2 * LIMIT_PAGES * PAGE);
	cgroup_join("other");
	pager_fd = pager(region_fd);
	guest = map(region_fd, 2 * LIMIT_PAGES * PAGE);
	cgroup_write("creator/memory.max", LIMIT);
	if (!access(CGROUP "/creator/memory.swap.max", F_OK))
		cgroup_write("creator/memory.swap.max", "0");
}

/* Fill what the region misses, but its last page; returns an errno. */
static int fill_missing(struct umem_copy *copy)
{
	const uint64_t length = (2 * LIMIT_PAGES - 1) * PAGE;
	char *zeroes = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err = copy_ioctl(pager_fd, copy, 0, zeroes, length) ? errno : 0;

	munmap(zeroes, length);
	return err;
}

static int fill_all(void)
{
	struct umem_copy copy;

	mark_missing(pager_fd, 0, 2 * LIMIT_PAGES * PAGE);
	return fill_missing(&copy);
}

static void wait_in_the_creators_group(void)
{
	cgroup_join("creator");
	(void)*(volatile char *)(guest + (2 * LIMIT_PAGES - 1) * PAGE);
}

/* What the pager fills goes beyond the creator's limit: the creator's group is at fault. */
static void oom_kill_ends_a_wait_and_hits_the_creators_group(void)
{
	int status, err;
	pid_t pid;

	limited_setup();
	mark_missing(pager_fd, (2 * LIMIT_PAGES - 1) * PAGE, PAGE);
	pid = child_that_waits(wait_in_the_creators_group);
	err = fill_all();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
	CHECK_EQ(info(region_fd).waiters, 0);
	/* With nobody left there the pager is told. */
	CHECK_EQ(err, ENOMEM);
	munmap(guest, 2 * LIMIT_PAGES * PAGE);
	close(pager_fd);
	close(region_fd);
	cgroup_teardown();
}

static sigjmp_buf after_sigbus;

static void jump(int sig, siginfo_t *si, void *ctx)
{
	(void)sig;
	(void)ctx;
	siglongjmp(after_sigbus, si->si_code);
}

/* As sigbus_code(), of a store to a mapping that a child does not have */
static int sigbus_here(volatile char *addr)
{
	struct sigaction sa = { .sa_sigaction = jump, .sa_flags = SA_SIGINFO };
	int code = sigsetjmp(after_sigbus, 1);

	CHECK(!sigaction(SIGBUS, &sa, NULL), "sigaction");
	if (!code)
		*addr = 1;
	return code;
}

/* The limit is reached, and no process is left in the group: SIGBUS, not a fault for ever. */
static void memory_the_creator_cannot_have_is_sigbus(void)
{
	struct umem_copy copy;
	char *fill;

	limited_setup();
	CHECK_EQ(fill_all(), ENOMEM);
	/* What another CPU had in store for the group comes late, and fills some pages more. */
	do {
		msleep(100);
		CHECK_EQ(fill_missing(&copy), ENOMEM);
	} while (copy.out_pages);
	fill = map(pager_fd, 2 * LIMIT_PAGES * PAGE);
	CHECK_EQ(sigbus_here(fill + (2 * LIMIT_PAGES - 1) * PAGE), BUS_ADRERR);
	CHECK_EQ(change(pager_fd, UMEM_ZERO, (2 * LIMIT_PAGES - 1) * PAGE, PAGE), 1);
	CHECK_EQ(sigbus_code(guest + (2 * LIMIT_PAGES - 1) * PAGE, true), BUS_ADRERR);
	CHECK_EQ(cgroup_stat("other/memory.events", "oom_kill"), 0);
	munmap(fill, 2 * LIMIT_PAGES * PAGE);
	munmap(guest, 2 * LIMIT_PAGES * PAGE);
	close(pager_fd);
	close(region_fd);
	cgroup_teardown();
}

static const struct test tests[] = {
	TEST(device_is_for_its_owner_and_group),
	TEST(ids_are_for_the_creator),
	TEST(ids_are_for_the_administrator),
	TEST(a_stranger_cannot_reopen_it),
	TEST(root_of_a_user_namespace_is_a_stranger),
	TEST(a_creator_stays_one_in_a_user_namespace),
	TEST(regions_are_limited_in_number),
	TEST(regions_are_limited_in_length),
	TEST(regions_of_a_user_are_limited_in_number),
	TEST(the_creator_pays),
	TEST(oom_kill_ends_a_wait_and_hits_the_creators_group),
	TEST(memory_the_creator_cannot_have_is_sigbus),
};

TEST_MAIN(tests)
