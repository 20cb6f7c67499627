// SPDX-License-Identifier: GPL-2.0-only
/*
 * Ways to a page other than the processor's own access: debuggers, dumps, io_uring,
 * O_DIRECT, pipes, futexes, vhost. Documentation/memory-operations.rst sums it up.
 */
#include "operations.h"
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>

static int pipe_fds[2];

static void touch_page_1(void)
{
	(void)*(volatile char *)(guest + PAGE);
}

static void touch_page_1_in_a_system_call(void)
{
	unlink(guest + PAGE);
}

/* Give page 1 to the child that waits for it, and see it end. */
static void answer_child(pid_t pid)
{
	expect_request(pager_fd, PAGE);
	CHECK_EQ(copy_byte(pager_fd, PAGE, 0), 1);
	expect_exit(pid, 0);
}

/* /proc/PID/mem of a missing page is in presence.c */
static void proc_mem_shows_present_pages(void)
{
	int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	char byte = 0;

	setup_mixed();
	CHECK(mem >= 0, "/proc/self/mem");
	CHECK_EQ(pread(mem, &byte, 1, (uintptr_t)guest), 1);
	CHECK_EQ(byte, *present_byte);
	CHECK_EQ(pwrite(mem, &byte, 1, (uintptr_t)guest), 1);
	expect_as_before(guest);
}

/* Debuggers */

static void stop(pid_t pid)
{
	int status;

	CHECK(!ptrace(PTRACE_SEIZE, pid, NULL, NULL), "PTRACE_SEIZE: %s", strerror(errno));
	CHECK(!ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), "PTRACE_INTERRUPT");
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSTOPPED(status), "status %x", status);
}

static void ptrace_stops_a_waiter_and_sees_present_pages(void)
{
	uint64_t word = 0x7070707070707070;
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(touch_page_1);
	stop(pid);
	CHECK_EQ(info(region_fd).waiters, 0);
	errno = 0;
	CHECK_EQ(ptrace(PTRACE_PEEKDATA, pid, guest, NULL), word);
	CHECK(!errno, "a present page: %s", strerror(errno));
	CHECK(!ptrace(PTRACE_POKEDATA, pid, guest, word), "a present page: %s", strerror(errno));
	CHECK_ERRNO(ptrace(PTRACE_PEEKDATA, pid, guest + PAGE, NULL), EIO);
	CHECK_ERRNO(ptrace(PTRACE_POKEDATA, pid, guest + PAGE, word), EIO);
	CHECK(!ptrace(PTRACE_DETACH, pid, NULL, NULL), "PTRACE_DETACH");
	expect_waiters(region_fd, 1);
	answer_child(pid);
}

/* What a program like gcore does: stop it, and read what a core dump would have. */
static void gcore_leaves_guest_memory_out(void)
{
	char flags[256], path[64], page[PAGE];
	pid_t pid;
	int mem;

	setup_mixed();
	smaps(guest, "VmFlags", flags);
	CHECK(strstr(flags, " dd"), "it would be dumped: %s", flags);
	pid = child_that_waits(touch_page_1);
	stop(pid);
	/* and if it is told to dump such mappings as well, it does not wait */
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	mem = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_EQ(pread(mem, page, PAGE, (uintptr_t)guest), PAGE);
	CHECK(page_is(page, *present_byte), "the present page");
	CHECK_ERRNO(pread(mem, page, PAGE, (uintptr_t)guest + PAGE), EIO);
	CHECK(!ptrace(PTRACE_DETACH, pid, NULL, NULL), "PTRACE_DETACH");
	expect_waiters(region_fd, 1);
	answer_child(pid);
}

/* Core dumps */

#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"
#define CORE		"/tmp/umem-selftest-core"
#define CORE_PAGES	4096

static char core_pattern[256];

