// SPDX-License-Identifier: GPL-2.0-only
/* Dirty tracking against a guest of KVM, which writes without the process's mapping. */
#include "dirty_region.h"
#include "vcpu.h"

static void nothing(int sig)
{
	(void)sig;
}

/* KVM_RUN of this thread returns after some milliseconds. */
static void interrupt_often(void)
{
	struct sigaction action = { .sa_handler = nothing };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct itimerspec every = { { 0, 5000000 }, { 0, 5000000 } };
	timer_t timer;

	event._sigev_un._tid = gettid();
	CHECK(!sigaction(SIGUSR1, &action, NULL), "sigaction");
	CHECK(!timer_create(CLOCK_MONOTONIC, &event, &timer), "timer_create");
	CHECK(!timer_settime(timer, 0, &every, NULL), "timer_settime");
}

static void write_by_guest(unsigned int *seed)
{
	(void)seed;
	if (vcpu_fd < 0) {
		vcpu_setup(guest, 0);
		interrupt_often();
	}
	CHECK(ioctl(vcpu_fd, KVM_RUN, 0) == -1 && errno == EINTR, "KVM_RUN: exit %u, %s",
	      run->exit_reason, strerror(errno));
}

static void write_by_cpu(unsigned int *seed)
{
	guest[(GUEST_PAGES + rand_r(seed) % (NR - GUEST_PAGES)) * PAGE]++;
	if (!(*seed % 256))
		msleep(1);
}

static void a_guests_writes_are_told(void)
{
	unsigned int seed = 1;
	uint64_t pages = (1ULL << GUEST_PAGES) - 1;
	volatile uint16_t *last;

	setup_clean();
	last = (uint16_t *)(guest + (GUEST_PAGES - 1) * PAGE);
	for (int i = 0; i < 20; i++) {
		uint16_t before = *last;

		/* The signal may come before the guest has been everywhere. */
		while ((uint16_t)(*last - before) < 2)
			write_by_guest(&seed);
		CHECK_EQ(collect(), pages);
		CHECK_EQ(collect(), 0);
	}
}

static void a_guest_races_collection(void)
{
	static struct writer writers[] = {
		{ .name = "guest", .write = write_by_guest },
		{ .name = "CPU", .write = write_by_cpu },
	};

	race(writers, 2);
}

static const struct test tests[] = {
	TEST(a_guests_writes_are_told),
	TEST(a_guest_races_collection),
};

TEST_MAIN(tests)
