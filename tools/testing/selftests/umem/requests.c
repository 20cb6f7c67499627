// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promise 3: one request a page however many wait, and none is lost.
 * Promise 4: waits are killable, hold no mmap lock, do not spin on signals.
 * Promise 5: a pager's death changes nothing in memory.
 */
#include "missing_region.h"
#include <sys/resource.h>
#include <sys/syscall.h>

#define MANY 64

static void many_waiters_make_one_request(void)
{
	struct toucher t[MANY];

	setup();
	for (int i = 0; i < MANY; i++)
		start(&t[i], touch_read, guest + 2 * PAGE + i);
	expect_waiters(region_fd, MANY);
	expect_request(pager_fd, 2 * PAGE);
	CHECK(!has_event(pager_fd), "a second request");
	CHECK_EQ(info(region_fd).requests, 1);
	CHECK_EQ(info(region_fd).faults, MANY);
	copy_byte(pager_fd, 2 * PAGE, 'm');
	for (int i = 0; i < MANY; i++) {
		finish(&t[i]);
		CHECK_EQ(t[i].value, 'm');
	}
	CHECK_EQ(info(region_fd).waiters, 0);
}

static void requests_come_in_order(void)
{
	struct toucher t[3];
	static const int order[3] = { 7, 2, 11 };
	struct umem_event events[4];

	setup();
	for (int i = 0; i < 3; i++) {
		start(&t[i], touch_read, guest + order[i] * PAGE);
		expect_waiters(region_fd, i + 1);
	}
	CHECK_EQ(read(pager_fd, events, sizeof(events)), 3 * sizeof(*events));
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(events[i].offset, order[i] * PAGE);
		CHECK(!i || events[i].time_ns >= events[i - 1].time_ns, "time runs backwards");
		copy_byte(pager_fd, order[i] * PAGE, 'a' + i);
		finish(&t[i]);
		CHECK_EQ(t[i].value, 'a' + i);
	}
}

static pid_t toucher_tid;

static void touch_and_tell_tid(struct toucher *t)
{
	toucher_tid = syscall(SYS_gettid);
	touch_read(t);
}

static void request_names_thread_and_time(void)
{
	struct timespec before, after;
	struct umem_event event;
	struct toucher t;

	setup();
	clock_gettime(CLOCK_MONOTONIC, &before);
	start(&t, touch_and_tell_tid, guest);
	event = next_event(pager_fd);
	clock_gettime(CLOCK_MONOTONIC, &after);
	CHECK_EQ(event.tid, toucher_tid);
	CHECK(event.time_ns >= before.tv_sec * 1000000000ULL + before.tv_nsec, "too early");
	CHECK(event.time_ns <= after.tv_sec * 1000000000ULL + after.tv_nsec, "too late");
	copy_byte(pager_fd, 0, 0);
	finish(&t);
}

static void read_obeys_nonblock_and_poll(void)
{
	struct umem_event event;
	struct toucher t;
	char small[8];

	setup();
	CHECK(!has_event(pager_fd), "nothing was touched");
	fcntl(pager_fd, F_SETFL, O_NONBLOCK);
	CHECK_ERRNO(read(pager_fd, &event, sizeof(event)), EAGAIN);
	CHECK_ERRNO(read(pager_fd, small, sizeof(small)), EINVAL);
	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	CHECK(has_event(pager_fd), "poll misses the request");
	CHECK_ERRNO(read(pager_fd, small, sizeof(small)), EINVAL);
	expect_request(pager_fd, 0);
	CHECK(!has_event(pager_fd), "still pending");
	CHECK_ERRNO(read(pager_fd, &event, sizeof(event)), EAGAIN);
	copy_byte(pager_fd, 0, 0);
	finish(&t);
}

static void blocking_read_wakes(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest + PAGE);
	expect_request(pager_fd, PAGE);
	copy_byte(pager_fd, PAGE, 0);
	finish(&t);
}

