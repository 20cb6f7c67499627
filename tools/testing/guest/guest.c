// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * First process of a guest that proves its own memory.
 *
 * A table of pages has contents that follow from the page's index and version.
 * Threads rewrite and check pages at random, each its own slice, and say over
 * the serial port how that goes, ten times a second:
 *
 *   umem-guest: t=MS ops=N gap_us=N stall_us=N mismatches=N checked=N sweeps=N
 *
 * t           CLOCK_MONOTONIC
 * ops         pages checked and rewritten by all threads
 * gap_us      the longest time, of those that ended or went on since the last
 *             line, in which no thread completed an operation
 * stall_us    the same for any one thread
 * mismatches  pages found wrong, ever; the first ones are described
 * checked     pages found right or wrong, ever
 * sweeps      complete passes over the table, ever
 *
 * A page that raises a machine check is lost: it is touched no more, and the line
 *
 *   umem-guest: lost pages=N
 *
 * says how many there are now.
 *
 * CLOCK_MONOTONIC stands still while the virtual machine is stopped: a guest
 * sees the waiting after a switchover, not the switchover itself.
 *
 * Kernel command line: umem.pages=N (default: 60 % of the memory), umem.threads=N
 * (default 4), umem.mode=churn|storm (storm: no rewriting, the guest is idle),
 * umem.rate=N: pages rewritten a second by all threads (default: as many as go),
 * umem.node=N: the table's pages are of this NUMA node,
 * umem.port=serial|virtio: the port is /dev/ttyS0, or a virtio-serial port, which
 * costs one exit a line and not one a byte; the latter are tens of milliseconds
 * of every report when the hypervisor is itself emulated.
 * Lines read from the serial port: "sweep N" checks the whole table N times and
 * says so, "read FIRST COUNT" checks these pages of it, one after another, "storm"
 * lets 64 threads touch pages at the same instant, half of which are common to all
 * of them, "stop" powers off.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mempolicy.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define PAGE	      4096
#define WORDS	      (PAGE / 8)
#define LOCKS	      1024
#define MAX_THREADS   64
#define STORM_THREADS 64
#define STORM_PAGES   16 /* of each kind, a thread */
#define DESCRIBED     20 /* mismatches worth a line */
#define REPORT_US     100000

#define MULTIPLIER 0xd6e8feb86659fd93ULL /* odd, and so has an inverse */
#define STEP	   0x9e3779b97f4a7c15ULL

typedef uint64_t page_words[WORDS];

struct worker {
	pthread_t thread;
	size_t first, pages; /* its slice of the table */
	uint64_t random;
	uint64_t ops; /* changes together with the sum of versions */
	_Atomic uint64_t last_ns, gap_ns;
};

struct storm {
	pthread_barrier_t start;
	uint64_t seed;
};

static page_words *table;
static uint32_t *versions;
static bool *lost;
static size_t pages;
static struct worker workers[MAX_THREADS];
static unsigned int threads = 4;
static int node = -1; /* any */
static unsigned int rate; /* pages a second that are rewritten; 0: all that go */
static _Atomic bool churning = true;

/*
 * A page and its version change under the page's lock. An operation holds
 * settled for reading; who holds it for writing finds no operation half done.
 */
static pthread_rwlock_t locks[LOCKS];
static pthread_rwlock_t settled;

static _Atomic uint64_t ops, mismatches, checked, sweeps, lost_pages;
static _Atomic uint64_t last_ns, gap_ns;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
	char line[256];
	va_list args;
	size_t length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	/* one write a line: lines of several threads do not mix */
	if (write(STDOUT_FILENO, line, length) < 0)
		_exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Contents */

static uint64_t scramble(uint64_t value)
{
	value ^= value >> 32;
	value *= MULTIPLIER;
	return value ^ value >> 32;
}

static uint64_t unscramble(uint64_t value)
{
	uint64_t inverse = MULTIPLIER;

	/* Newton: each step doubles the number of right low bits, 3 to begin with */
	for (int i = 0; i < 5; i++)
		inverse *= 2 - MULTIPLIER * inverse;
	value ^= value >> 32;
	value *= inverse;
	return value ^ value >> 32;
}