static void abort_while_a_thread_waits(void)
{
	static const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct toucher t;

	CHECK(!setrlimit(RLIMIT_CORE, &unlimited), "RLIMIT_CORE");
	start(&t, touch_read, guest + (CORE_PAGES - 1) * PAGE);
	expect_waiters(region_fd, 1);
	abort();
}

static void core_dump_leaves_guest_memory_out(void)
{
	int fd = open(CORE_PATTERN, O_RDONLY | O_CLOEXEC), status;
	char path[64];
	struct stat st;
	pid_t pid;

	if (fd < 0 || read(fd, core_pattern, sizeof(core_pattern) - 1) <= 0)
		skip("no " CORE_PATTERN);
	close(fd);
	region_fd = region(CORE_PAGES * PAGE);
	pager_fd = pager(region_fd);
	guest = map(region_fd, CORE_PAGES * PAGE);
	memset(guest, 'p', CORE_PAGES / 2 * PAGE);
	mark_missing(pager_fd, CORE_PAGES / 2 * PAGE, CORE_PAGES / 2 * PAGE);

	write_file(CORE_PATTERN, CORE ".%p");
	fflush(stdout);
	pid = fork();
	if (!pid)
		abort_while_a_thread_waits();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	write_file(CORE_PATTERN, core_pattern);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %x", status);
	CHECK(WCOREDUMP(status), "no core was dumped");
	snprintf(path, sizeof(path), CORE ".%d", pid);
	CHECK(!stat(path, &st), "%s: %s", path, strerror(errno));
	CHECK(st.st_blocks * 512 < CORE_PAGES / 2 * (long)PAGE, "it has %ld bytes",
	      st.st_blocks * 512L);
	unlink(path);
	CHECK_EQ(info(region_fd).waiters, 0);
	CHECK_EQ(info(region_fd).missing, CORE_PAGES / 2 * PAGE);
}

/* io_uring */

static struct io_uring_params ring_params;
static char *ring_sq, *ring_cq;
static struct io_uring_sqe *ring_sqes;
static int ring_fd;

static void ring_setup(void)
{
	const struct io_sqring_offsets *sq = &ring_params.sq_off;
	const struct io_cqring_offsets *cq = &ring_params.cq_off;

	ring_fd = syscall(SYS_io_uring_setup, 4, &ring_params);
	if (ring_fd < 0)
		skip("no io_uring here");
	ring_sq = mmap(NULL, sq->array + ring_params.sq_entries * 4, PROT_READ | PROT_WRITE,
		       MAP_SHARED, ring_fd, IORING_OFF_SQ_RING);
	ring_cq = mmap(NULL, cq->cqes + ring_params.cq_entries * sizeof(struct io_uring_cqe),
		       PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_CQ_RING);
	ring_sqes = mmap(NULL, ring_params.sq_entries * sizeof(*ring_sqes),
			 PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, IORING_OFF_SQES);
	CHECK(ring_sq != MAP_FAILED && ring_cq != MAP_FAILED && ring_sqes != MAP_FAILED, "mmap");
}

static void ring_submit(struct io_uring_sqe sqe)
{
	atomic_uint *tail = (atomic_uint *)(ring_sq + ring_params.sq_off.tail);

	ring_sqes[0] = sqe;
	*(uint32_t *)(ring_sq + ring_params.sq_off.array +
		      (*tail & (ring_params.sq_entries - 1)) * 4) = 0;
	++*tail;
	CHECK_EQ(syscall(SYS_io_uring_enter, ring_fd, 1, 0, 0, NULL, 0), 1);
}

static int ring_wait(void)
{
	atomic_uint *head = (atomic_uint *)(ring_cq + ring_params.cq_off.head);
	struct io_uring_cqe *cqe;

	CHECK_EQ(syscall(SYS_io_uring_enter, ring_fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0), 0);
	cqe = (struct io_uring_cqe *)(ring_cq + ring_params.cq_off.cqes) +
	      (*head & (ring_params.cq_entries - 1));
	++*head;
	return cqe->res;
}