static void efault_on_read_loses_nothing(void)
{
	struct umem_event *edge;
	struct toucher t[2];
	void *volatile nowhere = (void *)8;
	char *mem;

	setup();
	for (int i = 0; i < 2; i++) {
		start(&t[i], touch_read, guest + i * PAGE);
		expect_waiters(region_fd, i + 1);
	}
	CHECK_ERRNO(read(pager_fd, nowhere, 4096), EFAULT);
	/* Room for one and a half records before a hole in memory */
	mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(mem + PAGE, PAGE);
	edge = (struct umem_event *)(mem + PAGE - sizeof(*edge) * 3 / 2);
	CHECK_EQ(read(pager_fd, edge, 4096), sizeof(*edge));
	CHECK_EQ(edge->offset, 0);
	expect_request(pager_fd, PAGE);
	CHECK_EQ(info(region_fd).delivered, 2);
	for (int i = 0; i < 2; i++) {
		copy_byte(pager_fd, i * PAGE, 0);
		finish(&t[i]);
	}
}

static void answered_request_is_not_delivered(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	copy_byte(pager_fd, 0, 'e');
	finish(&t);
	CHECK_EQ(t.value, 'e');
	CHECK(!has_event(pager_fd), "delivered after the answer");
}

/* UMEM_COPY of page @n, with room for events; the call's result. */
static int copy_and_read(struct umem_copy *copy, int n, void *events, uint32_t nr_events)
{
	static char page[PAGE];
	static struct umem_copy_entry entry;

	entry = (struct umem_copy_entry){ n * PAGE, (uintptr_t)page, PAGE };
	*copy = (struct umem_copy){ .size = sizeof(*copy), .entries = (uintptr_t)&entry,
				    .nr_entries = 1, .events = (uintptr_t)events,
				    .nr_events = nr_events, .out_events = 77 };
	return ioctl(pager_fd, UMEM_COPY, copy);
}

static void wait_for_pages(struct toucher *t, int nr)
{
	for (int i = 0; i < nr; i++) {
		start(&t[i], touch_read, guest + i * PAGE);
		expect_waiters(region_fd, i + 1);
	}
}

static void finish_all(struct toucher *t, int nr)
{
	for (int i = 0; i < nr; i++) {
		copy_byte(pager_fd, i * PAGE, 0);
		finish(&t[i]);
	}
}

static void copy_returns_what_is_pending(void)
{
	struct umem_event events[4];
	struct umem_copy copy;
	struct toucher t[4];

	setup();
	wait_for_pages(t, 4);
	/* Not the page that it brings, nor more than fit */
	CHECK(!copy_and_read(&copy, 0, events, 2), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_pages, 1);
	CHECK_EQ(copy.out_events, 2);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(events[i].type, UMEM_EVENT_REQUEST);
		CHECK_EQ(events[i].offset, (i + 1) * PAGE);
		CHECK_EQ(events[i].length, PAGE);
	}
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * PAGE, PAGE),
	      "punch: %s", strerror(errno));
	CHECK(!copy_and_read(&copy, 1, events, 4), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_events, 2);
	CHECK_EQ(events[0].type, UMEM_EVENT_DISCARD);
	CHECK_EQ(events[0].offset, 8 * PAGE);
	CHECK_EQ(events[1].offset, 3 * PAGE);
	/* It does not wait, though read() would. */
	CHECK(!copy_and_read(&copy, 2, events, 4), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_events, 0);
	/* A page that was there is no error, either. */
	CHECK(!copy_and_read(&copy, 2, events, 4), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_skipped, 1);
	finish_all(t, 4);
}