/* A bijection of (index, version): two different pages differ in every word. */
static uint64_t first_word(uint64_t index, uint32_t version)
{
	return scramble(index << 32 | version);
}

static void write_page(size_t index, uint32_t version)
{
	uint64_t word = first_word(index, version);

	for (size_t i = 0; i < WORDS; i++, word += STEP)
		table[index][i] = word;
}

static const char *likeness(const page_words page, size_t index)
{
	static _Thread_local char text[64];
	uint64_t origin = unscramble(page[0]);
	uint64_t from = origin >> 32;
	uint32_t version = origin;

	for (size_t i = 1; i < WORDS; i++) {
		if (page[i] != page[0] + i * STEP)
			return page[0] || page[1] ? "torn" : "zero";
	}
	if (from >= pages)
		return "noise";
	snprintf(text, sizeof(text), "%s page %" PRIu64 " version %" PRIu32,
		 from == index ? "stale:" : "other:", from, version);
	return text;
}

static void count_mismatch(size_t index, size_t word, uint64_t wanted)
{
	if (atomic_fetch_add(&mismatches, 1) >= DESCRIBED)
		return;
	say("umem-guest: mismatch page=%zu offset=%zu got=%016" PRIx64 " wanted=%016" PRIx64
	    " version=%" PRIu32 " is=%s\n",
	    index, word * 8, table[index][word], wanted, versions[index],
	    likeness(table[index], index));
}

static void check_page(size_t index)
{
	uint64_t word = first_word(index, versions[index]);

	atomic_fetch_add_explicit(&checked, 1, memory_order_relaxed);
	for (size_t i = 0; i < WORDS; i++, word += STEP) {
		if (table[index][i] != word) {
			count_mismatch(index, i, word);
			return;
		}
	}
}

/* Machine checks */

static _Thread_local sigjmp_buf *on_machine_check;

static void machine_check(int number, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code != BUS_MCEERR_AR || !on_machine_check) {
		signal(number, SIG_DFL);
		return;
	}
	siglongjmp(*on_machine_check, 1);
}

