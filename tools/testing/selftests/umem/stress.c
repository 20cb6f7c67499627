// SPDX-License-Identifier: GPL-2.0-only
/*
 * 16 threads do random operations on three regions and check every byte they read
 * against a model: it must have been legal at that moment.
 *
 * The model of a page is the history of what was done to it, a value for each
 * change: its contents from then on, or that it is missing or poisoned. Whoever
 * changes a page through the pager, by a punched hole or by writing holds the page's
 * lock meanwhile, so changes have an order, and the result of each is known: how many
 * pages it changes and how many it skips. Readers take no lock. What they read must
 * be the value of a change not before the last one that had ended when they began,
 * nor after the last one that had begun when they ended.
 *
 * usage: stress; UMEM_STRESS_SECONDS says for how long (10)
 */
#include "umem_selftest.h"
#include <sched.h>
#include <setjmp.h>
#include <sys/prctl.h>

#define NR_REGIONS	3
#define NR_THREADS	16
#define NR_SERVERS	2
#define MAX_PAGES	1200
#define MAX_RANGE	24
#define BLOCK_PAGES	512

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif
#define HISTORY		256

#define ZERO		0ULL
#define MISSING		(~0ULL)
#define POISONED	(~0ULL - 1)

struct page {
	atomic_uint begun;	/* the last change that has begun */
	atomic_uint ended;	/* the last one that has ended */
	_Atomic uint64_t values[HISTORY];
	_Atomic uint64_t filled;	/* what is there while the page is missing */
	atomic_uint written;	/* the last change that made it dirty */
	atomic_uint collected;	/* the last one that a collection may have told */
	atomic_bool locked;
};

static struct area {
	int fd;
	int pager;
	pthread_rwlock_t pager_lock;	/* for writing: the pager goes and another comes */
	pthread_mutex_t collector;
	bool tracking;
	unsigned int nr;
	bool huge;
	char *views[3];
	char *fill;
	struct page *pages;
} areas[NR_REGIONS] = {
	{ .nr = 40 },
	{ .nr = MAX_PAGES },
	{ .nr = MAX_PAGES, .huge = true },
};

enum { READ, WAITED, CHANGES, RESULTS };

static atomic_ulong counts[RESULTS];
static atomic_bool stop;

static __thread unsigned int seed;
static __thread sigjmp_buf on_sigbus;
static __thread volatile sig_atomic_t expecting_sigbus;

static unsigned int any(unsigned int below)
{
	return rand_r(&seed) % below;
}

static void lock_pages(struct area *area, unsigned int first, unsigned int nr)
{
	for (unsigned int i = first; i < first + nr; i++)
		while (atomic_exchange(&area->pages[i].locked, true))
			sched_yield();
}

static void unlock_pages(struct area *area, unsigned int first, unsigned int nr)
{
	for (unsigned int i = first; i < first + nr; i++)
		area->pages[i].locked = false;
}

/* For who holds the page's lock */
static uint64_t now(struct page *page)
{
	return page->values[page->ended % HISTORY];
}

static bool fillable(struct page *page)
{
	return now(page) == MISSING;
}

static void begin(struct page *page, uint64_t value)
{
	page->values[(page->ended + 1) % HISTORY] = value;
	page->begun = page->ended + 1;
}

static void end(struct page *page)
{
	page->ended = page->begun;
	counts[CHANGES]++;
	if (now(page) != MISSING && now(page) != POISONED)
		page->written = page->ended;
}

static void end_changes(struct area *area, unsigned int first, unsigned int nr)
{
	for (unsigned int i = first; i < first + nr; i++)
		if (area->pages[i].begun != area->pages[i].ended)
			end(&area->pages[i]);
}

/* Different for each page and each change of it */
static uint64_t fresh(struct area *area, unsigned int i)
{
	return 1ULL << 63 | (uint64_t)(area - areas) << 56 | (uint64_t)i << 32 |
	       (area->pages[i].ended + 1);
}

static void write_words(volatile uint64_t *to, uint64_t value)
{
	for (unsigned int i = 0; i < PAGE / 8; i++)
		to[i] = value;
}