static void efault_on_events_of_copy_loses_nothing(void)
{
	char *mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	struct umem_event *edge = (struct umem_event *)(mem + PAGE - sizeof(*edge) * 3 / 2);
	void *const nowhere[] = { (void *)8, (void *)-PAGE, mem + PAGE };
	struct umem_copy copy, *read_only;
	struct toucher t[6];

	setup();
	munmap(mem + PAGE, PAGE);
	wait_for_pages(t, 6);
	for (int i = 0; i < 3; i++) {
		CHECK_ERRNO(copy_and_read(&copy, i, nowhere[i], 4), EFAULT);
		CHECK_EQ(copy.out_pages, 1);
		CHECK_EQ(copy.out_events, 0);
		CHECK(has_event(pager_fd), "the requests are gone");
	}
	CHECK(!copy_and_read(&copy, 0, edge, 4), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_events, 1);
	CHECK_EQ(edge->offset, 3 * PAGE);

	/* Who cannot be told how many there are gets none, and no page. */
	CHECK(!copy_and_read(&copy, 0, NULL, 0), "UMEM_COPY: %s", strerror(errno));
	copy.events = (uintptr_t)mem;
	copy.nr_events = 4;
	((struct umem_copy_entry *)(uintptr_t)copy.entries)->offset = 4 * PAGE;
	read_only = (struct umem_copy *)mem;
	*read_only = copy;
	mprotect(mem, PAGE, PROT_READ);
	CHECK_ERRNO(ioctl(pager_fd, UMEM_COPY, read_only), EFAULT);
	CHECK_EQ(info(region_fd).copied, 3);
	expect_request(pager_fd, 4 * PAGE);
	expect_request(pager_fd, 5 * PAGE);
	finish_all(t, 6);
}

static void failed_copy_gives_no_events(void)
{
	struct umem_event event = { .type = 77 };
	struct umem_copy_entry entry = { 0, 16, PAGE };
	struct umem_copy copy = { .size = sizeof(copy), .entries = (uintptr_t)&entry,
				  .nr_entries = 1, .events = (uintptr_t)&event, .nr_events = 1 };
	struct toucher t;

	setup();
	wait_for_pages(&t, 1);
	CHECK_ERRNO(ioctl(pager_fd, UMEM_COPY, &copy), EFAULT);
	CHECK_EQ(copy.out_events, 0);
	CHECK_EQ(event.type, 77);
	expect_request(pager_fd, 0);
	finish_all(&t, 1);
}

static void read_one(struct toucher *t)
{
	t->ret = next_event(pager_fd).offset;
}

/* Only the first request of several wakes: who sleeps must still get all of them. */
static void each_of_two_readers_gets_a_request(void)
{
	struct toucher readers[2], t[2];

	setup();
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 2; i++)
			start(&readers[i], read_one, guest);
		if (round % 2)
			msleep(5);
		for (int i = 0; i < 2; i++)
			start(&t[i], touch_read, guest + i * PAGE);
		for (int i = 0; i < 2; i++)
			finish(&readers[i]);
		CHECK_EQ(readers[0].ret + readers[1].ret, PAGE);
		finish_all(t, 2);
		CHECK_EQ(mark_missing(pager_fd, 0, 2 * PAGE), 2);
	}
}

static void new_pager_hears_everything_again(void)
{
	struct umem_event events[8];
	struct toucher t[3];
	unsigned int seen = 0;

	setup();
	for (int i = 0; i < 3; i++) {
		start(&t[i], touch_read, guest + i * PAGE);
		expect_waiters(region_fd, i + 1);
	}
	expect_request(pager_fd, 0);	/* delivered, the others are not */
	close(pager_fd);
	CHECK_EQ(info(region_fd).pager, 0);
	CHECK_EQ(info(region_fd).pagers_lost, 1);
	CHECK_EQ(info(region_fd).waiters, 3);

	pager_fd = pager(region_fd);
	CHECK_EQ(info(region_fd).pager, 1);
	CHECK_EQ(read(pager_fd, events, sizeof(events)), 3 * sizeof(*events));
	for (int i = 0; i < 3; i++)
		seen |= 1 << events[i].offset / PAGE;
	CHECK_EQ(seen, 7);
	for (int i = 0; i < 3; i++) {
		CHECK(!t[i].done, "thread %d did not wait", i);
		copy_byte(pager_fd, i * PAGE, 'n');
		finish(&t[i]);
		CHECK_EQ(t[i].value, 'n');
	}
}

