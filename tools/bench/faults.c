// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a fault costs that waits for a page, for faults.py: a line "NAME NUMBER" for each
 * figure. With the clock of a host that counts instructions (-icount shift=0) a nanosecond is
 * an instruction.
 *
 * Threads touch missing pages, each the next one when it has got one, and the main thread
 * brings them one by one in the order in which they are asked for. So at any time all of
 * them wait but the one that was answered last.
 */
#include "bench.h"

#define PASSES		3
#define FAULTS		8192UL	/* of a pass, that are counted */
#define MANY		1024UL
#define STACK		(64UL << 10)

static char *view, *source;
static unsigned long nr_pages, nr_threads;
static bool writing;
static int memory_fd, pager_fd;
static atomic_ulong nr_touching;

/* umem */

static void open_region(bool allocated)
{
	memory_fd = region_with(allocated ? UMEM_CREATE_HUGE : 0, nr_pages * PAGE, NULL);
	pager_fd = pager(memory_fd);
	view = map(memory_fd, nr_pages * PAGE);
	mark_missing(pager_fd, 0, nr_pages * PAGE);
	if (allocated)
		CHECK(!fallocate(memory_fd, 0, 0, nr_pages * PAGE), "fallocate: %s",
		      strerror(errno));
}

static void open_umem(void)
{
	open_region(false);
}

/* As umem-qemu and umemd do: 2 MiB folios, and before the guest comes. */
static void open_allocated(void)
{
	open_region(true);
}

static void serve_read(unsigned long faults)
{
	struct umem_copy copy;

	while (faults--)
		CHECK(!copy_ioctl(pager_fd, &copy, next_event(pager_fd).offset, source, PAGE),
		      "UMEM_COPY: %s", strerror(errno));
}

/* The call that brings a page returns the next request. */
static void serve_next(unsigned long faults)
{
	struct umem_event event;
	bool have = false;

	while (faults--) {
		struct umem_copy_entry entry = { .addr = (uintptr_t)source, .length = PAGE };
		struct umem_copy copy = { .size = sizeof(copy), .entries = (uintptr_t)&entry,
					  .nr_entries = 1 };

		if (!have)
			event = next_event(pager_fd);
		entry.offset = event.offset;
		if (faults) {
			copy.events = (uintptr_t)&event;
			copy.nr_events = 1;
		}
		CHECK(!ioctl(pager_fd, UMEM_COPY, &copy), "UMEM_COPY: %s", strerror(errno));
		have = copy.out_events;
	}
}

/* userfaultfd on a memfd */

static void open_userfault(void)
{
	pager_fd = userfaultfd(nr_pages, &memory_fd, &view);
}

static void serve_userfault(unsigned long faults)
{
	struct uffd_msg msg;

	while (faults--) {
		struct uffdio_copy copy = { .src = (uintptr_t)source, .len = PAGE };

		CHECK_EQ(read(pager_fd, &msg, sizeof(msg)), sizeof(msg));
		copy.dst = msg.arg.pagefault.address & -PAGE;
		CHECK(!ioctl(pager_fd, UFFDIO_COPY, &copy), "UFFDIO_COPY: %s", strerror(errno));
	}
}

static const struct way {
	const char *name;
	void (*open)(void);
	void (*serve)(unsigned long faults);
} ways[] = {
	{ "userfaultfd", open_userfault, serve_userfault },
	{ "read and COPY", open_umem, serve_read },
	{ "COPY gives the next", open_umem, serve_next },
	{ "allocated, read and COPY", open_allocated, serve_read },
	{ "allocated, COPY gives the next", open_allocated, serve_next },
};

static void *touch(void *number)
{
	atomic_fetch_add(&nr_touching, 1);
	for (unsigned long i = (unsigned long)number; i < nr_pages; i += nr_threads) {
		if (writing)
			view[i * PAGE] = 't';
		else
			(void)*(volatile char *)&view[i * PAGE];
	}
	return NULL;
}

/* Instructions a fault. The first of each thread does not count: it is made known then. */
static double pass(const struct way *way, unsigned long threads)
{
	pthread_t started[MANY];
	pthread_attr_t attr;
	double start, spent;

	nr_threads = threads;
	nr_pages = threads + FAULTS;
	atomic_store(&nr_touching, 0);
	way->open();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK);
	for (unsigned long i = 0; i < threads; i++)
		CHECK(!pthread_create(&started[i], &attr, touch, (void *)i), "pthread_create");
	while (atomic_load(&nr_touching) < threads)
		msleep(1);
	msleep(10);

	way->serve(threads);
	start = now();
	way->serve(FAULTS);
	spent = now() - start;

	for (unsigned long i = 0; i < threads; i++)
		pthread_join(started[i], NULL);
	for (unsigned long i = 0; i < nr_pages; i++) {
		CHECK_EQ(view[i * PAGE], writing ? 't' : 's');
		CHECK_EQ(view[i * PAGE + 1], 's');
	}
	munmap(view, nr_pages * PAGE);
	close(pager_fd);
	close(memory_fd);
	return spent / FAULTS;
}

static void tell(const struct way *way, unsigned long threads)
{
	for (int i = 0; i < PASSES; i++) {
		printf("%s, %s/%lu %.1f\n", writing ? "writing" : "reading", way->name, threads,
		       pass(way, threads));
		fflush(stdout);
	}
}

int main(void)
{
	source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(source != MAP_FAILED, "mmap");
	memset(source, 's', PAGE);
	for (int access = 0; access < 2; access++) {
		writing = !access;
		for (const struct way *way = ways; way < ways + sizeof(ways) / sizeof(*ways); way++) {
			tell(way, 1);
			tell(way, MANY);
		}
	}
	return 0;
}