/* Was it legal to see this, between when @from was ended and now? */
static void check(struct area *area, unsigned int i, unsigned int from, uint64_t seen,
		  const char *how)
{
	struct page *page = &area->pages[i];
	unsigned int to = page->begun;
	bool legal = false;

	for (unsigned int n = from; n - from <= to - from; n++)
		legal |= page->values[n % HISTORY] == seen;
	/* Its history may have been overwritten meanwhile. */
	if (page->begun - from >= HISTORY)
		return;
	CHECK(legal, "%s: page %u of region %td has %llx, from %u to %u it was %llx to %llx", how,
	      i, area - areas, (unsigned long long)seen, from, to,
	      (unsigned long long)page->values[from % HISTORY],
	      (unsigned long long)page->values[to % HISTORY]);
	counts[READ]++;
}

static void sigbus(int sig)
{
	(void)sig;
	if (!expecting_sigbus) {
		printf("# SIGBUS out of place\n");
		fflush(stdout);
		_exit(1);
	}
	siglongjmp(on_sigbus, 1);
}

static uint64_t load(volatile uint64_t *from)
{
	uint64_t seen;

	expecting_sigbus = 1;
	seen = sigsetjmp(on_sigbus, 1) ? POISONED : *from;
	expecting_sigbus = 0;
	return seen;
}

/* The operations; each is given pages of an area, which it locks or not. */

static void op_read(struct area *area, unsigned int first, unsigned int nr)
{
	char *view = area->views[any(3)];

	for (unsigned int i = first; i < first + nr && !stop; i++) {
		unsigned int from = area->pages[i].ended;

		if (area->pages[i].values[from % HISTORY] == MISSING)
			counts[WAITED]++;
		check(area, i, from, load((uint64_t *)(view + i * PAGE) + any(PAGE / 8)), "load");
	}
}

/* read() waits for nothing. */
static void op_pread(struct area *area, unsigned int i, unsigned int nr)
{
	unsigned int from = area->pages[i].ended;
	uint64_t seen;
	ssize_t got;

	(void)nr;
	got = pread(area->fd, &seen, sizeof(seen), i * PAGE + any(PAGE / 8) * 8);
	if (got == -1 && errno == EAGAIN)
		seen = MISSING;
	else if (got == -1 && errno == EIO)
		seen = POISONED;
	else
		CHECK(got == sizeof(seen), "pread: %zd, %s", got, strerror(errno));
	check(area, i, from, seen, "pread");
}

/* Another process sees the same. It gives the pagers back that it inherits. */
static void op_fork(struct area *area, unsigned int first, unsigned int nr)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0U, 0);
		for (unsigned int i = first; i < first + nr; i++) {
			unsigned int from = area->pages[i].ended;
			uint64_t *at = (uint64_t *)(area->views[0] + i * PAGE);

			check(area, i, from, load(at + any(PAGE / 8)), "load of a child");
		}
		_exit(0);
	}
	CHECK(pid > 0, "fork: %s", strerror(errno));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "status %x", status);
}

static void op_write(struct area *area, unsigned int first, unsigned int nr)
{
	char *view = area->views[any(3)];

	lock_pages(area, first, nr);
	for (unsigned int i = first; i < first + nr; i++) {
		struct page *page = &area->pages[i];

		if (now(page) == MISSING || now(page) == POISONED)
			continue;
		begin(page, fresh(area, i));
		write_words((uint64_t *)(view + i * PAGE), page->values[page->begun % HISTORY]);
		end(page);
	}
	unlock_pages(area, first, nr);
}

static void op_punch(struct area *area, unsigned int first, unsigned int nr)
{
	lock_pages(area, first, nr);
	for (unsigned int i = first; i < first + nr; i++)
		begin(&area->pages[i], ZERO);
	CHECK(!fallocate(area->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * PAGE,
			 nr * PAGE), "punch: %s", strerror(errno));
	end_changes(area, first, nr);
	unlock_pages(area, first, nr);
}

static void op_mark_missing(struct area *area, unsigned int first, unsigned int nr)
{
	unsigned int present = 0;
	struct umem_range range;

	lock_pages(area, first, nr);
	for (unsigned int i = first; i < first + nr; i++) {
		present += !fillable(&area->pages[i]);
		begin(&area->pages[i], MISSING);
	}
	CHECK(!range_ioctl(area->pager, UMEM_MARK_MISSING, &range, first * PAGE, nr * PAGE),
	      "MARK_MISSING: %s", strerror(errno));
	CHECK_EQ(range.out_pages, present);
	for (unsigned int i = first; i < first + nr; i++) {
		area->pages[i].filled = ZERO;
		end(&area->pages[i]);
	}
	unlock_pages(area, first, nr);
}

