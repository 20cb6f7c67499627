// SPDX-License-Identifier: GPL-2.0-only
/*
 * What dirty tracking costs, for track.py: a line "NAME NUMBER" for each figure. With the
 * clock of a host that counts instructions (-icount shift=0) a nanosecond is an instruction.
 */
#include "bench.h"
#include <linux/kvm.h>
#include <sys/resource.h>

#define REGION_PAGES	65536UL		/* 256 MiB */
#define IDLE_STEP	100UL		/* of a mostly idle region this part is written to */
#define PASSES		3
#define GUEST_PAGES	128UL		/* what a guest in real mode reaches below its code */
#define GUEST_CODE	0x90000UL

static int region_fd, pager_fd;
static char *view;

static void tell(const char *name, const char *what, double value)
{
	printf("%s/%s %.1f\n", name, what, value);
	fflush(stdout);
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

static void track(uint32_t op)
{
	struct umem_track t = { .size = sizeof(t), .op = op };

	CHECK(!ioctl(pager_fd, UMEM_TRACK, &t), "UMEM_TRACK: %s", strerror(errno));
}

static unsigned long collect(unsigned long pages)
{
	static uint64_t bits[REGION_PAGES / 64];
	struct umem_track t = { .size = sizeof(t), .op = UMEM_TRACK_COLLECT,
				.length = pages * PAGE, .bits = (uintptr_t)bits };

	CHECK(!ioctl(pager_fd, UMEM_TRACK, &t), "COLLECT: %s", strerror(errno));
	return t.out_pages;
}

static void setup(unsigned long pages)
{
	region_fd = region(pages * PAGE);
	pager_fd = pager(region_fd);
	view = map(region_fd, pages * PAGE);
	CHECK(!madvise(view, pages * PAGE, MADV_NOHUGEPAGE), "madvise");
}

static void teardown(unsigned long pages)
{
	munmap(view, pages * PAGE);
	close(pager_fd);
	close(region_fd);
}

/* Returns what a page costs. */
static double write_pages(char *addr, unsigned long pages, unsigned long step)
{
	double start = now();

	for (unsigned long i = 0; i < pages; i += step)
		addr[i * PAGE] = 'w';
	return (now() - start) / ((pages + step - 1) / step);
}

static double read_pages(volatile char *addr, unsigned long pages)
{
	double start = now();

	for (unsigned long i = 0; i < pages; i++)
		(void)addr[i * PAGE];
	return (now() - start) / pages;
}

/* Rounds of pre-copy of a region of which each @step-th page is written to. */
static void rounds(const char *name, unsigned long step)
{
	setup(REGION_PAGES);
	track(UMEM_TRACK_START);
	write_pages(view, REGION_PAGES, 1);
	collect(REGION_PAGES);
	collect(REGION_PAGES);
	for (int i = 0; i < PASSES; i++) {
		double start;

		tell(name, "write", write_pages(view, REGION_PAGES, step));
		start = now();
		tell(name, "told", collect(REGION_PAGES));
		tell(name, "collect", (now() - start) / REGION_PAGES);
	}
	teardown(REGION_PAGES);
}

/* All kinds of faults in the region's own mapping and in a fresh one. */
static void accesses(const char *name)
{
	char *fresh;
	long before;

	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			 REGION_PAGES * PAGE), "punch");
	tell(name, "first touch", write_pages(view, REGION_PAGES, 1));
	tell(name, "write again", write_pages(view, REGION_PAGES, 1));

	fresh = map(region_fd, REGION_PAGES * PAGE);
	tell(name, "map for writing", write_pages(fresh, REGION_PAGES, 1));
	munmap(fresh, REGION_PAGES * PAGE);

	fresh = map(region_fd, REGION_PAGES * PAGE);
	before = faults();
	tell(name, "map for reading", read_pages(fresh, REGION_PAGES));
	tell(name, "pages a fault", (double)REGION_PAGES / (faults() - before));
	munmap(fresh, REGION_PAGES * PAGE);
}

