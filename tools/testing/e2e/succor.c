// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tells the guest of a QEMU that its processor recovers from uncorrected errors (SUCCOR):
 *
 *   LD_PRELOAD=.../succor.so qemu-system-x86_64 ...
 *
 * Without that Linux, as a guest with one of AMD's processors, panics at the first machine
 * check. QEMU 9.0 and later tell it with -cpu ...,succor=on, older ones cannot.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/kvm.h>

#define CPUID_RAS	0x80000007
#define EBX_SUCCOR	(1u << 1)

/* QEMU leaves out functions that have nothing to tell. */
static struct kvm_cpuid2 *with_succor(const struct kvm_cpuid2 *given)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) +
					  (given->nent + 1) * sizeof(cpuid->entries[0]));
	unsigned int i = 0;

	if (!cpuid)
		abort();
	memcpy(cpuid, given, sizeof(*given) + given->nent * sizeof(given->entries[0]));
	while (i < cpuid->nent && cpuid->entries[i].function != CPUID_RAS)
		i++;
	if (i == cpuid->nent)
		cpuid->nent++;
	cpuid->entries[i].function = CPUID_RAS;
	cpuid->entries[i].ebx |= EBX_SUCCOR;
	return cpuid;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct kvm_cpuid2 *cpuid = NULL;
	va_list arguments;
	void *argument;
	int result;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (request == KVM_SET_CPUID2)
		argument = cpuid = with_succor(argument);
	result = (int)syscall(SYS_ioctl, fd, request, argument);
	free(cpuid);
	return result;
}