static struct io_uring_sqe read_into(int opcode, char *addr)
{
	CHECK(!pipe(pipe_fds), "pipe");
	CHECK_EQ(write(pipe_fds[1], "uuuu", 4), 4);
	return (struct io_uring_sqe){ .opcode = opcode, .flags = IOSQE_ASYNC, .fd = pipe_fds[0],
				      .addr = (uintptr_t)addr, .len = 4, .off = -1 };
}

static void io_uring_read_waits(void)
{
	setup_mixed();
	ring_setup();
	ring_submit(read_into(IORING_OP_READ, guest + PAGE));
	expect_request(pager_fd, PAGE);
	expect_waiters(region_fd, 1);
	copy_byte(pager_fd, PAGE, 'm');
	CHECK_EQ(ring_wait(), 4);
	CHECK(!memcmp(guest + PAGE, "uuuum", 5), "contents");
}

static int register_buffer(char *addr)
{
	struct iovec iov = { addr, PAGE };

	return syscall(SYS_io_uring_register, ring_fd, IORING_REGISTER_BUFFERS, &iov, 1);
}

/* Linux 6.1 refuses a mapping that is not the file system's own. */
static void io_uring_fixed_buffer_of_a_present_page_works_or_is_refused(void)
{
	setup_mixed();
	ring_setup();
	if (register_buffer(guest)) {
		CHECK_EQ(errno, EOPNOTSUPP);
	} else {
		ring_submit(read_into(IORING_OP_READ_FIXED, guest));
		CHECK_EQ(ring_wait(), 4);
		CHECK(!memcmp(guest, "uuuup", 5), "contents");
		memcpy(guest, "pppp", 4);
	}
	expect_as_before(guest);
}

static void register_page_1(struct toucher *t)
{
	t->ret = register_buffer(guest + PAGE);
	t->err = errno;
}

/* To pin for long must not need to wait; later kernels wait here all the same. */
static void io_uring_fixed_buffer_of_a_missing_page_fails_or_waits(void)
{
	struct toucher t;

	setup_mixed();
	ring_setup();
	start(&t, register_page_1, NULL);
	for (int i = 0; i < 5000 && !t.done && !has_event(pager_fd); i++)
		msleep(1);
	if (has_event(pager_fd)) {
		serve(&t, 1, 'm');
		CHECK(!t.ret || t.err == EOPNOTSUPP, "%s", strerror(t.err));
	} else {
		finish(&t);
		CHECK(t.ret == -1 && t.err == EFAULT, "returned %ld, %s", t.ret, strerror(t.err));
		expect_as_before(guest);
	}
}

static void wait_in_a_worker(void)
{
	ring_setup();
	ring_submit(read_into(IORING_OP_READ, guest + PAGE));
	ring_wait();
}

static void io_uring_wait_is_killable(void)
{
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(wait_in_a_worker);
	kill(pid, SIGKILL);
	expect_killed(pid, SIGKILL);
}

/* O_DIRECT, to and from a RAM disk */

#define RAM_DISK "/dev/ram0"

static int disk;

static void direct_read(struct toucher *t)
{
	t->ret = pread(disk, (void *)t->addr, PAGE, 0);
	t->err = errno;
}

static void direct_write(struct toucher *t)
{
	t->ret = pwrite(disk, (void *)t->addr, PAGE, PAGE);
	t->err = errno;
}

