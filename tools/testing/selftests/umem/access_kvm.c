// SPDX-License-Identifier: GPL-2.0-only
/*
 * A guest of KVM at a missing page. It allows interrupts, so KVM has a thread of the kernel
 * wait in its place: an asynchronous page fault.
 */
#include "operations.h"
#include "vcpu.h"

static void run_guest(void)
{
	vcpu_setup(guest, INTERRUPTS);
	ioctl(vcpu_fd, KVM_RUN, 0);
	CHECK(false, "KVM_RUN: exit %u, %s", run->exit_reason, strerror(errno));
}

/* It does not wait for a page itself: its processor is halted. */
static void expect_halted(pid_t pid)
{
	char path[64], wchan[64] = "";

	snprintf(path, sizeof(path), "/proc/%d/wchan", pid);
	for (int i = 0; i < 5000 && strcmp(wchan, "kvm_vcpu_block"); i++) {
		FILE *file = fopen(path, "r");

		CHECK(file, "%s: %s", path, strerror(errno));
		if (!fgets(wchan, sizeof(wchan), file))
			wchan[0] = '\0';
		fclose(file);
		msleep(1);
	}
	CHECK(!strcmp(wchan, "kvm_vcpu_block"), "it is in %s", wchan);
}

static pid_t guest_that_waits(void)
{
	pid_t pid;

	setup_mixed();
	pid = child_that_waits(run_guest);
	expect_request(pager_fd, PAGE);
	expect_halted(pid);
	return pid;
}

static void kvm_waits_and_goes_on(void)
{
	pid_t pid = guest_that_waits();

	for (int i = 1; i < GUEST_PAGES; i++) {
		CHECK_EQ(copy_byte(pager_fd, i * PAGE, 0), 1);
		if (i + 1 < GUEST_PAGES)
			expect_request(pager_fd, (i + 1) * PAGE);
	}
	for (int i = 0; i < 5000 && !guest[(GUEST_PAGES - 1) * PAGE]; i++)
		msleep(1);
	CHECK(guest[(GUEST_PAGES - 1) * PAGE], "the guest has not come to its last page");
	kill(pid, SIGKILL);
	expect_killed(pid, SIGKILL);
}

/* The thread gets no signal, and keeps all of the process's memory. */
static void kvm_wait_ends_with_its_process(void)
{
	pid_t pid = guest_that_waits();

	kill(pid, SIGKILL);
	expect_killed(pid, SIGKILL);
}

static const struct test tests[] = {
	TEST(kvm_waits_and_goes_on),
	TEST(kvm_wait_ends_with_its_process),
};

TEST_MAIN(tests)