static void touch_without_pager_waits_for_one(void)
{
	struct toucher t;

	setup();
	close(pager_fd);
	start(&t, touch_read, guest + 3 * PAGE);
	expect_waiters(region_fd, 1);
	pager_fd = pager(region_fd);
	expect_request(pager_fd, 3 * PAGE);
	copy_byte(pager_fd, 3 * PAGE, 'l');
	finish(&t);
	CHECK_EQ(t.value, 'l');
}

static void pager_death_keeps_pages(void)
{
	int status;
	pid_t pid;

	setup();
	close(pager_fd);
	pid = fork();
	if (!pid) {
		pager_fd = pager(region_fd);
		copy_byte(pager_fd, 0, 'd');
		map(pager_fd, NR * PAGE)[PAGE] = 'u';
		kill(getpid(), SIGKILL);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(info(region_fd).pager, 0);
	CHECK_EQ(info(region_fd).missing, (NR - 1) * PAGE);
	CHECK(page_is(guest, 'd'), "the page it had brought");
	pager_fd = pager(region_fd);
	CHECK_EQ(change(pager_fd, UMEM_PUBLISH, PAGE, PAGE), 1);
	CHECK_EQ(guest[PAGE], 'u');
}

static void one_pager_at_a_time(void)
{
	struct umem_attach attach = { .size = sizeof(attach) };
	char *fill;

	setup();
	CHECK_ERRNO(ioctl(region_fd, UMEM_ATTACH, &attach), EBUSY);
	fill = map(pager_fd, NR * PAGE);
	close(pager_fd);
	CHECK_ERRNO(ioctl(region_fd, UMEM_ATTACH, &attach), EBUSY);
	munmap(fill, NR * PAGE);
	CHECK(!ioctl(region_fd, UMEM_ATTACH, &attach), "UMEM_ATTACH: %s", strerror(errno));
}

static void sigbus_policy_without_pager(void)
{
	int status;
	pid_t pid;

	setup_flags(UMEM_ATTACH_SIGBUS);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(pager_fd);
		exit(100 + sigbus_code(guest, false));
	}
	expect_request(pager_fd, 0);
	expect_waiters(region_fd, 1);
	close(pager_fd);	/* who waits already is woken, too */
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(WEXITSTATUS(status), 100 + BUS_ADRERR);
	CHECK_EQ(sigbus_code(guest + PAGE, false), BUS_ADRERR);

	/* The next pager brings the pages after all. */
	pager_fd = pager(region_fd);
	copy_byte(pager_fd, 0, 'b');
	CHECK_EQ(guest[0], 'b');
}

static volatile sig_atomic_t handled;

static void count_signal(int sig)
{
	(void)sig;
	handled++;
}

/* A child that waits for the page, also in a system call; returns its pid once it does. */
static pid_t waiting_child(int page, bool in_kernel)
{
	uint64_t before = info(region_fd).waiters;
	pid_t pid;

	signal(SIGUSR1, count_signal);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (in_kernel)
			unlink(guest + page * PAGE);
		else
			(void)*(volatile char *)(guest + page * PAGE);
		_exit(0);
	}
	expect_waiters(region_fd, before + 1);
	return pid;
}

static void expect_killable(bool in_kernel)
{
	int status;
	pid_t pid;

	setup();
	pid = waiting_child(0, in_kernel);
	/* A signal with a handler makes a fault in the kernel start again. */
	kill(pid, SIGUSR1);
	msleep(100);
	expect_waiters(region_fd, 1);
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %x", status);
	CHECK_EQ(info(region_fd).waiters, 0);
}

static void wait_is_killable(void)
{
	expect_killable(false);
}

static void kernel_mode_wait_is_killable(void)
{
	expect_killable(true);
}

static void request_outlives_its_thread(void)
{
	struct toucher t;
	int status;
	pid_t pid;

	setup();
	pid = waiting_child(4, false);
	expect_request(pager_fd, 4 * PAGE);
	start(&t, touch_read, guest + 4 * PAGE);
	expect_waiters(region_fd, 2);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	expect_waiters(region_fd, 1);
	CHECK(!has_event(pager_fd), "asked a second time");
	/* and is there for the next pager though nobody may wait */
	close(pager_fd);
	pager_fd = pager(region_fd);
	expect_request(pager_fd, 4 * PAGE);
	copy_byte(pager_fd, 4 * PAGE, 'k');
	finish(&t);
	CHECK_EQ(t.value, 'k');
}