static void disk_setup(void)
{
	setup_mixed();
	if (system("modprobe -q brd rd_nr=1 rd_size=1024"))
		skip("no brd, which makes " RAM_DISK);
	disk = open(RAM_DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		skip("no " RAM_DISK);
}

static void o_direct_read_waits_and_arrives(void)
{
	struct toucher t;

	disk_setup();
	CHECK_EQ(pwrite(disk, guest, PAGE, 0), PAGE);
	start(&t, direct_read, guest + PAGE);
	serve(&t, 1, 'm');
	CHECK_EQ(t.ret, PAGE);
	CHECK(page_is(guest + PAGE, *present_byte), "a page that was missing");
	memset(guest, 'x', PAGE);
	CHECK_EQ(pread(disk, guest, PAGE, 0), PAGE);
	CHECK(page_is(guest, *present_byte), "a present page");
}

static void o_direct_write_waits_and_arrives(void)
{
	struct toucher t;

	disk_setup();
	start(&t, direct_write, guest + PAGE);
	serve(&t, 1, 'm');
	CHECK_EQ(t.ret, PAGE);
	CHECK_EQ(pread(disk, guest, PAGE, PAGE), PAGE);
	CHECK(page_is(guest, 'm'), "what was written");
}

/* vmsplice from a missing page, splice and sendfile of the region are in presence.c */
static void take_from_pipe(struct toucher *t)
{
	struct iovec iov = { (void *)t->addr, 4 };

	t->ret = vmsplice(pipe_fds[0], &iov, 1, 0);
}

static void vmsplice_into_a_missing_page_waits(void)
{
	struct toucher t;

	setup_mixed();
	CHECK(!pipe(pipe_fds), "pipe");
	CHECK_EQ(write(pipe_fds[1], "vvvv", 4), 4);
	start(&t, take_from_pipe, guest + PAGE);
	serve(&t, 1, 'm');
	CHECK_EQ(t.ret, 4);
	CHECK(!memcmp(guest + PAGE, "vvvvm", 5), "contents");
}

/* A pipe has the page itself, not a copy: it must not see what comes in its place. */
static void vmspliced_page_is_not_refilled(void)
{
	struct iovec iov;
	char buf[PAGE];

	setup_mixed();
	iov = (struct iovec){ guest, PAGE };
	CHECK(!pipe(pipe_fds), "pipe");
	CHECK_EQ(vmsplice(pipe_fds[1], &iov, 1, 0), PAGE);
	CHECK_EQ(mark_missing(pager_fd, 0, PAGE), 1);
	memset(map(pager_fd, PAGE), 's', PAGE);
	CHECK_EQ(copy_byte_unpublished(pager_fd, 0, 's'), 1);
	CHECK_EQ(read(pipe_fds[0], buf, PAGE), PAGE);
	CHECK(page_is(buf, *present_byte), "unpublished contents");
}

/* Futexes */

static long futex(volatile void *addr, int op, int value, void *timeout)
{
	return syscall(SYS_futex, addr, op, value, timeout, NULL, 0);
}

static void futex_wait(struct toucher *t)
{
	t->ret = futex(t->addr, FUTEX_WAIT, 0x6d6d6d6d, NULL);
	t->err = errno;
}

static void futex_wait_private(struct toucher *t)
{
	t->ret = futex(t->addr, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, NULL);
	t->err = errno;
}

static void futex_waits_for_its_page_and_is_woken_through_another_view(void)
{
	struct toucher t;
	char *other;

	setup_mixed();
	other = map(region_fd, NR * PAGE);
	start(&t, futex_wait, guest + PAGE);
	expect_request(pager_fd, PAGE);
	copy_byte(pager_fd, PAGE, 'm');
	for (int i = 0; i < 5000 && futex(other + PAGE, FUTEX_WAKE, 1, NULL) != 1; i++)
		msleep(1);
	finish(&t);
	CHECK_EQ(t.ret, 0);
}

static void private_futex_waits_for_its_page(void)
{
	struct toucher t;

	setup_mixed();
	start(&t, futex_wait_private, guest + PAGE);
	serve(&t, 1, 'm');
	CHECK(t.ret == -1 && t.err == EAGAIN, "its value is another: %s", strerror(t.err));
}

/* Where the kernel does not let a fault wait */
static void private_pi_futex_of_a_missing_page_fails(void)
{
	setup_mixed();
	CHECK_ERRNO(futex(guest + PAGE, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL), EFAULT);
	memset(guest, 0, 4);
	CHECK(!futex(guest, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL), "a present page: %s",
	      strerror(errno));
	CHECK(!futex(guest, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL), "a present page");
	memset(guest, *present_byte, 4);
	expect_as_before(guest);
}

/* The kernel writes there when the thread ends, when nobody could kill it any more. */
static void end_with_tid_on_page_1(struct toucher *t)
{
	(void)t;
	syscall(SYS_set_tid_address, guest + PAGE);
	syscall(SYS_exit, 0);
}

static void exit_touches_no_missing_page(void)
{
	struct toucher t;

	setup_mixed();
	start(&t, end_with_tid_on_page_1, NULL);
	pthread_detach(t.thread);
	msleep(300);
	CHECK_EQ(info(region_fd).waiters, 0);
	expect_as_before(guest);
}

/* vhost: a thread of the kernel that works in the process's memory */

static void vhost_ioctl(int fd, unsigned long cmd, const void *arg)
{
	CHECK(!ioctl(fd, cmd, arg), "vhost %lx: %s", cmd, strerror(errno));
}

/* Its used rings are on the present page, its available rings on page 1. */
static void vhost_ring(int fd, unsigned int index)
{
	struct vhost_vring_state num = { index, 8 }, base = { index, 0 };
	struct vhost_vring_file kick = { index, eventfd(1, EFD_CLOEXEC) };
	struct vhost_vring_addr addr = {
		.index = index,
		.desc_user_addr = (uintptr_t)guest + 1024 * index,
		.used_user_addr = (uintptr_t)guest + 1024 * index + 512,
		.avail_user_addr = (uintptr_t)guest + PAGE + 512 * index,
	};

	vhost_ioctl(fd, VHOST_SET_VRING_NUM, &num);
	vhost_ioctl(fd, VHOST_SET_VRING_ADDR, &addr);
	vhost_ioctl(fd, VHOST_SET_VRING_BASE, &base);
	vhost_ioctl(fd, VHOST_SET_VRING_KICK, &kick);
}

static int vhost_open(void)
{
	int fd;

	if (system("modprobe -q vhost_vsock"))
		skip("no vhost_vsock");
	fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		skip("no /dev/vhost-vsock");
	return fd;
}

static int vhost_start(void)
{
	struct {
		struct vhost_memory memory;
		struct vhost_memory_region region;
	} table = {
		.memory.nregions = 1,
		.region = { 0, NR * PAGE, (uintptr_t)guest, 0 },
	};
	uint64_t features = 1ULL << VIRTIO_F_VERSION_1, cid = 0x75656d;
	int fd = vhost_open(), on = 1;

	memset(guest, 0, PAGE);
	vhost_ioctl(fd, VHOST_SET_OWNER, NULL);
	vhost_ioctl(fd, VHOST_SET_FEATURES, &features);
	vhost_ioctl(fd, VHOST_SET_MEM_TABLE, &table);
	vhost_ring(fd, 0);
	vhost_ring(fd, 1);
	vhost_ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &cid);
	vhost_ioctl(fd, VHOST_VSOCK_SET_RUNNING, &on);
	return fd;
}

