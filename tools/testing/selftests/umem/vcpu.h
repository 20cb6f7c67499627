/* SPDX-License-Identifier: GPL-2.0-only */
/* A guest of KVM that writes to its 16 pages of memory, one after the other, for ever. */
#ifndef _VCPU_H
#define _VCPU_H

#include "umem_selftest.h"
#include <linux/kvm.h>

#define CODE		0x10000UL	/* behind the 16 pages that the guest writes to */
#define GUEST_PAGES	16
#define INTERRUPTS	(1UL << 9)	/* in rflags */

static const unsigned char code[] = {
	0xff, 0x05,			/* 0: inc word [di] */
	0x81, 0xc7, 0x00, 0x10,		/*    add di, 4096 */
	0xeb, 0xf8,			/*    jmp 0 */
};

static int vcpu_fd = -1;
static struct kvm_run *run;

static inline void set_memory(int vm, uint32_t slot, uint64_t physical, void *address,
			      uint64_t length)
{
	struct kvm_userspace_memory_region memory = {
		.slot = slot, .guest_phys_addr = physical, .memory_size = length,
		.userspace_addr = (uintptr_t)address,
	};

	CHECK(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &memory), "memory: %s", strerror(errno));
}

/* A processor that runs in this memory; one that allows interrupts has a controller of them. */
static inline void vcpu_setup(char *memory, unsigned long rflags)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, size;
	char *program = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	struct kvm_regs regs = { .rflags = 2 | rflags };
	struct kvm_sregs sregs;

	if (kvm < 0)
		skip("no /dev/kvm here");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	CHECK(vm >= 0, "KVM_CREATE_VM: %s", strerror(errno));
	if (rflags & INTERRUPTS)
		CHECK(!ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	memcpy(program, code, sizeof(code));
	set_memory(vm, 0, 0, memory, GUEST_PAGES * PAGE);
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
}

#endif /* _VCPU_H */
