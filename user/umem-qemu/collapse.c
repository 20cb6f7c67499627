// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/collapse.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"

#ifndef MADV_COLLAPSE		/* glibc 2.37 */
#define MADV_COLLAPSE	25
#endif

/* The kernel lets go of a view's missing pages a moment after the last has come. */
#define GUARDED_TRIES	50
#define GUARDED_US	20000

/* For pages that somebody holds just now */
#define BUSY_TRIES	3
#define BUSY_US		10000

/* How much longer than it works it pauses: QEMU waits where it touches what is worked on. */
#define PAUSE_FACTOR	4
#define PAUSE_MIN_US	1000

bool collapse_parse(const char *line, struct collapse_map *map)
{
	unsigned long long start, end, offset, inode;
	unsigned int major, minor;
	char shared;

	if (sscanf(line, "%llx-%llx %*c%*c%*c%c %llx %x:%x %llu", &start, &end, &shared, &offset,
		   &major, &minor, &inode) != 7)
		return false;
	*map = (struct collapse_map){
		.start = start,
		.end = end,
		.offset = offset,
		.shared = shared == 's',
		.device = makedev(major, minor),
		.inode = inode,
	};
	return true;
}

static bool for_all(int err)
{
	return err == -EPERM || err == -ENOSYS || err == -ESRCH;
}

static int collapse_block(uint64_t address, bool first, const struct collapse_ops *ops,
			  void *context)
{
	unsigned int guarded = first ? GUARDED_TRIES : 0, busy = BUSY_TRIES;

	for (;;) {
		uint64_t began = ops->now_us(context), took;
		int err = ops->collapse(context, address);

		if (err == -EINVAL && guarded) {
			guarded--;
			ops->wait(context, GUARDED_US);
			continue;
		}
		if ((err == -EAGAIN || err == -EBUSY) && busy) {
			busy--;
			ops->wait(context, BUSY_US);
			continue;
		}
		took = ops->now_us(context) - began;
		ops->wait(context, max(PAUSE_FACTOR * took, (uint64_t)PAUSE_MIN_US));
		return err;
	}
}

/*
 * A block with holes is left alone: the guest has given their memory back. A mapping whose
 * first block cannot be done, however long it is waited for, is no mapping of huge pages.
 */
long collapse_map(const struct collapse_map *map, const struct collapse_ops *ops, void *context)
{
	uint64_t address = (map->start + COLLAPSE_BLOCK - 1) & ~(COLLAPSE_BLOCK - 1);
	bool first = true;
	long nr = 0;

	if ((map->start - map->offset) % COLLAPSE_BLOCK)
		return 0;
	for (; address + COLLAPSE_BLOCK <= map->end; address += COLLAPSE_BLOCK) {
		int err;

		if (!ops->is_whole(context, map->offset + (address - map->start)))
			continue;
		err = collapse_block(address, first, ops, context);
		if (for_all(err))
			return err;
		if (err == -EINVAL && first)
			return 0;
		first = false;
		nr += !err;
	}
	return nr;
}

/* ---- the process ---- */

struct worker {
	int process;		/* pidfd */
	int region_fd;		/* of the mapping at work */
};

static int collapse_now(void *context, uint64_t address)
{
	const struct worker *worker = context;
	struct iovec block = { (void *)(uintptr_t)address, COLLAPSE_BLOCK };

	return syscall(SYS_process_madvise, worker->process, &block, 1UL, MADV_COLLAPSE, 0U) < 0 ?
	       -errno : 0;
}

static bool is_whole(void *context, uint64_t offset)
{
	const struct worker *worker = context;
	off_t hole = lseek(worker->region_fd, (off_t)offset, SEEK_HOLE);

	return hole < 0 || (uint64_t)hole >= offset + COLLAPSE_BLOCK;
}

static void wait_us(void *context, uint64_t microseconds)
{
	struct timespec time = {
		.tv_sec = (time_t)(microseconds / 1000000),
		.tv_nsec = (long)(microseconds % 1000000 * NSEC_PER_USEC),
	};

	(void)context;
	nanosleep(&time, NULL);
}

static uint64_t now_us(void *context)
{
	struct timespec time;

	(void)context;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / NSEC_PER_USEC;
}

static const struct collapse_ops ops = {
	.collapse = collapse_now,
	.is_whole = is_whole,
	.wait = wait_us,
	.now_us = now_us,
};

/* The descriptor of the region that is mapped there, or -1. */
static int region_of(const struct collapse_map *map, const int *region_fds, size_t nr)
{
	struct stat st;

	for (size_t i = 0; i < nr; i++) {
		if (map->shared && !fstat(region_fds[i], &st) && st.st_ino == map->inode &&
		    st.st_dev == map->device)
			return region_fds[i];
	}
	return -1;
}

static int collapse_all(struct worker *worker, FILE *maps, const int *region_fds, size_t nr)
{
	struct collapse_map map;
	char *line = NULL;
	size_t size = 0;
	long done = 0;

	while (done >= 0 && getline(&line, &size, maps) > 0) {
		if (!collapse_parse(line, &map))
			continue;
		worker->region_fd = region_of(&map, region_fds, nr);
		if (worker->region_fd >= 0)
			done = collapse_map(&map, &ops, worker);
	}
	free(line);
	return done < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* What umem-qemu closes from now on is to be closed. */
static void keep_only(const int *fds, size_t nr)
{
	int end = STDERR_FILENO + 1;

	for (size_t i = 0; i < nr; i++)
		end = max(end, fds[i] + 1);
	for (int fd = STDIN_FILENO; fd < end; fd++) {
		bool kept = fd == STDERR_FILENO;

		for (size_t i = 0; i < nr; i++)
			kept = kept || fds[i] == fd;
		if (!kept)
			close(fd);
	}
	close_range((unsigned int)end, ~0U, 0);
}

static int work(pid_t pid, const int *region_fds, size_t nr)
{
	struct worker worker;
	char path[32];
	FILE *maps;

	keep_only(region_fds, nr);
	worker.process = (int)syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	return worker.process < 0 || !maps ? EXIT_FAILURE :
	       collapse_all(&worker, maps, region_fds, nr);
}

pid_t collapse_start(pid_t pid, const int *region_fds, size_t nr)
{
	pid_t self = getpid(), child = fork();
	sigset_t none;

	if (child)
		return child < 0 ? -errno : child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != self)
		_exit(EXIT_FAILURE);
	prctl(PR_SET_NAME, "umem-collapse");
	/* Not lower: QEMU would wait for a lock that this holds and for whoever goes before it. */
	setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, (id_t)pid));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	_exit(work(pid, region_fds, nr));
}