static void vhost_waits(void)
{
	int fd;

	setup_mixed();
	fd = vhost_start();
	expect_request(pager_fd, PAGE);
	expect_waiters(region_fd, 1);
	copy_byte(pager_fd, PAGE, 0);
	expect_waiters(region_fd, 0);
	close(fd);
	CHECK_EQ(info(region_fd).requests, 1);
}

static void run_vhost(void)
{
	vhost_start();
	pause();
}

/* Its thread gets no signal; the process cannot end before it. */
static void vhost_wait_ends_with_its_process(void)
{
	pid_t pid;

	setup_mixed();
	close(vhost_open());
	pid = child_that_waits(run_vhost);
	kill(pid, SIGKILL);
	expect_killed(pid, SIGKILL);
	expect_request(pager_fd, PAGE);
}

/* Signals and ends. SIGKILL and signals with handlers are in requests.c */

static void expect_state(pid_t pid, char want)
{
	char path[64], line[128] = "";
	const char *state;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	for (int i = 0; i < 5000; i++) {
		FILE *file = fopen(path, "r");

		CHECK(file && fgets(line, sizeof(line), file), "%s", path);
		fclose(file);
		state = strrchr(line, ')');
		if (state && state[2] == want)
			return;
		msleep(1);
	}
	CHECK(false, "%s is not in state %c", line, want);
}

