/* SPDX-License-Identifier: GPL-2.0-only */
/* A region whose dirty pages are tracked, and a race of writers with collection. */
#ifndef _DIRTY_REGION_H
#define _DIRTY_REGION_H

#include "umem_selftest.h"

#define NR		64
#define RACE_SECONDS	60

static int region_fd, pager_fd;
static char *guest;

static inline int track(uint32_t op, struct umem_track *track, uint64_t offset, uint64_t length,
			uint64_t *bits)
{
	*track = (struct umem_track){ .size = sizeof(*track), .op = op, .offset = offset,
				      .length = length, .bits = (uintptr_t)bits };
	return ioctl(pager_fd, UMEM_TRACK, track);
}

static inline void track_start(void)
{
	struct umem_track t;

	CHECK(!track(UMEM_TRACK_START, &t, 0, 0, NULL), "START: %s", strerror(errno));
}

/* A bit for each dirty page; NR is 64. */
static inline uint64_t collect(void)
{
	struct umem_track t;
	uint64_t bits;

	CHECK(!track(UMEM_TRACK_COLLECT, &t, 0, NR * PAGE, &bits), "COLLECT: %s",
	      strerror(errno));
	CHECK_EQ(t.out_pages, __builtin_popcountll(bits));
	return bits;
}

static inline void collect_until_clean(void)
{
	for (int i = 0; i < 1000; i++) {
		empty_lists();
		if (!collect())
			return;
		msleep(1);
	}
	CHECK_EQ(collect(), 0);
}

static inline void setup(void)
{
	region_fd = region(NR * PAGE);
	pager_fd = pager(region_fd);
	guest = map(region_fd, NR * PAGE);
}

/* Every page is mapped, and clean. */
static inline void setup_clean(void)
{
	setup();
	track_start();
	for (int i = 0; i < NR; i++)
		guest[i * PAGE] = 'a';
	collect_until_clean();
}

/*
 * A race. Each writer writes where and what it wants; the collector copies each page
 * that it is told. With the writers gone and a last collection the copy is the memory,
 * or a write was lost.
 */
struct writer {
	const char *name;
	void (*write)(unsigned int *seed);
	atomic_ulong writes;
	pthread_t thread;
};

static atomic_bool race_stop;
static char copy_of_guest[NR * PAGE];

static inline void *writer_main(void *arg)
{
	struct writer *writer = arg;
	unsigned int seed = (uintptr_t)arg;

	while (!race_stop) {
		writer->write(&seed);
		writer->writes++;
	}
	return NULL;
}

static inline unsigned long copy_dirty(void)
{
	uint64_t bits = collect();

	for (int i = 0; i < NR; i++) {
		if (bits >> i & 1)
			memcpy(copy_of_guest + i * PAGE, guest + i * PAGE, PAGE);
	}
	return __builtin_popcountll(bits);
}

static inline bool all_wrote(const struct writer *writers, int nr, unsigned long times)
{
	for (int i = 0; i < nr; i++) {
		if (writers[i].writes <= times)
			return false;
	}
	return true;
}

/* For RACE_SECONDS, or until all have written: the kernel may be one that looks for bugs. */
static inline void race(struct writer *writers, int nr)
{
	unsigned long rounds = 0, told = 0;
	time_t end = time(NULL) + RACE_SECONDS;

	alarm(RACE_SECONDS + BUSY * test_seconds());
	setup();
	track_start();
	for (int i = 0; i < nr; i++)
		CHECK(!pthread_create(&writers[i].thread, NULL, writer_main, &writers[i]),
		      "pthread_create");
	while (time(NULL) < end || !all_wrote(writers, nr, 100)) {
		told += copy_dirty();
		rounds++;
		if (!(rounds % 16))
			msleep(1);
	}
	race_stop = true;
	for (int i = 0; i < nr; i++) {
		pthread_join(writers[i].thread, NULL);
		printf("# %s: %lu writes\n", writers[i].name, writers[i].writes);
	}
	copy_dirty();
	printf("# %lu rounds of collection told %lu pages\n", rounds, told);
	for (int i = 0; i < NR; i++)
		CHECK(!memcmp(copy_of_guest + i * PAGE, guest + i * PAGE, PAGE),
		      "a write to page %d was not told", i);
	/* Some rounds found something clean, or nothing was tested. */
	CHECK(told < rounds * NR, "every page was told every time");
}

#endif /* _DIRTY_REGION_H */