static void wait_holds_no_mmap_lock(void)
{
	struct toucher t;

	setup();
	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	/* Each of these takes the mmap lock for writing, or would hang here. */
	for (int i = 0; i < 100; i++) {
		char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		*p = 1;
		CHECK(!munmap(p, PAGE), "munmap");
	}
	CHECK(!t.done, "it did not wait");
	copy_byte(pager_fd, 0, 0);
	finish(&t);
}

static void signal_is_handled_during_a_wait(void)
{
	struct sigaction sa = { .sa_handler = count_signal };
	struct toucher t;

	setup();
	sigaction(SIGUSR1, &sa, NULL);
	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	for (int i = 1; i <= 3; i++) {
		pthread_kill(t.thread, SIGUSR1);
		while (handled < i)
			msleep(1);
		expect_waiters(region_fd, 1);
	}
	CHECK(!t.done, "a signal ended the wait");
	copy_byte(pager_fd, 0, 's');
	finish(&t);
	CHECK_EQ(t.value, 's');
	CHECK_EQ(info(region_fd).requests, 1);
}

static int pipe_fds[2];
static clockid_t toucher_clock;

static void write_to_pipe(struct toucher *t)
{
	t->ret = write(pipe_fds[1], (void *)t->addr, 10);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(toucher_clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void kernel_mode_wait_does_not_spin_on_a_signal(void)
{
	struct sigaction sa = { .sa_handler = count_signal };
	struct toucher t;
	uint64_t before;

	setup();
	CHECK(!pipe(pipe_fds), "pipe");
	sigaction(SIGUSR1, &sa, NULL);
	start(&t, write_to_pipe, guest);
	CHECK(!pthread_getcpuclockid(t.thread, &toucher_clock), "cpu clock");
	expect_waiters(region_fd, 1);
	pthread_kill(t.thread, SIGUSR1);
	msleep(200);		/* time to spin in */
	expect_waiters(region_fd, 1);
	before = cpu_ns();
	msleep(500);
	CHECK(cpu_ns() - before < 50 * 1000000ULL, "it used %llu ms of processor in 500",
	      (unsigned long long)(cpu_ns() - before) / 1000000);
	copy_byte(pager_fd, 0, 's');
	finish(&t);
	CHECK_EQ(t.ret, 10);
}

static void waiter_survives_munmap_by_another_thread(void)
{
	int status;
	pid_t pid;

	setup();
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct toucher t;

		start(&t, touch_read, guest);
		expect_waiters(region_fd, 1);
		munmap(guest, NR * PAGE);
		copy_byte(pager_fd, 0, 'x');
		finish(&t);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %x", status);
}

static const struct test tests[] = {
	TEST(many_waiters_make_one_request),
	TEST(requests_come_in_order),
	TEST(request_names_thread_and_time),
	TEST(read_obeys_nonblock_and_poll),
	TEST(blocking_read_wakes),
	TEST(efault_on_read_loses_nothing),
	TEST(answered_request_is_not_delivered),
	TEST(copy_returns_what_is_pending),
	TEST(efault_on_events_of_copy_loses_nothing),
	TEST(failed_copy_gives_no_events),
	TEST(each_of_two_readers_gets_a_request),
	TEST(new_pager_hears_everything_again),
	TEST(touch_without_pager_waits_for_one),
	TEST(pager_death_keeps_pages),
	TEST(one_pager_at_a_time),
	TEST(sigbus_policy_without_pager),
	TEST(wait_is_killable),
	TEST(kernel_mode_wait_is_killable),
	TEST(request_outlives_its_thread),
	TEST(wait_holds_no_mmap_lock),
	TEST(signal_is_handled_during_a_wait),
	TEST(kernel_mode_wait_does_not_spin_on_a_signal),
	TEST(waiter_survives_munmap_by_another_thread),
};

TEST_MAIN(tests)