/* What UMEM_PUBLISH, ZERO and POISON do to those that are missing, and only to them */
static void change_missing(struct area *area, unsigned int first, unsigned int nr,
			   unsigned long cmd, uint64_t (*value)(struct page *page))
{
	unsigned int missing = 0;
	struct umem_range range;

	lock_pages(area, first, nr);
	for (unsigned int i = first; i < first + nr; i++) {
		if (!fillable(&area->pages[i]))
			continue;
		begin(&area->pages[i], value(&area->pages[i]));
		missing++;
	}
	CHECK(!range_ioctl(area->pager, cmd, &range, first * PAGE, nr * PAGE), "ioctl %lx: %s",
	      cmd, strerror(errno));
	CHECK_EQ(range.out_pages, missing);
	CHECK_EQ(range.out_skipped, nr - missing);
	end_changes(area, first, nr);
	unlock_pages(area, first, nr);
}

static uint64_t value_filled(struct page *page)
{
	return page->filled;
}

static uint64_t value_zero(struct page *page)
{
	(void)page;
	return ZERO;
}

static uint64_t value_poisoned(struct page *page)
{
	(void)page;
	return POISONED;
}

static void op_publish(struct area *area, unsigned int first, unsigned int nr)
{
	change_missing(area, first, nr, UMEM_PUBLISH, value_filled);
}

static void op_zero(struct area *area, unsigned int first, unsigned int nr)
{
	change_missing(area, first, nr, UMEM_ZERO, value_zero);
}

static void op_poison(struct area *area, unsigned int i, unsigned int nr)
{
	(void)nr;
	change_missing(area, i, 1, UMEM_POISON, value_poisoned);
}

static void copy_pages(struct area *area, unsigned int first, unsigned int nr, uint32_t flags)
{
	static __thread uint64_t from[MAX_RANGE * PAGE / 8];
	struct umem_copy_entry entry = { first * PAGE, (uintptr_t)from, nr * PAGE };
	struct umem_copy copy = {
		.size = sizeof(copy),
		.flags = flags,
		.entries = (uintptr_t)&entry,
		.nr_entries = 1,
	};
	unsigned int missing = 0;

	lock_pages(area, first, nr);
	for (unsigned int i = first; i < first + nr; i++) {
		uint64_t value = fresh(area, i);

		write_words(from + (i - first) * PAGE / 8, value);
		if (!fillable(&area->pages[i]))
			continue;
		missing++;
		area->pages[i].filled = value;
		if (!flags)
			begin(&area->pages[i], value);
	}
	CHECK(!ioctl(area->pager, UMEM_COPY, &copy), "UMEM_COPY: %s", strerror(errno));
	CHECK_EQ(copy.out_pages, missing);
	CHECK_EQ(copy.out_skipped, nr - missing);
	end_changes(area, first, nr);
	unlock_pages(area, first, nr);
}

static void op_copy(struct area *area, unsigned int first, unsigned int nr)
{
	copy_pages(area, first, nr, 0);
}

static void op_copy_unpublished(struct area *area, unsigned int first, unsigned int nr)
{
	copy_pages(area, first, nr, UMEM_FILL_UNPUBLISHED);
}

/* The fill view has the missing pages and no others. */
static void op_fill(struct area *area, unsigned int i, unsigned int nr)
{
	volatile uint64_t *fill = (uint64_t *)(area->fill + i * PAGE);
	struct page *page = &area->pages[i];

	(void)nr;
	lock_pages(area, i, 1);
	if (fillable(page)) {
		CHECK_EQ(load(fill + any(PAGE / 8)), page->filled);
		write_words(fill, fresh(area, i));
		page->filled = fresh(area, i);
	} else {
		CHECK_EQ(load(fill), POISONED);
	}
	unlock_pages(area, i, 1);
}

static void op_bitmap(struct area *area, unsigned int first, unsigned int nr)
{
	struct umem_bitmap bitmap = { .size = sizeof(bitmap), .offset = first * PAGE,
				      .length = nr * PAGE };
	uint64_t bits;

	bitmap.bits = (uintptr_t)&bits;
	lock_pages(area, first, nr);
	CHECK(!ioctl(area->pager, UMEM_GET_BITMAP, &bitmap), "GET_BITMAP: %s", strerror(errno));
	for (unsigned int i = 0; i < nr; i++) {
		uint64_t value = now(&area->pages[first + i]);

		CHECK_EQ(bits >> i & 1, value != MISSING && value != POISONED);
	}
	unlock_pages(area, first, nr);
}