static void off(const char *name, bool tracked, bool stopped)
{
	setup(REGION_PAGES);
	write_pages(view, REGION_PAGES, 1);
	if (tracked) {
		track(UMEM_TRACK_START);
		collect(REGION_PAGES);
	}
	if (stopped)
		track(UMEM_TRACK_STOP);
	for (int i = 0; i < PASSES; i++)
		accesses(name);
	teardown(REGION_PAGES);
}

/* A guest that touches a byte of each page, and says so when it is through. */
static unsigned char guest_code[] = {
	0x31, 0xc0,			/* 0: xor ax, ax */
	0x8e, 0xd8,			/* 2: mov ds, ax */
	0x8a, 0x1e, 0x00, 0x00,		/*    mov bl, [0], or mov [0], bl */
	0x05, 0x00, 0x01,		/*    add ax, 4096 / 16 */
	0x3d, 0x00, 0x80,		/*    cmp ax, GUEST_PAGES * 4096 / 16 */
	0x72, 0xf2,			/*    jb 2 */
	0xe6, 0x10,			/*    out 16, al */
	0xeb, 0xec,			/*    jmp 0 */
};

static unsigned char *guest_access = guest_code + 4;

static void set_memory(int vm, uint32_t slot, uint64_t physical, void *address, uint64_t length)
{
	struct kvm_userspace_memory_region memory = {
		.slot = slot, .guest_phys_addr = physical, .memory_size = length,
		.userspace_addr = (uintptr_t)address,
	};

	CHECK(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &memory), "memory: %s", strerror(errno));
}

static int vcpu(int kvm, unsigned char *program)
{
	int vm = ioctl(kvm, KVM_CREATE_VM, 0), fd;
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;

	CHECK(vm >= 0, "KVM_CREATE_VM: %s", strerror(errno));
	set_memory(vm, 0, 0, view, GUEST_PAGES * PAGE);
	set_memory(vm, 1, GUEST_CODE, program, PAGE);
	fd = ioctl(vm, KVM_CREATE_VCPU, 0);
	CHECK(fd >= 0, "KVM_CREATE_VCPU: %s", strerror(errno));
	CHECK(!ioctl(fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = GUEST_CODE;
	sregs.cs.selector = GUEST_CODE >> 4;
	CHECK(!ioctl(fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	CHECK(!ioctl(fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	return fd;
}

/* What one time round costs the guest, a page. */
static double guest_round(int vcpu, volatile struct kvm_run *run)
{
	double start = now();

	do {
		CHECK(!ioctl(vcpu, KVM_RUN, 0), "KVM_RUN: %s", strerror(errno));
	} while (run->exit_reason == KVM_EXIT_INTR);
	CHECK_EQ(run->exit_reason, KVM_EXIT_IO);
	return (now() - start) / GUEST_PAGES;
}

static void guest(const char *name, bool writes)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), fd;
	unsigned char *program = (unsigned char *)mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
						       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_run *run;

	if (kvm < 0)
		return;
	setup(GUEST_PAGES);
	write_pages(view, GUEST_PAGES, 1);
	memcpy(program, guest_code, sizeof(guest_code));
	program[guest_access - guest_code] = writes ? 0x88 : 0x8a;
	fd = vcpu(kvm, program);
	run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
		   MAP_SHARED, fd, 0);
	CHECK(run != MAP_FAILED, "mmap: %s", strerror(errno));
	guest_round(fd, run);
	tell(name, "no tracking", guest_round(fd, run));
	track(UMEM_TRACK_START);
	collect(GUEST_PAGES);
	guest_round(fd, run);
	for (int i = 0; i < PASSES; i++) {
		double start = now();

		tell(name, "told", collect(GUEST_PAGES));
		tell(name, "collect", (now() - start) / GUEST_PAGES);
		tell(name, "round after", guest_round(fd, run));
		tell(name, "second round", guest_round(fd, run));
	}
	close(fd);
	close(kvm);
	teardown(GUEST_PAGES);
}

int main(void)
{
	off("never tracked", false, false);
	off("tracked", true, false);
	off("stopped", true, true);
	rounds("idle", IDLE_STEP);
	rounds("busy", 1);
	guest("guest reads", false);
	guest("guest writes", true);
	return 0;
}
