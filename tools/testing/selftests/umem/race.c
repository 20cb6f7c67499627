// SPDX-License-Identifier: GPL-2.0-only
/*
 * Races: touchers, a pager, discards and marks at the same time, against a
 * model. All of the region is marked missing again and again; each time begins
 * a generation. The pager answers with (page, generation) in every word. An
 * answer or a discard that began in a generation may land in the next, not
 * later. So a word may be of this or the last generation, or zero if the page
 * was discarded in one of these.
 */
#include "umem_selftest.h"

#define NR		64
#define TOUCHERS	8
#define SECONDS		4
#define WORDS		(PAGE / sizeof(uint64_t))

static int region_fd, pager_fd;
static uint64_t *guest;
static atomic_bool stop;
static atomic_ulong reads, answers, rounds;
static bool use_fill_view;
static uint64_t *fill;
static pthread_mutex_t fill_lock = PTHREAD_MUTEX_INITIALIZER;

static atomic_ulong generation;
/* Odd while all is being marked missing */
static atomic_ulong marks;
static atomic_ulong discarded[NR];

/* In which generation these two began what they do, 0 while they do nothing */
enum { PAGER, DISCARDER, NR_BUSY };
static atomic_ulong busy[NR_BUSY];

static uint64_t word_of(uint64_t page, uint64_t gen)
{
	return (page + 1) << 32 | gen;
}

static void check_word(uint64_t page, uint64_t word, uint64_t oldest)
{
	if (!word) {
		CHECK(discarded[page] >= oldest, "page %lu is zero, last discarded in %lu of %lu",
		      page, discarded[page], oldest);
		return;
	}
	CHECK(word >> 32 == page + 1, "page %lu shows page %ld", page, (word >> 32) - 1);
	CHECK((word & 0xffffffff) >= oldest && (word & 0xffffffff) <= generation,
	      "page %lu shows generation %lu, not %lu to %lu", page, word & 0xffffffff,
	      oldest, generation);
}

/* Every word is legal, and all are alike unless the page went in between. */
static void check_page(uint64_t page)
{
	const volatile uint64_t *words = guest + page * WORDS;
	uint64_t oldest = generation - 1, seq = marks, first, word;

	/* What the last generation showed may be there until all is marked. */
	oldest -= seq % 2;
	first = words[0];
	check_word(page, first, oldest);
	for (unsigned long i = 1; i < WORDS; i += 37) {
		word = words[i];
		check_word(page, word, oldest);
		CHECK(word == first || !word || seq % 2 || marks != seq,
		      "page %lu is a mixture of %lx and %lx", page, first, word);
	}
}

static void *toucher(void *seed_arg)
{
	unsigned int seed = (uintptr_t)seed_arg;

	while (!stop) {
		check_page(rand_r(&seed) % NR);
		reads++;
	}
	return NULL;
}

static void answer(uint64_t offset)
{
	uint64_t page = offset / PAGE, words[WORDS];
	struct umem_copy copy;

	for (unsigned long i = 0; i < WORDS; i++)
		words[i] = word_of(page, busy[PAGER]);
	if (!use_fill_view) {
		CHECK(!copy_ioctl(pager_fd, &copy, offset, words, PAGE), "UMEM_COPY: %s",
		      strerror(errno));
	} else {
		struct iovec local = { words, PAGE }, remote = { fill + page * WORDS, PAGE };

		/*
		 * To mark a page between fill and publish would drop what was
		 * filled. Not by the processor: after a discard it is EFAULT.
		 */
		pthread_mutex_lock(&fill_lock);
		if (process_vm_writev(getpid(), &local, 1, &remote, 1, 0) == PAGE)
			change(pager_fd, UMEM_PUBLISH, offset, PAGE);
		pthread_mutex_unlock(&fill_lock);
	}
	answers++;
}

static void begin(int who)
{
	/* Who starts a generation waits for us: it must see the right one. */
	do
		busy[who] = generation;
	while (busy[who] != generation);
}

static void *pager_main(void *unused)
{
	struct pollfd pfd = { .fd = pager_fd, .events = POLLIN };
	struct umem_event event;

	(void)unused;
	while (!stop) {
		if (poll(&pfd, 1, 10) != 1)
			continue;
		if (read(pager_fd, &event, sizeof(event)) != sizeof(event))
			continue;
		if (event.type != UMEM_EVENT_REQUEST)
			continue;
		begin(PAGER);
		answer(event.offset);
		busy[PAGER] = 0;
	}
	return NULL;
}