/*
 * A collection tells what was dirty before it began. What became dirty since then it may
 * have told as well.
 */
static void collect(struct area *area)
{
	static __thread unsigned int written[MAX_PAGES];
	static __thread uint64_t bits[(MAX_PAGES + 63) / 64];
	struct umem_track track = { .size = sizeof(track), .op = UMEM_TRACK_COLLECT,
				    .length = area->nr * PAGE, .bits = (uintptr_t)bits };

	for (unsigned int i = 0; i < area->nr; i++)
		written[i] = area->pages[i].written;
	CHECK(!ioctl(area->pager, UMEM_TRACK, &track), "COLLECT: %s", strerror(errno));
	for (unsigned int i = 0; i < area->nr; i++) {
		struct page *page = &area->pages[i];

		if (bits[i / 64] >> i % 64 & 1)
			page->collected = page->begun;
		else
			CHECK(written[i] <= page->collected,
			      "page %u of region %td: change %u was not told, %u was", i,
			      area - areas, written[i], page->collected);
	}
}

static void op_track(struct area *area, unsigned int first, unsigned int nr)
{
	struct umem_track track = { .size = sizeof(track) };

	(void)first;
	(void)nr;
	pthread_mutex_lock(&area->collector);
	if (area->tracking && any(8)) {
		collect(area);
	} else {
		track.op = area->tracking ? UMEM_TRACK_STOP : UMEM_TRACK_START;
		CHECK(!ioctl(area->pager, UMEM_TRACK, &track), "TRACK: %s", strerror(errno));
		area->tracking = !area->tracking;
	}
	pthread_mutex_unlock(&area->collector);
}

/* The memory manager takes mappings away, or pages, and another view comes and goes. */
static void op_advise(struct area *area, unsigned int first, unsigned int nr)
{
	static const int advice[] = { MADV_DONTNEED, MADV_PAGEOUT, MADV_COLD, MADV_WILLNEED };

	madvise(area->views[any(3)] + first * PAGE, nr * PAGE, advice[any(4)]);
}

static void op_view(struct area *area, unsigned int i, unsigned int nr)
{
	unsigned int from = area->pages[i].ended;
	uint64_t *view;

	(void)nr;
	view = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, area->fd, i * PAGE);
	CHECK(view != MAP_FAILED, "mmap: %s", strerror(errno));
	check(area, i, from, load(view), "load from a new view");
	munmap(view, PAGE);
}

/* Memory is allocated ahead, which changes no page. */
static void op_allocate(struct area *area, unsigned int first, unsigned int nr)
{
	CHECK(!fallocate(area->fd, 0, first * PAGE, nr * PAGE), "fallocate: %s", strerror(errno));
}

/* Refused while a page is missing, and without memory; what it does is not seen. */
static void op_collapse(struct area *area, unsigned int first, unsigned int nr)
{
	(void)nr;
	madvise(area->views[any(3)] + first / BLOCK_PAGES * BLOCK_PAGES * PAGE,
		BLOCK_PAGES * PAGE, MADV_COLLAPSE);
}

static void attach(struct area *area)
{
	area->pager = pager(area->fd);
	fcntl(area->pager, F_SETFL, O_NONBLOCK);
	area->fill = map(area->pager, area->nr * PAGE);
	area->tracking = false;
}

/* The pager dies and another goes on. */
static void replace_pager(struct area *area)
{
	pthread_rwlock_wrlock(&area->pager_lock);
	munmap(area->fill, area->nr * PAGE);
	close(area->pager);
	/* A child that has just been forked has it still. */
	while (info(area->fd).pager)
		sched_yield();
	attach(area);
	pthread_rwlock_unlock(&area->pager_lock);
}

static const struct op {
	void (*op)(struct area *area, unsigned int first, unsigned int nr);
	unsigned int weight;
	bool needs_pager;
	bool wide;	/* may be done to all pages at once */
} ops[] = {
	{ op_read, 40, false, false },
	{ op_pread, 10, false, false },
	{ op_write, 20, false, false },
	{ op_punch, 4, false, true },
	{ op_mark_missing, 12, true, true },
	{ op_copy, 6, true, false },
	{ op_copy_unpublished, 6, true, false },
	{ op_publish, 6, true, true },
	{ op_zero, 3, true, true },
	{ op_poison, 1, true, false },
	{ op_fill, 6, true, false },
	{ op_bitmap, 3, true, false },
	{ op_track, 3, true, false },
	{ op_advise, 4, false, true },
	{ op_view, 3, false, false },
	{ op_fork, 1, false, false },
	{ op_allocate, 2, false, true },
	{ op_collapse, 2, false, false },
};