static void catch_machine_checks(void)
{
	/* not to save a mask before every page: that is a system call */
	struct sigaction action = { .sa_sigaction = machine_check,
				    .sa_flags = SA_SIGINFO | SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
}

/* Calls @touch with the page, unless it is lost. Return: whether that went well. */
static bool survive(size_t index, void (*touch)(size_t index))
{
	sigjmp_buf here;

	if (lost[index])
		return false;
	on_machine_check = &here;
	if (sigsetjmp(here, 0)) {
		lost[index] = true;
		atomic_fetch_add(&lost_pages, 1);
	} else {
		touch(index);
	}
	on_machine_check = NULL;
	return !lost[index];
}

static pthread_rwlock_t *lock_of(size_t index)
{
	return &locks[index % LOCKS];
}

/* Threads that rewrite */

static void raise_to(_Atomic uint64_t *maximum, uint64_t value)
{
	uint64_t seen = atomic_load(maximum);

	while (seen < value && !atomic_compare_exchange_weak(maximum, &seen, value))
		;
}

static void complete_op(struct worker *worker)
{
	uint64_t now = now_ns();
	uint64_t before = atomic_exchange(&last_ns, now);

	if (now > before)
		raise_to(&gap_ns, now - before);
	raise_to(&worker->gap_ns, now - atomic_exchange(&worker->last_ns, now));
	atomic_fetch_add(&ops, 1);
}

static void check_and_rewrite(size_t index)
{
	check_page(index);
	write_page(index, ++versions[index]);
}

static void rewrite_page(struct worker *worker, size_t index)
{
	pthread_rwlock_rdlock(&settled);
	pthread_rwlock_wrlock(lock_of(index));
	worker->ops += survive(index, check_and_rewrite);
	pthread_rwlock_unlock(lock_of(index));
	pthread_rwlock_unlock(&settled);
}

/* Waits until it is time for the next. What was missed is not made up for. */
static void keep_to_rate(uint64_t *next)
{
	uint64_t now = now_ns();
	struct timespec until;

	*next += 1000000000ULL * threads / rate;
	if (*next < now) {
		*next = now;
		return;
	}
	until = (struct timespec){ *next / 1000000000, *next % 1000000000 };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void *churn(void *arg)
{
	struct worker *worker = arg;
	uint64_t next = now_ns();

	while (atomic_load(&churning)) {
		rewrite_page(worker, worker->first + next_random(&worker->random) % worker->pages);
		complete_op(worker);
		if (rate)
			keep_to_rate(&next);
	}
	return NULL;
}

static void start_churn(void)
{
	size_t first = 0;

	atomic_store(&last_ns, now_ns());
	for (unsigned int i = 0; i < threads; i++) {
		struct worker *worker = &workers[i];

		worker->first = first;
		worker->pages = (pages - first) / (threads - i);
		worker->random = STEP * (i + 1);
		worker->last_ns = last_ns;
		first += worker->pages;
		pthread_create(&worker->thread, NULL, churn, worker);
	}
}

static uint64_t longest(_Atomic uint64_t *gap, _Atomic uint64_t *last)
{
	uint64_t ended = atomic_exchange(gap, 0);
	uint64_t before = atomic_load(last);
	uint64_t now = now_ns();

	return now > before && now - before > ended ? now - before : ended;
}

static void *report(void *arg)
{
	uint64_t told = 0;

	(void)arg;
	for (;;) {
		uint64_t gap = 0, stall = 0, gone = lost_pages;

		usleep(REPORT_US);
		if (threads)
			gap = longest(&gap_ns, &last_ns);
		for (unsigned int i = 0; i < threads; i++) {
			uint64_t one = longest(&workers[i].gap_ns, &workers[i].last_ns);

			stall = one > stall ? one : stall;
		}
		say("umem-guest: t=%" PRIu64 " ops=%" PRIu64 " gap_us=%" PRIu64 " stall_us=%" PRIu64
		    " mismatches=%" PRIu64 " checked=%" PRIu64 " sweeps=%" PRIu64 "\n",
		    now_ns() / 1000000, ops, gap / 1000, stall / 1000, mismatches, checked, sweeps);
		if (gone != told)
			say("umem-guest: lost pages=%" PRIu64 "\n", gone);
		told = gone;
	}
	return NULL;
}

/* Commands */

/*
 * Each operation adds one to one version. A page that went back in time together
 * with its version is missed by check_page(), not by this sum.
 */
static void check_totals(void)
{
	pthread_rwlock_wrlock(&settled);
	for (unsigned int i = 0; i < threads; i++) {
		const struct worker *worker = &workers[i];
		uint64_t total = 0;

		for (size_t j = 0; j < worker->pages; j++)
			total += versions[worker->first + j];
		if (total != worker->ops) {
			atomic_fetch_add(&mismatches, 1);
			say("umem-guest: mismatch thread=%u versions=%" PRIu64 " ops=%" PRIu64 "\n",
			    i, total, worker->ops);
		}
	}
	pthread_rwlock_unlock(&settled);
}

static void read_page(size_t index)
{
	pthread_rwlock_rdlock(lock_of(index));
	survive(index, check_page);
	pthread_rwlock_unlock(lock_of(index));
}

static void read_in_order(size_t first, size_t count)
{
	for (size_t i = first; i < pages && i - first < count; i++)
		read_page(i);
	say("umem-guest: read done first=%zu mismatches=%" PRIu64 "\n", first, mismatches);
}

static void sweep(unsigned long rounds)
{
	for (unsigned long round = 0; round < rounds; round++) {
		for (size_t i = 0; i < pages; i++)
			read_page(i);
		check_totals();
		atomic_fetch_add(&sweeps, 1);
	}
	say("umem-guest: sweep done pages=%zu mismatches=%" PRIu64 "\n", rounds * pages,
	    mismatches);
}

static void *touch_at_once(void *arg)
{
	struct storm *storm = arg;
	uint64_t common = storm->seed;
	uint64_t own = scramble(storm->seed ^ (uintptr_t)pthread_self());

	pthread_barrier_wait(&storm->start);
	for (int i = 0; i < STORM_PAGES; i++) {
		read_page(next_random(&common) % pages);
		read_page(next_random(&own) % pages);
	}
	return NULL;
}

static void raise_storm(void)
{
	static uint64_t count;
	struct storm storm = { .seed = scramble(++count) };
	pthread_t toucher[STORM_THREADS];

	pthread_barrier_init(&storm.start, NULL, STORM_THREADS);
	for (int i = 0; i < STORM_THREADS; i++)
		pthread_create(&toucher[i], NULL, touch_at_once, &storm);
	for (int i = 0; i < STORM_THREADS; i++)
		pthread_join(toucher[i], NULL);
	pthread_barrier_destroy(&storm.start);
	say("umem-guest: storm done threads=%d mismatches=%" PRIu64 "\n", STORM_THREADS,
	    mismatches);
}

static void obey(const char *line)
{
	size_t first, count;
	unsigned long rounds;

	if (sscanf(line, "sweep %lu", &rounds) == 1)
		sweep(rounds);
	else if (sscanf(line, "read %zu %zu", &first, &count) == 2)
		read_in_order(first, count);
	else if (!strcmp(line, "storm\n"))
		raise_storm();
	else if (!strcmp(line, "stop\n"))
		reboot(RB_POWER_OFF);
	else
		say("umem-guest: unknown command, want sweep N, read FIRST COUNT, storm or stop: %s", line);
}

/* Set-up */

static void mount_proc(void)
{
	if (mount("proc", "/proc", "proc", 0, NULL)) {
		say("umem-guest: cannot mount /proc: %m\n");
		_exit(1);
	}
}

static void load_modules(void)
{
	char path[256];
	FILE *list = fopen("/modules", "r");

	while (list && fscanf(list, "%255s", path) == 1) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0)) {
			say("umem-guest: cannot load %s: %m\n", path);
			_exit(1);
		}
		close(fd);
	}
	if (list)
		fclose(list);
}