static void *discarder(void *unused)
{
	unsigned int seed = 7;

	(void)unused;
	while (!stop) {
		uint64_t page = rand_r(&seed) % NR;

		begin(DISCARDER);
		discarded[page] = generation;
		CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 page * PAGE, PAGE), "punch: %s", strerror(errno));
		discarded[page] = generation;
		busy[DISCARDER] = 0;
		usleep(500);
	}
	return NULL;
}

static void race(void)
{
	pthread_t threads[TOUCHERS + 2];
	struct timespec start_time, now;

	generation = 1;
	region_fd = region(NR * PAGE);
	pager_fd = pager(region_fd);
	fcntl(pager_fd, F_SETFL, O_NONBLOCK);
	guest = (uint64_t *)map(region_fd, NR * PAGE);
	fill = (uint64_t *)map(pager_fd, NR * PAGE);
	mark_missing(pager_fd, 0, NR * PAGE);
	clock_gettime(CLOCK_MONOTONIC, &start_time);
	for (intptr_t i = 0; i < TOUCHERS; i++)
		CHECK(!pthread_create(&threads[i], NULL, toucher, (void *)(i + 1)), "thread");
	CHECK(!pthread_create(&threads[TOUCHERS], NULL, pager_main, NULL), "thread");
	CHECK(!pthread_create(&threads[TOUCHERS + 1], NULL, discarder, NULL), "thread");

	do {
		marks++;
		generation++;
		if (use_fill_view)
			pthread_mutex_lock(&fill_lock);
		mark_missing(pager_fd, 0, NR * PAGE);
		if (use_fill_view)
			pthread_mutex_unlock(&fill_lock);
		marks++;
		for (int i = 0; i < NR_BUSY; i++)
			while (busy[i] && busy[i] != generation)
				msleep(1);
		rounds++;
		msleep(5);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - start_time.tv_sec < SECONDS);

	stop = true;
	for (int i = TOUCHERS; i < TOUCHERS + 2; i++)
		CHECK(!pthread_join(threads[i], NULL), "join");
	/* Nobody answers any more: let go who waits, with zeroes that are legal. */
	for (int i = 0; i < NR; i++)
		discarded[i] = generation;
	change(pager_fd, UMEM_ZERO, 0, NR * PAGE);
	for (int i = 0; i < TOUCHERS; i++)
		CHECK(!pthread_join(threads[i], NULL), "join");
	printf("# %lu reads, %lu answers, %lu rounds, %llu discarded\n", reads, answers, rounds,
	       (unsigned long long)info(region_fd).discarded);
	CHECK(reads && answers && rounds && info(region_fd).discarded, "nothing happened");
}

static void copies_against_discards_and_marks(void)
{
	race();
}

static void fills_against_discards_and_marks(void)
{
	use_fill_view = true;
	race();
}

/* The same page asked for by many, killed and started again */
static void waiters_die_at_random(void)
{
	unsigned int seed = 3;
	char *view;

	region_fd = region(NR * PAGE);
	pager_fd = pager(region_fd);
	view = map(region_fd, NR * PAGE);
	for (int round = 0; round < 60; round++) {
		pid_t pids[6];

		mark_missing(pager_fd, 0, NR * PAGE);
		for (int i = 0; i < 6; i++) {
			pids[i] = fork();
			if (!pids[i]) {
				(void)*(volatile char *)(view + i % 2 * PAGE);
				_exit(0);
			}
		}
		usleep(rand_r(&seed) % 20000);
		for (int i = 0; i < 3; i++)
			kill(pids[i], SIGKILL);
		copy_byte(pager_fd, 0, 'a');
		copy_byte(pager_fd, PAGE, 'b');
		for (int i = 0; i < 6; i++)
			CHECK_EQ(waitpid(pids[i], NULL, 0), pids[i]);
		CHECK_EQ(info(region_fd).waiters, 0);
	}
}

static const struct test tests[] = {
	TEST(copies_against_discards_and_marks),
	TEST(fills_against_discards_and_marks),
	TEST(waiters_die_at_random),
};

TEST_MAIN(tests)
