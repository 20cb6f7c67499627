// SPDX-License-Identifier: GPL-2.0-only
/*
 * What filling memory in bulk costs and touching it afterwards, for fill.py: a line "NAME
 * NUMBER" for each figure. With the clock of a host that counts instructions (-icount
 * shift=0) a nanosecond is an instruction.
 */
#include "bench.h"

#define PAGES	16384UL		/* 64 MiB */
#define AT_ONCE	64UL		/* pages of a call, 256 KiB */
#define PASSES	5

static char *view, *source;
static int memory_fd, pager_fd;

static void tell(const char *way, const char *what, double start)
{
	printf("%s/%s %.1f\n", way, what, (now() - start) / PAGES);
	fflush(stdout);
}

static void open_userfaultfd(void)
{
	pager_fd = userfaultfd(PAGES, &memory_fd, &view);
}

static void fill_userfaultfd(unsigned long page)
{
	struct uffdio_copy copy = { .dst = (uintptr_t)view + page * PAGE,
				    .src = (uintptr_t)source, .len = AT_ONCE * PAGE };

	CHECK(!ioctl(pager_fd, UFFDIO_COPY, &copy), "UFFDIO_COPY: %s", strerror(errno));
}

static void open_region(uint32_t flags)
{
	memory_fd = region_with(flags, PAGES * PAGE, NULL);
	pager_fd = pager(memory_fd);
	view = map(memory_fd, PAGES * PAGE);
	mark_missing(pager_fd, 0, PAGES * PAGE);
}

static void open_pages(void)
{
	open_region(0);
}

static void open_huge(void)
{
	open_region(UMEM_CREATE_HUGE);
}

static void allocate(void)
{
	CHECK(!fallocate(memory_fd, 0, 0, PAGES * PAGE), "fallocate: %s", strerror(errno));
}

static void fill_umem(unsigned long page)
{
	struct umem_copy copy;

	CHECK(!copy_ioctl(pager_fd, &copy, page * PAGE, source, AT_ONCE * PAGE),
	      "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_pages, AT_ONCE);
}

static const struct way {
	const char *name;
	void (*open)(void);
	void (*ahead)(void);	/* what is done before the guest comes */
	void (*fill)(unsigned long page);
} ways[] = {
	{ "userfaultfd", open_userfaultfd, NULL, fill_userfaultfd },
	{ "pages", open_pages, NULL, fill_umem },
	{ "pages allocated ahead", open_pages, allocate, fill_umem },
	{ "2 MiB", open_huge, NULL, fill_umem },
	{ "2 MiB allocated ahead", open_huge, allocate, fill_umem },
};

static void measure(const struct way *way)
{
	double start;

	way->open();
	start = now();
	if (way->ahead)
		way->ahead();
	tell(way->name, "ahead", start);
	start = now();
	for (unsigned long page = 0; page < PAGES; page += AT_ONCE)
		way->fill(page);
	tell(way->name, "fill", start);
	/* Views of a complete region may be relaxed meanwhile; most of it is touched before. */
	start = now();
	for (unsigned long page = 0; page < PAGES; page++)
		view[page * PAGE]++;
	tell(way->name, "touch", start);
	munmap(view, PAGES * PAGE);
	close(pager_fd);
	close(memory_fd);
}

int main(void)
{
	source = mmap(NULL, AT_ONCE * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(source != MAP_FAILED, "mmap: %s", strerror(errno));
	memset(source, 'a', AT_ONCE * PAGE);
	for (int i = 0; i < PASSES; i++)
		for (const struct way *way = ways; way < ways + sizeof(ways) / sizeof(*ways); way++)
			measure(way);
	return 0;
}