static void use_virtio_port(void)
{
	int fd;

	load_modules();
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	/* the port appears when its driver has talked to the device */
	for (int i = 0; i < 1000; i++) {
		fd = open("/dev/vport0p1", O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			break;
		usleep(10000);
	}
	if (fd < 0) {
		say("umem-guest: no virtio-serial port /dev/vport0p1: %m\n");
		_exit(1);
	}
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
}

static void make_serial_raw(void)
{
	struct termios settings;

	if (tcgetattr(STDIN_FILENO, &settings))
		return;
	settings.c_lflag &= ~(ECHO | ECHOE | ECHOK);
	settings.c_oflag &= ~OPOST;
	tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

static bool read_settings(void)
{
	char line[4096] = "", mode[16] = "churn", port[16] = "serial";
	FILE *file = fopen("/proc/cmdline", "r");

	if (!file || !fgets(line, sizeof(line), file))
		return false;
	fclose(file);
	for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
		sscanf(word, "umem.pages=%zu", &pages);
		sscanf(word, "umem.threads=%u", &threads);
		sscanf(word, "umem.mode=%15s", mode);
		sscanf(word, "umem.rate=%u", &rate);
		sscanf(word, "umem.node=%d", &node);
		sscanf(word, "umem.port=%15s", port);
	}
	if (!strcmp(port, "virtio"))
		use_virtio_port();
	else if (!strcmp(port, "serial"))
		make_serial_raw();
	else
		return false;
	if (!strcmp(mode, "storm"))
		threads = 0;
	else if (strcmp(mode, "churn"))
		return false;
	return threads <= MAX_THREADS;
}

static size_t default_pages(void)
{
	struct sysinfo info;

	sysinfo(&info);
	return info.totalram / 100 * 60 * info.mem_unit / PAGE;
}

/* To memory of the node, if one was given. */
static bool bind_table(void)
{
	unsigned long nodes = 1UL << node;

	return node < 0 || !syscall(SYS_mbind, table, pages * PAGE, MPOL_BIND, &nodes,
				    8 * sizeof(nodes), 0);
}

static void make_table(void)
{
	pthread_rwlockattr_t prefer_writer;

	table = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	versions = calloc(pages, sizeof(*versions));
	lost = calloc(pages, sizeof(*lost));
	if (table == MAP_FAILED || !versions || !lost) {
		say("umem-guest: no memory for %zu pages\n", pages);
		_exit(1);
	}
	if (!bind_table()) {
		say("umem-guest: no memory of node %d: %m\n", node);
		_exit(1);
	}
	for (size_t i = 0; i < pages; i++)
		write_page(i, 0);
	for (size_t i = 0; i < LOCKS; i++)
		pthread_rwlock_init(&locks[i], NULL);
	pthread_rwlockattr_init(&prefer_writer);
	pthread_rwlockattr_setkind_np(&prefer_writer, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&settled, &prefer_writer);
}

/* The self-test: every way to spoil a page is seen. */

static bool finds(const char *what, uint64_t wanted)
{
	uint64_t before = mismatches, found;

	sweep(1);
	found = mismatches - before;
	say("%s %s: %" PRIu64 " mismatches, %" PRIu64 " wanted\n",
	    found == wanted ? "ok" : "not ok", what, found, wanted);
	return found == wanted;
}

static void spoil_with_zeroes(void)
{
	memset(table[7], 0, PAGE);
}

static void spoil_with_older_version(void)
{
	write_page(7, versions[7] - 1);
}

static void spoil_by_swapping(void)
{
	page_words other;

	memcpy(other, table[7], PAGE);
	memcpy(table[7], table[8], PAGE);
	memcpy(table[8], other, PAGE);
}

static void spoil_one_bit(void)
{
	table[7][WORDS - 1] ^= 1ULL << 63;
}

static void spoil_by_shifting(void)
{
	memmove(&table[7][0], &table[7][1], PAGE - 8);
}

static void spoil_second_half(void)
{
	uint64_t word = first_word(7, versions[7] - 1) + WORDS / 2 * STEP;

	for (size_t i = WORDS / 2; i < WORDS; i++, word += STEP)
		table[7][i] = word;
}

static void spoil_page_and_version(void)
{
	write_page(7, --versions[7]);
}

static void restore(const uint32_t *good)
{
	for (size_t i = 0; i < pages; i++) {
		versions[i] = good[i];
		write_page(i, good[i]);
	}
}

static int selftest(void)
{
	static const struct {
		const char *name;
		void (*spoil)(void);
		uint64_t mismatches;
	} tests[] = {
		{ "a zero page", spoil_with_zeroes, 1 },
		{ "an older version", spoil_with_older_version, 1 },
		{ "two swapped pages", spoil_by_swapping, 2 },
		{ "one flipped bit", spoil_one_bit, 1 },
		{ "contents moved by 8 bytes", spoil_by_shifting, 1 },
		{ "a second half of an older version", spoil_second_half, 1 },
		{ "a page that went back with its version", spoil_page_and_version, 1 },
	};
	static uint32_t good[256];
	bool ok;

	pages = 256;
	make_table();
	start_churn();
	usleep(200000);
	ok = finds("nothing spoilt, threads rewriting", 0);
	/* what is spoilt below must stay spoilt */
	atomic_store(&churning, false);
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	memcpy(good, versions, sizeof(good));
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		tests[i].spoil();
		ok &= finds(tests[i].name, tests[i].mismatches);
		restore(good);
	}
	ok &= finds("nothing spoilt any more", 0);
	return !ok;
}

int main(int argc, char **argv)
{
	pthread_t reporter;
	char line[64];

	if (argc == 2 && !strcmp(argv[1], "--selftest"))
		return selftest();
	if (getpid() != 1) {
		fprintf(stderr, "guest: this is the first process of a virtual machine; "
				"as a program it knows only --selftest\n");
		return 2;
	}
	mount_proc();
	if (!read_settings()) {
		say("umem-guest: bad umem.* in the kernel command line\n");
		return 1;
	}
	if (!pages)
		pages = default_pages();
	make_table();
	catch_machine_checks();
	say("umem-guest: ready pages=%zu\n", pages);
	start_churn();
	pthread_create(&reporter, NULL, report, NULL);
	for (;;) {
		if (fgets(line, sizeof(line), stdin)) {
			obey(line);
		} else {
			/* nobody is at the other end of the port now */
			clearerr(stdin);
			usleep(REPORT_US);
		}
	}
}