static void sigstop_stops_a_waiter(void)
{
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(touch_page_1);
	kill(pid, SIGSTOP);
	expect_state(pid, 'T');
	CHECK_EQ(info(region_fd).waiters, 0);
	kill(pid, SIGCONT);
	expect_waiters(region_fd, 1);
	answer_child(pid);
}

/* In a system call it can stop only when the page has come. */
static void sigstop_in_a_system_call_stops_after_the_wait(void)
{
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(touch_page_1_in_a_system_call);
	kill(pid, SIGSTOP);
	msleep(100);
	expect_waiters(region_fd, 1);
	expect_state(pid, 'D');
	expect_request(pager_fd, PAGE);
	copy_byte(pager_fd, PAGE, 0);
	expect_state(pid, 'T');
	kill(pid, SIGCONT);
	expect_exit(pid, 0);
}

static void exit_while_a_thread_waits(void)
{
	struct toucher t;

	start(&t, touch_read, guest + PAGE);
	expect_waiters(region_fd, 1);
	exit(7);
}

static void exit_ends_the_waits_of_other_threads(void)
{
	int status;

	setup_mixed();
	status = in_child(exit_while_a_thread_waits);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %x", status);
	CHECK_EQ(info(region_fd).waiters, 0);
}

static void exec_while_a_thread_waits(void)
{
	struct toucher t;

	start(&t, touch_read, guest + PAGE);
	expect_waiters(region_fd, 1);
	execl("/bin/true", "true", NULL);
	_exit(1);
}

static void exec_ends_the_waits_of_other_threads(void)
{
	setup_mixed();
	CHECK_EQ(in_child(exec_while_a_thread_waits), 0);
	CHECK_EQ(info(region_fd).waiters, 0);
}

static const struct test tests[] = {
	TEST(proc_mem_shows_present_pages),
	TEST(ptrace_stops_a_waiter_and_sees_present_pages),
	TEST(gcore_leaves_guest_memory_out),
	TEST(core_dump_leaves_guest_memory_out),
	TEST(io_uring_read_waits),
	TEST(io_uring_fixed_buffer_of_a_present_page_works_or_is_refused),
	TEST(io_uring_fixed_buffer_of_a_missing_page_fails_or_waits),
	TEST(io_uring_wait_is_killable),
	TEST(o_direct_read_waits_and_arrives),
	TEST(o_direct_write_waits_and_arrives),
	TEST(vmsplice_into_a_missing_page_waits),
	TEST(vmspliced_page_is_not_refilled),
	TEST(futex_waits_for_its_page_and_is_woken_through_another_view),
	TEST(private_futex_waits_for_its_page),
	TEST(private_pi_futex_of_a_missing_page_fails),
	TEST(exit_touches_no_missing_page),
	TEST(vhost_waits),
	TEST(sigstop_stops_a_waiter),
	TEST(sigstop_in_a_system_call_stops_after_the_wait),
	TEST(exit_ends_the_waits_of_other_threads),
	TEST(exec_ends_the_waits_of_other_threads),
	TEST(vhost_wait_ends_with_its_process),
};

TEST_MAIN(tests)
