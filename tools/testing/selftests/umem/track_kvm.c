// SPDX-License-Identifier: GPL-2.0-only
/* Dirty tracking against a guest of KVM, which writes without the process's mapping. */
#include "dirty_region.h"
#include <linux/kvm.h>

#define CODE		0x10000UL	/* behind the 16 pages that the guest writes to */
#define GUEST_PAGES	16

static const unsigned char code[] = {
	0xff, 0x05,			/* 0: inc word [di] */
	0x81, 0xc7, 0x00, 0x10,		/*    add di, 4096 */
	0xeb, 0xf8,			/*    jmp 0 */
};

static int vcpu_fd = -1;
static struct kvm_run *run;

static void set_memory(int vm, uint32_t slot, uint64_t physical, void *address, uint64_t length)
{
	struct kvm_userspace_memory_region memory = {
		.slot = slot, .guest_phys_addr = physical, .memory_size = length,
		.userspace_addr = (uintptr_t)address,
	};

	CHECK(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &memory), "memory: %s", strerror(errno));
}

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

static void vcpu_setup(void)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, size;
	char *program = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;

	if (kvm < 0)
		skip("no /dev/kvm here");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	CHECK(vm >= 0, "KVM_CREATE_VM: %s", strerror(errno));
	memcpy(program, code, sizeof(code));
	set_memory(vm, 0, 0, guest, GUEST_PAGES * PAGE);
	set_memory(vm, 1, CODE, program, PAGE);
	vcpu_fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(vcpu_fd >= 0, "KVM_CREATE_VCPU: %s", strerror(errno));
	size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
	CHECK(run != MAP_FAILED, "mmap: %s", strerror(errno));
	CHECK(!ioctl(vcpu_fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = CODE;
	sregs.cs.selector = CODE >> 4;
	CHECK(!ioctl(vcpu_fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	CHECK(!ioctl(vcpu_fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	interrupt_often();
}

static void write_by_guest(unsigned int *seed)
{
	(void)seed;
	if (vcpu_fd < 0)
		vcpu_setup();
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