static const struct op *any_op(void)
{
	unsigned int sum = 0, n;
	const struct op *op;

	for (op = ops; op < ops + sizeof(ops) / sizeof(*ops); op++)
		sum += op->weight;
	n = any(sum);
	for (op = ops; n >= op->weight; op++)
		n -= op->weight;
	return op;
}

static void *worker(void *arg)
{
	seed = (uintptr_t)arg;
	while (!stop) {
		struct area *area = &areas[any(NR_REGIONS)];
		unsigned int nr = 1 + any(MAX_RANGE);
		unsigned int first = any(area->nr - nr + 1);
		const struct op *op = any_op();

		/* Or no large folio, and no complete region, would be seen for long. */
		if (op->wide && !any(16)) {
			first = 0;
			nr = area->nr;
		}
		if (op->needs_pager)
			pthread_rwlock_rdlock(&area->pager_lock);
		op->op(area, first, nr);
		if (op->needs_pager)
			pthread_rwlock_unlock(&area->pager_lock);
	}
	return NULL;
}

/* Bring what is asked for. With all others gone, whoever still waits gets it, too. */
static bool serve(struct area *area)
{
	struct umem_event events[16];
	ssize_t got;

	pthread_rwlock_rdlock(&area->pager_lock);
	got = read(area->pager, events, sizeof(events));
	CHECK(got >= 0 || errno == EAGAIN, "read: %s", strerror(errno));
	for (ssize_t n = 0; n < got / (ssize_t)sizeof(*events); n++)
		if (events[n].type == UMEM_EVENT_REQUEST)
			op_copy(area, events[n].offset / PAGE, 1);
	pthread_rwlock_unlock(&area->pager_lock);
	return got > 0;
}

static atomic_bool serving;

static void *server(void *arg)
{
	seed = (uintptr_t)arg;
	while (serving) {
		bool idle = true;

		for (struct area *area = areas; area < areas + NR_REGIONS; area++) {
			if (!any(2000))
				replace_pager(area);
			idle &= !serve(area);
		}
		if (idle)
			msleep(1);
	}
	return NULL;
}

static void prepare(struct area *area)
{
	size_t length = sizeof(*area->pages) * area->nr;
	pthread_rwlockattr_t attr;

	area->fd = region_with(area->huge ? UMEM_CREATE_HUGE : 0, area->nr * PAGE, NULL);
	/* Children look at the model, too. */
	area->pages = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
			   0);
	CHECK(area->pages != MAP_FAILED, "mmap: %s", strerror(errno));
	for (int i = 0; i < 3; i++)
		area->views[i] = map(area->fd, area->nr * PAGE);
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&area->pager_lock, &attr);
	pthread_mutex_init(&area->collector, NULL);
	attach(area);
}

static void random_operations_keep_to_the_model(void)
{
	const char *text = getenv("UMEM_STRESS_SECONDS");
	int seconds = text ? atoi(text) : 10;
	pthread_t threads[NR_THREADS];

	alarm(2 * seconds + BUSY * test_seconds());
	signal(SIGBUS, sigbus);
	for (struct area *area = areas; area < areas + NR_REGIONS; area++)
		prepare(area);
	serving = true;
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, i < NR_SERVERS ? server : worker,
				      (void *)(time(NULL) + i)), "pthread_create");
	msleep(seconds * 1000);
	stop = true;
	for (int i = NR_SERVERS; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	serving = false;
	for (int i = 0; i < NR_SERVERS; i++)
		pthread_join(threads[i], NULL);
	printf("# %lu changes, %lu reads, %lu of them of missing pages\n", counts[CHANGES],
	       counts[READ], counts[WAITED]);
	CHECK(counts[CHANGES] && counts[READ] && counts[WAITED], "nothing was tested");
	for (struct area *area = areas; area < areas + NR_REGIONS; area++) {
		struct umem_info now = info(area->fd);

		CHECK_EQ(now.waiters, 0);
		if (area->huge)
			printf("# %llu folios of 2 MiB, %llu others\n", now.huge_folios,
			       now.huge_fallbacks);
	}
}

static const struct test tests[] = {
	TEST(random_operations_keep_to_the_model),
};

TEST_MAIN(tests)
