/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs whose instructions are counted have in common. */
#ifndef _BENCH_H
#define _BENCH_H

#include "umem_selftest.h"
#include <linux/userfaultfd.h>

/* With the clock of a host that counts instructions (-icount shift=0) a nanosecond is one. */
static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

/* A memfd all of whose pages are missing in its view. Returns the userfaultfd. */
static inline int userfaultfd(unsigned long pages, int *memory_fd, char **view)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };

	*memory_fd = syscall(SYS_memfd_create, "bench", 1U /* MFD_CLOEXEC */);
	CHECK(*memory_fd >= 0 && !ftruncate(*memory_fd, pages * PAGE), "memfd: %s",
	      strerror(errno));
	*view = map(*memory_fd, pages * PAGE);
	CHECK(fd >= 0 && !ioctl(fd, UFFDIO_API, &api), "userfaultfd: %s", strerror(errno));
	reg.range.start = (uintptr_t)*view;
	reg.range.len = pages * PAGE;
	CHECK(!ioctl(fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER: %s", strerror(errno));
	return fd;
}

#endif /* _BENCH_H */
