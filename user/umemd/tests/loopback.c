// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Both roles of umemd on one host, over loopback, with this program in the
 * place of umem-qemu and of the guest: it makes the regions, speaks to both
 * control sockets, touches pages from threads and checks every one of them.
 * Needs /dev/umem. Prints TAP.
 *
 *	loopback [PATH-OF-UMEMD [PART-OF-A-TEST'S-NAME]]
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "common/uri.h"
#include "common/util.h"
#include "libumem.h"
#include "umemd/checksum.h"
#include "umemd/codec.h"
#include "umemd/tests/folder.h"
#include "umemd/tests/holdings.h"

#define PAGE		4096UL
#define MIB		(1UL << 20)
#define REGIONS		16
#define TIMEOUT_MS	(60000 * patience)
#define END_MS		40000	/* what waits for END ends well after 60 s, too */
#define TEST_SECONDS	30	/* what UMEM_TEST_SECONDS is on a kernel that looks for no bugs */

static int patience = 1;
static const char *umemd_path;
static int device = -1;
static int test_number, failures;
static const char *test_name;
static const char *test_skipped;	/* why */
static bool test_failed;

/* A check that fails is told and the test goes on to take everything down. */
#define check(condition, ...) check_at(__LINE__, condition, #condition, " " __VA_ARGS__)

static bool __attribute__((format(printf, 4, 5)))
check_at(int line, bool holds, const char *text, const char *format, ...)
{
	va_list args;

	if (holds)
		return true;
	test_failed = true;
	printf("# line %d: %s", line, text);
	if (format[1]) {
		printf(":");
		va_start(args, format);
		vprintf(format, args);
		va_end(args);
	}
	printf("\n");
	fflush(stdout);
	return false;
}

static void __attribute__((noreturn, format(printf, 1, 2))) bail(const char *format, ...)
{
	va_list args;

	printf("Bail out! ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	exit(1);
}

/* Contents: every page differs, some are zero, some were never touched. */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

#define HOLE 1500

enum page_kind { PAGE_FULL, PAGE_SPARSE, PAGE_WRITTEN_ZERO, PAGE_UNTOUCHED };

static enum page_kind kind_of(unsigned int region, uint64_t page)
{
	uint64_t draw = mix(page * 8 + region) % 16;

	/* The end of each 8 MiB is a hole: of small folios, and the last one if they are large. */
	if (page % 2048 >= HOLE)
		return PAGE_UNTOUCHED;
	if (draw < 10)
		return PAGE_FULL;
	return draw < 12 ? PAGE_SPARSE : draw < 14 ? PAGE_WRITTEN_ZERO : PAGE_UNTOUCHED;
}

static uint64_t word_of(unsigned int region, uint64_t page, unsigned int word)
{
	switch (kind_of(region, page)) {
	case PAGE_FULL:
		return mix((page * 512 + word) * 8 + region);
	case PAGE_SPARSE:	/* one word, anywhere: a careless test for zero misses it */
		return word == mix(page) % 512 ? page + 1 : 0;
	default:
		return 0;
	}
}

static void write_page(uint64_t *memory, unsigned int region, uint64_t page)
{
	enum page_kind kind = kind_of(region, page);

	if (kind == PAGE_UNTOUCHED)
		return;
	for (unsigned int i = 0; i < 512; i++)
		memory[page * 512 + i] = word_of(region, page, i);
}

static bool page_is_right(const uint64_t *memory, unsigned int region, uint64_t page)
{
	for (unsigned int i = 0; i < 512; i++) {
		if (memory[page * 512 + i] != word_of(region, page, i))
			return false;
	}
	return true;
}

/* Regions. */

struct memory {
	char name[UMEM_NAME_MAX];
	int fd;
	uint64_t length;
	uint64_t *view;
};

static uint32_t create_flags = UMEM_CREATE_HUGE;

static void make_memory(struct memory *memory, const char *name, uint64_t length)
{
	void *view;
	int err;

	snprintf(memory->name, sizeof(memory->name), "%s", name);
	memory->length = length;
	err = umem_create(device, length, create_flags, name, &memory->fd, NULL);
	if (err)
		bail("umem_create: %s", strerror(-err));
	err = umem_map_guest(memory->fd, 0, length, PROT_READ | PROT_WRITE, &view);
	if (err)
		bail("umem_map_guest: %s", strerror(-err));
	memory->view = view;
}

static void fill_memory(struct memory *memory, unsigned int region)
{
	for (uint64_t page = 0; page < memory->length / PAGE; page++)
		write_page(memory->view, region, page);
}

static void free_memory(struct memory *memory)
{
	if (!memory->view)
		return;
	munmap(memory->view, memory->length);
	close(memory->fd);
	memory->view = NULL;
}

/* One umemd, its control socket and its state descriptor. */

struct side {
	pid_t pid;
	int control, state, state_child;
	struct jsonl jsonl;
	bool running;
	bool strangers;		/* that are refused are no event */
	int status;
	json_t *progress;	/* the latest */
	json_t *session;	/* for one that goes on with it */
	unsigned int converged;	/* times that it said so */
	json_int_t remaining;	/* bytes, when it did */
};

#define ARGUMENTS 32

/* What umemds are told of TLS that start from now on: destinations, then sources. */
static const char *tls_options[2][3];

/* @session: to go on with, taken over; NULL: a new one */
static void start_side_with(struct side *side, const char *role, const char *uri,
			    const struct memory *memory, unsigned int count,
			    const char *const *extra, json_t *session)
{
	char texts[ARGUMENTS][256];
	char *arguments[ARGUMENTS + 1];
	int n = 0, sockets[2], states[2], inherited;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, states))
		bail("socketpair: %s", strerror(errno));
	snprintf(texts[n++], 256, "umemd");
	snprintf(texts[n++], 256, "%s", role);
	snprintf(texts[n++], 256, "--control-fd=%d", sockets[1]);
	snprintf(texts[n++], 256, session ? "--resume=%d" : "--state-fd=%d", states[1]);
	if (session) {
		json_dumpfd(session, states[0], 0);
		shutdown(states[0], SHUT_WR);
		json_decref(session);
	}
	snprintf(texts[n++], 256, "--uri=%s", uri);
	for (unsigned int i = 0; i < count; i++)
		snprintf(texts[n++], 256, "--region=%s:%d:%llu", memory[i].name, memory[i].fd,
			 (unsigned long long)memory[i].length);
	if (!strcmp(role, "source"))	/* by which many start at once */
		snprintf(texts[n++], 256, "--connect-timeout=60");
	for (; extra && *extra; extra++)
		snprintf(texts[n++], 256, "%s", *extra);
	for (const char **option = tls_options[!strcmp(role, "source")]; *option; option++)
		snprintf(texts[n++], 256, "%s", *option);
	for (int i = 0; i < n; i++)
		arguments[i] = texts[i];
	arguments[n] = NULL;

	memset(side, 0, sizeof(*side));
	fflush(stdout);
	side->pid = fork();
	if (side->pid < 0)
		bail("fork: %s", strerror(errno));
	if (!side->pid) {
		fcntl(sockets[1], F_SETFD, 0);
		fcntl(states[1], F_SETFD, 0);
		for (unsigned int i = 0; i < count; i++)
			fcntl(memory[i].fd, F_SETFD, 0);
		if (sscanf(uri, "fd:%d", &inherited) == 1)
			fcntl(inherited, F_SETFD, 0);
		dup2(STDOUT_FILENO, STDERR_FILENO);
		open("/etc/passwd", O_RDONLY);	/* none of its options names it */
		execv(umemd_path, arguments);
		_exit(127);
	}
	side->running = true;
	close(sockets[1]);
	close(states[1]);
	side->control = sockets[0];
	side->state = states[0];
	jsonl_init(&side->jsonl, side->control, 65536, 65536);
}

static void start_side(struct side *side, const char *role, const char *uri,
		       const struct memory *memory, unsigned int count, const char *const *extra)
{
	start_side_with(side, role, uri, memory, count, extra, NULL);
}

static void command(struct side *side, json_t *object)
{
	jsonl_send(&side->jsonl, object);
}

/* The next event but progress, converged and session; NULL at the end or after @timeout_ms. */
static json_t *next_event(struct side *side, int timeout_ms)
{
	uint64_t deadline = now_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC;
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int got;

	for (;;) {
		struct pollfd poll_fd = { .fd = side->control, .events = POLLIN };
		uint64_t now = now_ns();

		while ((got = jsonl_next(&side->jsonl, &object, error)) == 1) {
			const char *event = json_string_value(json_object_get(object, "event"));

			if (event && !strcmp(event, "converged")) {
				side->converged++;
				side->remaining = json_integer_value(
					json_object_get(object, "remaining_bytes"));
				json_decref(object);
				continue;
			}
			/* Where memory is slow to come, or strangers stay for ten seconds */
			if (event && (!strcmp(event, "allocated") ||
				      (side->strangers && !strcmp(event, "refused")))) {
				json_decref(object);
				continue;
			}
			if (event && !strcmp(event, "session")) {
				json_decref(side->session);
				side->session = json_incref(json_object_get(object, "session"));
				json_decref(object);
				continue;
			}
			if (event && strcmp(event, "progress"))
				return object;
			json_decref(side->progress);
			side->progress = object;
		}
		if (got < 0 || now >= deadline ||
		    poll(&poll_fd, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0 ||
		    jsonl_receive(&side->jsonl) != 1)
			return NULL;
	}
}

/* The next event is @event, and its @key (if any) contains @value. */
static bool expect_at(int line, struct side *side, const char *event, const char *key,
		      const char *value)
{
	json_t *object = next_event(side, TIMEOUT_MS);
	char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
	const char *got = json_string_value(json_object_get(object, "event"));
	const char *detail = key ? json_string_value(json_object_get(object, key)) : NULL;
	bool right = got && !strcmp(got, event) && (!key || (detail && strstr(detail, value)));

	check_at(line, right, "event", "got %s, wanted \"%s\" with %s \"%s\"",
		 text ? text : "nothing", event, key ? key : "", value ? value : "");
	free(text);
	json_decref(object);
	return right;
}

#define expect(side, event, key, value) expect_at(__LINE__, side, event, key, value)
#define expect_state(side, value) expect_at(__LINE__, side, "state", "state", value)

/* Whatever is told before that. */
static bool reach_state_at(int line, struct side *side, const char *state)
{
	bool reached = false;
	json_t *object;

	while (!reached && (object = next_event(side, TIMEOUT_MS))) {
		const char *is = json_string_value(json_object_get(object, "state"));

		reached = is && !strcmp(is, state);
		json_decref(object);
	}
	return check_at(line, reached, "reached", "wanted state %s", state);
}

#define reach_state(side, state) reach_state_at(__LINE__, side, state)

static json_int_t counter(const struct side *side, const char *key)
{
	return json_integer_value(json_object_get(side->progress, key));
}

/* Of an array of objects. */
static json_int_t sum_of(const struct side *side, const char *array, const char *key)
{
	json_int_t sum = 0;
	json_t *object;
	size_t i;

	json_array_foreach(json_object_get(side->progress, array), i, object)
		sum += json_integer_value(json_object_get(object, key));
	return sum;
}

/* Exit status, or 1000 + signal; -1 if it does not end. */
static int wait_side(struct side *side)
{
	int status;

	for (int i = 0; side->running && i < END_MS / 10; i++) {
		pid_t pid = waitpid(side->pid, &status, WNOHANG);

		if (pid == side->pid) {
			side->running = false;
			side->status = WIFEXITED(status) ? WEXITSTATUS(status) :
							   1000 + WTERMSIG(status);
			break;
		}
		usleep(10000);
	}
	return side->running ? -1 : side->status;
}

/* Its process for errands; 0: it has none. */
static pid_t errands_of(const struct side *side)
{
	char path[64];
	int pid = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", side->pid, side->pid);
	file = fopen(path, "r");
	if (file && fscanf(file, "%d", &pid) != 1)
		pid = 0;
	if (file)
		fclose(file);
	return pid;
}

/* Has the process ended, and been waited for by who is its parent now? */
static bool is_gone(pid_t pid)
{
	for (int i = 0; i < TIMEOUT_MS / 10 && !kill(pid, 0); i++)
		usleep(10000);
	return kill(pid, 0) && errno == ESRCH;
}

static void end_side(struct side *side)
{
	char *text;

	if (!side->pid)
		return;
	if (test_failed && (text = json_dumps(side->progress, JSON_COMPACT))) {
		printf("# last: %s\n", text);
		free(text);
	}
	if (side->running) {
		kill(side->pid, SIGKILL);
		wait_side(side);
	}
	jsonl_destroy(&side->jsonl);
	json_decref(side->progress);
	json_decref(side->session);
	close(side->control);
	if (side->state >= 0)
		close(side->state);
	side->pid = 0;
}

/* The largest amount of memory it has of its own, in KiB. */
static long anonymous_kib(const struct side *side)
{
	char path[64], line[256];
	long kib = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", side->pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "RssAnon: %ld", &kib);
	if (file)
		fclose(file);
	return kib;
}

/* A relay in the middle, to cut connections with. */

struct relay {
	int listener, port, target;
	pthread_t thread;
	atomic_bool stop, cut, refuse;
	atomic_int cut_one;	/* the connection made as the nth, from 1 on */
	atomic_long forwarded;
};

#define RELAY_PAIRS 40

static int connect_to(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		close(fd);
		return -1;
	}
	return fd;
}

static int listen_on(int *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)*port) };
	socklen_t size = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 8) ||
	    getsockname(fd, (struct sockaddr *)&address, &size))
		bail("cannot listen: %s", strerror(errno));
	*port = ntohs(address.sin_port);
	return fd;
}

static bool pass_on(struct relay *relay, int from, int to)
{
	static char buffer[16384];
	ssize_t n = read(from, buffer, sizeof(buffer));
	ssize_t done = 0;

	while (done < n) {
		ssize_t m = send(to, buffer + done, (size_t)(n - done), MSG_NOSIGNAL);

		if (m <= 0)
			return false;
		done += m;
	}
	if (n > 0)
		relay->forwarded += n;
	return n > 0;
}

static void *relay_main(void *argument)
{
	struct relay *relay = argument;
	int pairs[RELAY_PAIRS][2], one;
	bool all;

	memset(pairs, -1, sizeof(pairs));
	while (!relay->stop) {
		struct pollfd polls[1 + 2 * RELAY_PAIRS] = { { relay->listener, POLLIN, 0 } };

		for (int i = 0; i < RELAY_PAIRS * 2; i++)
			polls[1 + i] = (struct pollfd){ pairs[i / 2][i % 2], POLLIN, 0 };
		poll(polls, 1 + 2 * RELAY_PAIRS, 20);
		all = atomic_exchange(&relay->cut, false);
		one = atomic_exchange(&relay->cut_one, 0);
		for (int i = 0; i < RELAY_PAIRS * 2; i++) {
			int *pair = pairs[i / 2];
			bool cut = all || one == i / 2 + 1;

			if (pair[0] < 0 || (!cut && !polls[1 + i].revents))
				continue;
			if (cut || !pass_on(relay, pair[i % 2], pair[!(i % 2)])) {
				close(pair[0]);
				close(pair[1]);
				pair[0] = pair[1] = -1;
			}
		}
		if (polls[0].revents) {
			int fd = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
			int to = relay->refuse ? -1 : connect_to(relay->target);
			int i = 0;

			while (i < RELAY_PAIRS && pairs[i][0] >= 0)
				i++;
			if (to < 0 || i == RELAY_PAIRS) {
				close(fd);
				if (to >= 0)
					close(to);
			} else {
				pairs[i][0] = fd;
				pairs[i][1] = to;
			}
		}
	}
	for (int i = 0; i < RELAY_PAIRS; i++) {
		if (pairs[i][0] >= 0) {
			close(pairs[i][0]);
			close(pairs[i][1]);
		}
	}
	return NULL;
}

static void start_relay(struct relay *relay, int target)
{
	memset(relay, 0, sizeof(*relay));
	relay->target = target;
	relay->listener = listen_on(&relay->port);
	pthread_create(&relay->thread, NULL, relay_main, relay);
}

static void stop_relay(struct relay *relay)
{
	if (!relay->port)
		return;
	relay->stop = true;
	pthread_join(relay->thread, NULL);
	close(relay->listener);
	relay->port = 0;
}

/* A migration: both sides and their memory. */

struct migration {
	struct memory from[REGIONS], to[REGIONS];
	unsigned int nr_from, nr_to;
	struct side source, destination;
	struct relay relay;
	int port;
};

static void uri_of(char *uri, int port)
{
	sprintf(uri, "tcp:127.0.0.1:%d", port);
}

static void begin_destination(struct migration *m, const char *const *extra)
{
	json_t *object;
	const char *text;

	start_side(&m->destination, "destination", "tcp:127.0.0.1:0", m->to, m->nr_to, extra);
	object = next_event(&m->destination, TIMEOUT_MS);
	text = json_string_value(json_object_get(object, "uri"));
	if (check(text && sscanf(text, "tcp:127.0.0.1:%d", &m->port) == 1, "no listening event"))
		check(m->port > 0);
	json_decref(object);
}

static void begin_source(struct migration *m, int port, const char *const *extra)
{
	char uri[64];

	uri_of(uri, port);
	start_side(&m->source, "source", uri, m->from, m->nr_from, extra);
}

static void make_regions(struct migration *m, unsigned int count, uint64_t length)
{
	static const char *const names[] = { "ram0", "ram1", "pc.bios" };

	for (unsigned int i = 0; i < count; i++) {
		make_memory(&m->from[i], names[i], length << i);
		make_memory(&m->to[count - 1 - i], names[i], length << i);
		fill_memory(&m->from[i], i);
	}
	m->nr_from = m->nr_to = count;
}

/* The destination's memory that belongs to the source's region. */
static struct memory *target_of(struct migration *m, unsigned int region)
{
	return &m->to[m->nr_to - 1 - region];
}

static void begin(struct migration *m, unsigned int regions, uint64_t length,
		  const char *const *source_extra, bool relayed)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, regions, length);
	begin_destination(m, NULL);
	if (relayed)
		start_relay(&m->relay, m->port);
	begin_source(m, relayed ? m->relay.port : m->port, source_extra);
}

/* To where the destination says that it listens; @host as it stands in a URI. */
static void begin_over_tcp(struct migration *m, const char *host)
{
	char uri[URI_TEXT_MAX];
	const char *listening, *port;
	json_t *object;

	memset(m, 0, sizeof(*m));
	make_regions(m, 2, 8 * MIB);
	snprintf(uri, sizeof(uri), "tcp:%s:0", host);
	start_side(&m->destination, "destination", uri, m->to, m->nr_to, NULL);
	object = next_event(&m->destination, TIMEOUT_MS);
	listening = json_string_value(json_object_get(object, "uri"));
	port = listening ? strrchr(listening, ':') : NULL;
	if (check(port, "no listening event"))
		snprintf(uri, sizeof(uri), "tcp:%s%s", host, port);
	json_decref(object);
	start_side(&m->source, "source", uri, m->from, m->nr_from, NULL);
}

/* Of the migration over a path: no part of the tree, gone at its end. */
#define UNIX_PATH "/tmp/umem-loopback.socket"

static void begin_over(struct migration *m, const char *destination, const char *source,
		       const char *const *source_extra)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 2, 8 * MIB);
	start_side(&m->destination, "destination", destination, m->to, m->nr_to, NULL);
	expect(&m->destination, "listening", "uri", destination);
	start_side(&m->source, "source", source, m->from, m->nr_from, source_extra);
}

static void end(struct migration *m)
{
	end_side(&m->source);
	end_side(&m->destination);
	stop_relay(&m->relay);
	for (unsigned int i = 0; i < REGIONS; i++) {
		free_memory(&m->from[i]);
		free_memory(&m->to[i]);
	}
}

struct state_writer {
	int fd;
	size_t size;
};

static void *write_state(void *argument)
{
	struct state_writer *writer = argument;

	for (size_t i = 0; i < writer->size; i++) {
		static char chunk[4096];
		size_t part = min(writer->size - i, sizeof(chunk));

		for (size_t k = 0; k < part; k++)
			chunk[k] = (char)mix(i + k);
		if (send(writer->fd, chunk, part, MSG_NOSIGNAL) != (ssize_t)part)
			break;
		i += part - 1;
	}
	shutdown(writer->fd, SHUT_RDWR);
	return NULL;
}

static bool carry_state(struct migration *m, size_t size)
{
	struct state_writer writer = { m->source.state, size };
	pthread_t thread;
	size_t got = 0, wrong = 0;
	char chunk[8192];
	ssize_t n;

	pthread_create(&thread, NULL, write_state, &writer);
	while ((n = read(m->destination.state, chunk, sizeof(chunk))) > 0) {
		for (ssize_t i = 0; i < n; i++)
			wrong += chunk[i] != (char)mix(got + (size_t)i);
		got += (size_t)n;
	}
	pthread_join(thread, NULL);
	return check(got == size, "%zu of %zu bytes of state came", got, size) &&
	       check(!wrong, "%zu bytes of state are wrong", wrong);
}

static bool both_advise(struct migration *m)
{
	return expect_state(&m->source, "advise") && expect_state(&m->destination, "advise");
}

/* From the guest's stop to GO, as umem-qemu does it. */
static bool hand_over(struct migration *m)
{
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	if (!carry_state(m, 1000000) || !expect_state(&m->source, "listen") ||
	    !expect_state(&m->destination, "listen"))
		return false;
	command(&m->destination, json_pack("{s:s}", "cmd", "ready"));
	if (!expect(&m->source, "ready", NULL, NULL))
		return false;
	command(&m->source, json_pack("{s:s,s:b}", "cmd", "go", "run", 1));
	return expect_state(&m->source, "running") && expect(&m->destination, "go", NULL, NULL) &&
	       expect_state(&m->destination, "running");
}

static bool switch_over(struct migration *m)
{
	return both_advise(m) && hand_over(m);
}

static bool resumed(struct migration *m)
{
	return expect_state(&m->source, "recover") && expect_state(&m->destination, "recover") &&
	       expect_state(&m->source, "running") && expect_state(&m->destination, "running");
}

static bool cut_ends(struct migration *m)
{
	return expect_state(&m->source, "paused") && expect_state(&m->destination, "paused") &&
	       resumed(m);
}

static void expect_end(struct migration *m)
{
	expect_state(&m->destination, "end");
	expect_state(&m->source, "end");
	check(wait_side(&m->source) == 0, "source: exit status %d", m->source.status);
	check(wait_side(&m->destination) == 0, "destination: exit status %d",
	      m->destination.status);
}

static void check_memory(struct migration *m)
{
	uint64_t wrong = 0;

	for (unsigned int i = 0; i < m->nr_from; i++) {
		struct umem_info info;

		for (uint64_t page = 0; page < m->from[i].length / PAGE; page++)
			wrong += !page_is_right(target_of(m, i)->view, i, page);
		check(!umem_info(target_of(m, i)->fd, &info) && !info.missing && !info.waiters);
	}
	check(!wrong, "%llu pages are wrong", (unsigned long long)wrong);
}

/* Guests: threads that touch pages in some order and check what they see. */

struct toucher {
	struct migration *m;
	pthread_t thread;
	uint64_t seed, touches;
	bool in_order;
	atomic_ulong wrong;
};

static void *touch(void *argument)
{
	struct toucher *toucher = argument;
	struct migration *m = toucher->m;

	for (uint64_t i = 0; i < toucher->touches; i++) {
		uint64_t draw = toucher->in_order ? i : mix(toucher->seed + i);
		unsigned int region = (unsigned int)(draw % m->nr_from);
		uint64_t page = draw / m->nr_from % (m->from[region].length / PAGE);

		if (!page_is_right(target_of(m, region)->view, region, page))
			toucher->wrong++;
	}
	return NULL;
}

static void start_touching(struct toucher *touchers, unsigned int count, struct migration *m,
			   uint64_t touches, bool in_order)
{
	for (unsigned int i = 0; i < count; i++) {
		touchers[i] = (struct toucher){ .m = m, .seed = mix(i) };
		touchers[i].touches = touches;
		touchers[i].in_order = in_order;
		pthread_create(&touchers[i].thread, NULL, touch, &touchers[i]);
	}
}

static void stop_touching(struct toucher *touchers, unsigned int count)
{
	unsigned long wrong = 0;

	for (unsigned int i = 0; i < count; i++) {
		pthread_join(touchers[i].thread, NULL);
		wrong += touchers[i].wrong;
	}
	check(!wrong, "threads saw %lu wrong pages", wrong);
}

/* Tests. */

/* From the first state to the last page. */
static void travel(struct migration *m, unsigned int threads)
{
	struct toucher touchers[16];

	if (switch_over(m)) {
		start_touching(touchers, threads, m, 2000, false);
		expect_end(m);
		stop_touching(touchers, threads);
		check_memory(m);
		check(counter(&m->destination, "pages_present") ==
		      counter(&m->destination, "pages_total"));
		check(counter(&m->destination, "checksum_errors") == 0);
		check(counter(&m->source, "pages_sent") == counter(&m->source, "pages_total"));
	}
}

static void everything_arrives(struct migration *m, const char *const *extra,
			       unsigned int regions, unsigned int threads)
{
	begin(m, regions, 8 * MIB, extra, false);
	travel(m, threads);
}

static void test_push(struct migration *m)
{
	everything_arrives(m, NULL, 1, 4);
	check(counter(&m->source, "zero_pages") >= counter(&m->source, "pages_total") / 4);
	check(counter(&m->source, "bulk_bytes") < (json_int_t)(8 * MIB));
}

static void test_three_regions(struct migration *m)
{
	everything_arrives(m, NULL, 3, 8);
}

/* What the guest never touched takes no memory of the source's host, then or later. */
static void a_hole_stays(struct migration *m, uint64_t first_page)
{
	everything_arrives(m, NULL, 1, 0);
	check(lseek(m->from[0].fd, first_page * PAGE, SEEK_DATA) < 0 && errno == ENXIO);
}

static void test_hole(struct migration *m)
{
	a_hole_stays(m, 6 * MIB / PAGE);
}

/* One page of it is looked at to know that the data before has ended. */
static void test_hole_of_small_folios(struct migration *m)
{
	create_flags = 0;
	a_hole_stays(m, HOLE + 1);
	create_flags = UMEM_CREATE_HUGE;
}

static void test_no_checksum(struct migration *m)
{
	static const char *const extra[] = { "--no-checksum", NULL };

	everything_arrives(m, extra, 2, 4);
}

static void test_follow(struct migration *m)
{
	static const char *const extra[] = { "--follow", "--forward=3", "--backward=2", NULL };

	everything_arrives(m, extra, 2, 4);
}

/* Pre-copy: a guest that goes on writing at the source. */

struct writer {
	struct migration *m;
	pthread_t thread;
	uint64_t seed, writes;
	useconds_t pause;	/* after each write */
	atomic_bool stop;
};

/*
 * Whole pages and single words, contents that never come twice; some go back to
 * zero. Every fourth page stays as it is.
 */
static void *keep_writing(void *argument)
{
	struct writer *writer = argument;

	while (!writer->stop) {
		uint64_t draw = mix(writer->seed + writer->writes++);
		struct memory *memory = &writer->m->from[draw % writer->m->nr_from];
		uint64_t number = draw / 8 % (memory->length / PAGE);
		uint64_t *page = memory->view + number * (PAGE / 8);

		if (number % 4 == 3)
			continue;
		if (draw % 61 == 0)
			memset(page, 0, PAGE);
		else if (draw % 7 == 0)
			page[draw / 64 % (PAGE / 8)] = draw;
		else
			for (unsigned int i = 0; i < PAGE / 8; i++)
				page[i] = draw + i;
		if (writer->pause)
			usleep(writer->pause);
	}
	return NULL;
}

#define WRITERS 2	/* who leave umemd something of two processors */

static void start_writing(struct writer *writers, struct migration *m, useconds_t pause)
{
	for (unsigned int i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ .m = m, .seed = mix(i), .pause = pause };
		pthread_create(&writers[i].thread, NULL, keep_writing, &writers[i]);
	}
}

static void stop_writing(struct writer *writers)
{
	for (unsigned int i = 0; i < WRITERS; i++) {
		writers[i].stop = true;
		pthread_join(writers[i].thread, NULL);
	}
}

/* Wait till a counter of the progress is @least or more. */
static bool wait_counter(struct side *side, const char *key, json_int_t least)
{
	uint64_t deadline = now_ns() + TIMEOUT_MS * NSEC_PER_MSEC;

	while (counter(side, key) < least && now_ns() < deadline) {
		if (next_event(side, 100))
			break;
	}
	return check(counter(side, key) >= least, "%s is %lld, wanted %lld", key,
		     (long long)counter(side, key), (long long)least);
}

static void wait_converged(struct side *side)
{
	uint64_t deadline = now_ns() + TIMEOUT_MS * NSEC_PER_MSEC;

	while (!side->converged && now_ns() < deadline && !next_event(side, 100))
		;
}

/* The memory of the guest as it was when it stopped. */
static void check_same_memory(struct migration *m)
{
	uint64_t wrong = 0;

	for (unsigned int i = 0; i < m->nr_from; i++) {
		for (uint64_t at = 0; at < m->from[i].length; at += PAGE)
			wrong += !!memcmp((char *)target_of(m, i)->view + at,
					  (char *)m->from[i].view + at, PAGE);
	}
	check(!wrong, "%llu pages are wrong", (unsigned long long)wrong);
}

/* @rounds of pre-copy under writers, then post-copy. */
static void travel_in_two_stages(struct migration *m, json_int_t rounds)
{
	struct writer writers[WRITERS];
	json_int_t present;
	bool moved;

	if (!both_advise(m))
		return;
	start_writing(writers, m, 50);
	wait_counter(&m->source, "round", rounds);
	stop_writing(writers);
	moved = hand_over(m);
	present = counter(&m->destination, "pages_present");
	if (!moved)
		return;
	check(rounds < 2 || present >= counter(&m->source, "pages_total") / 4,
	      "%lld pages were published of what came early", (long long)present);
	expect_end(m);
	check_same_memory(m);
	check(counter(&m->destination, "checksum_errors") == 0);
	check(counter(&m->source, "precopy_bytes") > 0);
	check(counter(&m->source, "pages_sent") == counter(&m->source, "pages_total"));
}

static const char *const precopy[] = { "--precopy", NULL };

static void test_two_stages(struct migration *m)
{
	begin(m, 3, 8 * MIB, precopy, false);
	travel_in_two_stages(m, 3);
}

static void test_two_stages_at_once(struct migration *m)
{
	begin(m, 2, 8 * MIB, precopy, false);
	travel_in_two_stages(m, 1);
}

static void test_two_stages_compressed(struct migration *m)
{
	static const char *const extra[] = { "--precopy", "--compress=zstd", NULL };

	begin(m, 2, 8 * MIB, extra, false);
	travel_in_two_stages(m, 3);
	check(counter(&m->source, "compressed_pages") > 0);
}

/* Nobody writes: after two rounds there is nothing left. */
static void test_precopy_converges(struct migration *m)
{
	begin(m, 2, 8 * MIB, precopy, false);
	if (!both_advise(m) || !wait_counter(&m->source, "round", 3))
		return;
	check(m->source.converged == 1, "it said so %u times", m->source.converged);
	check(counter(&m->source, "pages_dirty") == 0);
	if (!hand_over(m))
		return;
	expect_end(m);
	check_memory(m);
	check(counter(&m->source, "requests") == 0);
	check(counter(&m->destination, "faults") == 0);
}

/* What writers leave is never little enough, until more is allowed. */
static void test_precopy_does_not_converge(struct migration *m)
{
	struct writer writers[WRITERS];

	begin(m, 2, 8 * MIB, precopy, false);
	command(&m->source, json_pack("{s:s,s:i,s:i}", "cmd", "set", "downtime_limit_ms", 1,
				      "max_precopy_bandwidth", 4 << 20));
	if (!both_advise(m))
		return;
	start_writing(writers, m, 50);
	wait_counter(&m->source, "round", 2);
	check(m->source.converged == 0);
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_precopy_bandwidth", 0));
	wait_counter(&m->source, "round", 4);
	check(m->source.converged == 0);
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "downtime_limit_ms", 1000000));
	wait_converged(&m->source);
	wait_counter(&m->source, "round", counter(&m->source, "round") + 2);
	check(m->source.converged == 1, "it said so %u times", m->source.converged);
	stop_writing(writers);
	if (hand_over(m)) {
		expect_end(m);
		check_same_memory(m);
	}
}

/* Bytes a second on bulk, over five seconds. */
static double bulk_rate(struct side *side)
{
	uint64_t began, until;
	json_int_t before;

	/* From one report to another, each of the moment it comes. */
	wait_counter(side, "bulk_bytes", counter(side, "bulk_bytes") + 1);
	before = counter(side, "bulk_bytes");
	began = now_ns();
	until = began + 5 * NSEC_PER_SEC;
	while (now_ns() < until)
		wait_counter(side, "bulk_bytes", counter(side, "bulk_bytes") + 1);
	return (double)(counter(side, "bulk_bytes") - before) * 1e9 / (double)(now_ns() - began);
}

/* A busy machine may make it slower for a while, nothing may make it faster. */
static void check_rate(struct side *side, double limit)
{
	double rate;
	int tries = 4;

	do {
		rate = bulk_rate(side);
	} while (rate <= limit * 0.9 && --tries);
	check(rate < limit * 1.1 && rate > limit * 0.9, "%.0f bytes a second, limit %.0f", rate,
	      limit);
}

static void set_precopy_bandwidth(struct migration *m, int bandwidth)
{
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_precopy_bandwidth",
				      bandwidth));
}

static void test_precopy_bandwidth(struct migration *m)
{
	int first = (1 << 19) / patience;
	struct writer writers[WRITERS];

	begin(m, 2, 16 * MIB, precopy, false);
	set_precopy_bandwidth(m, first);
	if (!both_advise(m))
		return;
	start_writing(writers, m, 50);
	check_rate(&m->source, first);
	set_precopy_bandwidth(m, 2 * first);
	check_rate(&m->source, 2 * first);
	stop_writing(writers);
	/* what follows after the switch is not limited by it */
	if (hand_over(m)) {
		expect_end(m);
		check_same_memory(m);
	}
}

/* What is left when it says so takes no longer than allowed, at the rate that is allowed. */
static void test_downtime_limit(struct migration *m)
{
	struct writer writers[WRITERS];
	double ms;

	begin(m, 2, 16 * MIB, precopy, false);
	command(&m->source, json_pack("{s:s,s:i,s:i}", "cmd", "set", "downtime_limit_ms", 200,
				      "max_precopy_bandwidth", 16 << 20));
	if (!both_advise(m))
		return;
	start_writing(writers, m, 5000);
	wait_converged(&m->source);
	ms = (double)m->source.remaining * 1000 / (16 << 20);
	check(m->source.converged == 1 && ms > 0 && ms < 220, "%u times, %.0f ms",
	      m->source.converged, ms);
	stop_writing(writers);
	if (hand_over(m)) {
		expect_end(m);
		check_same_memory(m);
	}
}

/* What came early from a source that left is no part of what the next one brings. */
static void test_precopy_given_up(struct migration *m)
{
	begin(m, 2, 4 * MIB, precopy, false);
	if (!both_advise(m) || !wait_counter(&m->source, "round", 3))
		return;
	command(&m->source, json_pack("{s:s}", "cmd", "cancel"));
	expect(&m->source, "cancelled", NULL, NULL);
	check(wait_side(&m->source) == 0);
	expect(&m->destination, "refused", "message", "cancelled the migration");
	end_side(&m->source);
	for (unsigned int i = 0; i < 2; i++)
		memset(m->from[i].view, 0, m->from[i].length / 2);
	begin_source(m, m->port, NULL);
	if (switch_over(m)) {
		expect_end(m);
		check_same_memory(m);
	}
}

static void test_ipv6(struct migration *m)
{
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 && errno == EAFNOSUPPORT) {
		test_skipped = "needs CONFIG_IPV6";
		return;
	}
	close(fd);
	begin_over_tcp(m, "[::1]");
	travel(m, 4);
}

static void test_host_name(struct migration *m)
{
	begin_over_tcp(m, "localhost");
	travel(m, 4);
}

static void test_unix(struct migration *m)
{
	begin_over(m, "unix:" UNIX_PATH, "unix:" UNIX_PATH, NULL);
	check(!access(UNIX_PATH, F_OK));
	travel(m, 4);
	check(access(UNIX_PATH, F_OK) && errno == ENOENT);
}

/* The file of one that was killed is left behind, and is in nobody's way. */
static void test_unix_left_behind(struct migration *m)
{
	begin_over(m, "unix:" UNIX_PATH, "unix:" UNIX_PATH, NULL);
	kill(m->destination.pid, SIGKILL);
	check(wait_side(&m->destination) == 1000 + SIGKILL);
	check(!access(UNIX_PATH, F_OK));
	end(m);
	test_unix(m);
}

/* Both ends of a socket pair that nobody else holds. */
static void begin_over_pair(struct migration *m, const char *const *extra)
{
	char destination[32], source[32];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		bail("socketpair: %s", strerror(errno));
	sprintf(destination, "fd:%d", pair[0]);
	sprintf(source, "fd:%d", pair[1]);
	begin_over(m, destination, source, extra);
	close(pair[0]);
	close(pair[1]);
}

static void test_fd(struct migration *m)
{
	begin_over_pair(m, NULL);
	travel(m, 4);
}

static void test_fd_two_stages(struct migration *m)
{
	begin_over_pair(m, precopy);
	travel_in_two_stages(m, 3);
}

static void test_fd_cut(struct migration *m)
{
	begin_over_pair(m, (const char *const[]){ "--no-push", NULL });
	if (!switch_over(m))
		return;
	kill(m->destination.pid, SIGKILL);
	expect(&m->source, "state", "message", "cannot be connected again");
	check(m->source.running);
}

static void test_fd_refused(struct migration *m)
{
	int pair[2];
	char uri[32];

	if (pipe2(pair, O_CLOEXEC))
		bail("pipe2: %s", strerror(errno));
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	sprintf(uri, "fd:%d", pair[0]);
	start_side(&m->source, "source", uri, m->from, 1, NULL);
	expect(&m->source, "error", "message", "open for reading only, wanted both directions");
	check(wait_side(&m->source) == 1);
	end_side(&m->source);
	start_side(&m->source, "source", "fd:999", m->from, 1, NULL);
	expect(&m->source, "error", "message", "descriptor 999 is not open");
	check(wait_side(&m->source) == 1);
	close(pair[0]);
	close(pair[1]);
}

/* A command at each end, and a path between them. */
static void test_exec(struct migration *m)
{
	begin_over(m, "exec:exec socat - UNIX-LISTEN:" UNIX_PATH,
		   "exec:for i in $(seq 90); do test -S " UNIX_PATH " && break; sleep .2; done; exec socat - UNIX-CONNECT:" UNIX_PATH,
		   NULL);
	travel(m, 4);
}

static void test_exec_fails(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	start_side(&m->source, "source", "exec:exit 7", m->from, 1, NULL);
	expect(&m->source, "error", "message", "the command exited with status 7");
	check(wait_side(&m->source) == 1);
	start_side(&m->destination, "destination", "exec:echo hello, world", m->to, 1, NULL);
	expect(&m->destination, "listening", NULL, NULL);
	expect(&m->destination, "error", "message", "got \"hello, w\", wanted \"UMUX\"");
	check(wait_side(&m->destination) == 1);
}

static void test_no_push(struct migration *m)
{
	static const char *const extra[] = { "--no-push", NULL };
	struct toucher touchers[4];
	json_int_t pages = 4 * MIB / PAGE;

	begin(m, 1, 4 * MIB, extra, false);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, (uint64_t)pages, true);
	expect_end(m);
	stop_touching(touchers, 4);
	check_memory(m);
	check(counter(&m->source, "bulk_bytes") < 200, "%lld bytes on bulk",
	      (long long)counter(&m->source, "bulk_bytes"));
	check(counter(&m->source, "requests") == pages, "%lld requests for %lld pages",
	      (long long)counter(&m->source, "requests"), (long long)pages);
	check(counter(&m->source, "duplicates") == 0);
	check(counter(&m->destination, "faults") == pages, "%lld faults for %lld pages",
	      (long long)counter(&m->destination, "faults"), (long long)pages);
	check(sum_of(&m->destination, "fault_histogram", "count") == pages);
	check(json_array_size(json_object_get(m->destination.progress, "blocktime")) == 4);
	check(sum_of(&m->destination, "blocktime", "blocktime_ms") > 0);
	check(counter(&m->destination, "fault_p50_us") > 0 &&
	      counter(&m->destination, "fault_p50_us") <= counter(&m->destination, "fault_p99_us") &&
	      counter(&m->destination, "fault_p99_us") <= counter(&m->destination, "fault_max_us"));
}

static void test_zstd(struct migration *m)
{
	static const char *const extra[] = { "--compress=zstd", NULL };
	json_int_t bytes, pages, saved;

	everything_arrives(m, extra, 2, 4);
	bytes = counter(&m->source, "bulk_bytes");
	pages = counter(&m->source, "compressed_pages");
	saved = counter(&m->source, "compression_saved_bytes");
	/* One page of 16 or more in a row is sparse, and almost all of it goes. */
	check(pages > counter(&m->source, "pages_total") / 20, "%lld pages", (long long)pages);
	check(saved > pages * 3900 && saved < pages * 4096, "%lld bytes of %lld pages",
	      (long long)saved, (long long)pages);
	check(bytes > 0 && counter(&m->destination, "compressed_pages") > 0 &&
	      counter(&m->destination, "compressed_pages") <= pages);
	check(counter(&m->destination, "compression_saved_bytes") <= saved);
	end(m);

	everything_arrives(m, NULL, 2, 0);
	check(counter(&m->source, "compressed_pages") == 0);
	check(counter(&m->source, "bulk_bytes") > bytes + saved / 2, "%lld bytes, %lld with zstd",
	      (long long)counter(&m->source, "bulk_bytes"), (long long)bytes);
}

static void test_bulk_bandwidth(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=4000000", NULL };
	const uint64_t limit = 4000000;
	uint64_t started = now_ns(), ns, bytes;

	everything_arrives(m, extra, 1, 0);
	ns = now_ns() - started;
	bytes = (uint64_t)counter(&m->source, "bulk_bytes");
	check(bytes > limit && bytes < ns / NSEC_PER_MSEC * (limit / 1000) / 10 * 11,
	      "%llu bytes on bulk in %llu ms", (unsigned long long)bytes,
	      (unsigned long long)(ns / NSEC_PER_MSEC));
}

static void test_bulk_bandwidth_changes(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=1", NULL };
	struct toucher touchers[4];

	begin(m, 1, 8 * MIB, extra, false);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, 100, false);
	stop_touching(touchers, 4);
	wait_counter(&m->source, "requests", 201);
	check(counter(&m->source, "bulk_bytes") < (json_int_t)(4 * PAGE), "%lld bytes on bulk",
	      (long long)counter(&m->source, "bulk_bytes"));
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_bulk_bandwidth", 0));
	expect_end(m);
	check_memory(m);
}

/* Bytes of bulk a second over five of them, while pages are asked for. */
static void test_bulk_bandwidth_under_requests(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=500000", NULL };
	const json_int_t limit = 500000;
	struct toucher touchers[4];
	json_int_t bulk, urgent, rate;
	uint64_t start, ns;

	begin(m, 1, 20 * MIB, extra, false);
	if (!switch_over(m))
		return;
	next_event(&m->source, 300);
	bulk = counter(&m->source, "bulk_bytes");
	urgent = counter(&m->source, "urgent_bytes");
	start = now_ns();
	start_touching(touchers, 4, m, 300, false);
	stop_touching(touchers, 4);
	next_event(&m->source, 300);
	ns = now_ns() - start;
	rate = (counter(&m->source, "urgent_bytes") - urgent) * 1000 /
	       (json_int_t)(ns / NSEC_PER_MSEC);
	check(rate > limit, "%lld bytes a second on urgent", (long long)rate);

	if (next_event(&m->source, 5000))
		return;
	ns = now_ns() - start;
	rate = (counter(&m->source, "bulk_bytes") - bulk) * 1000 /
	       (json_int_t)(ns / NSEC_PER_MSEC);
	if (check(rate <= limit / 10 * 11, "%lld bytes a second on bulk, wanted %lld",
		  (long long)rate, (long long)limit))
		check_rate(&m->source, (double)limit);
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_bulk_bandwidth", 0));
	expect_end(m);
	check_memory(m);
}

/* Numbers of channels. */

static void set_channels(struct migration *m, int urgent, int bulk)
{
	command(&m->source, json_pack("{s:s,s:i,s:i}", "cmd", "set", "urgent_channels", urgent,
				      "bulk_channels", bulk));
}

static bool wait_channels(struct side *side, json_int_t urgent, json_int_t bulk)
{
	uint64_t deadline = now_ns() + TIMEOUT_MS * NSEC_PER_MSEC;

	while ((counter(side, "urgent_channels") != urgent ||
		counter(side, "bulk_channels") != bulk) && now_ns() < deadline) {
		if (next_event(side, 100))
			break;
	}
	return check(counter(side, "urgent_channels") == urgent &&
		     counter(side, "bulk_channels") == bulk,
		     "%lld of urgent, %lld of bulk, wanted %lld and %lld",
		     (long long)counter(side, "urgent_channels"),
		     (long long)counter(side, "bulk_channels"), (long long)urgent,
		     (long long)bulk);
}

static bool both_have_channels(struct migration *m, json_int_t urgent, json_int_t bulk)
{
	return wait_channels(&m->source, urgent, bulk) &&
	       wait_channels(&m->destination, urgent, bulk);
}

static void test_four_channels_of_each(struct migration *m)
{
	begin(m, 3, 8 * MIB, NULL, false);
	set_channels(m, 4, 4);
	if (both_advise(m) && both_have_channels(m, 4, 4) && hand_over(m)) {
		struct toucher touchers[8];

		start_touching(touchers, 8, m, 2000, false);
		expect_end(m);
		stop_touching(touchers, 8);
		check_memory(m);
		check(counter(&m->source, "urgent_channels") == 4);
	}
}

/* After the switch, while four threads ask for pages all the time. */
static void test_channels_change(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=1000000", NULL };
	static const int numbers[][2] = { { 1, 4 }, { 4, 4 }, { 2, 2 }, { 16, 16 }, { 1, 1 } };
	struct toucher touchers[4];

	begin(m, 2, 16 * MIB, extra, true);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, 6000, false);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		set_channels(m, numbers[i][0], numbers[i][1]);
		if (!both_have_channels(m, numbers[i][0], numbers[i][1]))
			break;
	}
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_bulk_bandwidth", 0));
	expect_end(m);
	stop_touching(touchers, 4);
	check_memory(m);
}

static void test_channels_in_precopy(struct migration *m)
{
	static const int numbers[] = { 4, 2, 5, 1 };
	struct writer writers[WRITERS];

	begin(m, 2, 8 * MIB, precopy, false);
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "downtime_limit_ms", 0));
	if (!both_advise(m))
		return;
	start_writing(writers, m, 50);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		set_channels(m, 1, numbers[i]);
		if (!both_have_channels(m, 1, numbers[i]) ||
		    !wait_counter(&m->source, "round", counter(&m->source, "round") + 2))
			break;
	}
	stop_writing(writers);
	if (hand_over(m)) {
		expect_end(m);
		check_same_memory(m);
		check(counter(&m->destination, "checksum_errors") == 0);
	}
}

static void test_lost_channel(struct migration *m)
{
	struct toucher touchers[4];

	begin(m, 1, 8 * MIB, (const char *const[]){ "--no-push", NULL }, true);
	set_channels(m, 2, 2);
	if (!both_advise(m) || !both_have_channels(m, 2, 2) || !hand_over(m))
		return;
	m->relay.cut_one = 5;	/* the last: control, two first ones, then the others */
	if (cut_ends(m))
		both_have_channels(m, 2, 2);
	start_touching(touchers, 4, m, 8 * MIB / PAGE, true);
	expect_end(m);
	stop_touching(touchers, 4);
	check_memory(m);
}

static void test_channels_of_a_stream(struct migration *m)
{
	begin_over_pair(m, NULL);
	set_channels(m, 2, 2);
	travel(m, 4);
	check(counter(&m->source, "bulk_channels") == 1);
	check(counter(&m->source, "urgent_channels") == 1);
}

static void test_prefault(struct migration *m)
{
	static const char *const extra[] = { "--no-push", "--forward=32", NULL };
	struct toucher toucher;
	json_int_t pages = 4 * MIB / PAGE;

	begin(m, 1, 4 * MIB, extra, false);
	if (!switch_over(m))
		return;
	start_touching(&toucher, 1, m, (uint64_t)pages, true);
	expect_end(m);
	stop_touching(&toucher, 1);
	check_memory(m);
	/* The reader may overtake the pages of an answer: a fault, but nothing to ask for. */
	check(counter(&m->source, "requests") <= pages / 20, "%lld requests for %lld pages",
	      (long long)counter(&m->source, "requests"), (long long)pages);
}

static void test_memory_is_bounded(struct migration *m)
{
	struct toucher touchers[4];
	long source = -1, destination = -1;

	begin(m, 1, 128 * MIB, NULL, false);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, 1000, false);
	/* The most that each has while pages travel; at the end they may be gone. */
	for (int i = 0; i < 50; i++) {
		source = max(source, anonymous_kib(&m->source));
		destination = max(destination, anonymous_kib(&m->destination));
		usleep(10000);
	}
	expect_state(&m->destination, "end");
	check(source > 0 && source < 32 * 1024, "the source has %ld KiB", source);
	check(destination > 0 && destination < 32 * 1024, "the destination has %ld KiB", destination);
	stop_touching(touchers, 4);
	check_memory(m);
}

static void test_pages_wait_for_stopped(struct migration *m)
{
	struct toucher toucher;

	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	/* QEMU may touch memory while it loads; the page is not final yet. */
	start_touching(&toucher, 1, m, 1, true);
	wait_counter(&m->source, "requests", 1);
	usleep(300000);
	next_event(&m->source, 50);
	check(counter(&m->source, "pages_sent") == 0);
	check(counter(&m->source, "requests") == 1);
	m->from[0].view[0] ^= 1;
	m->from[0].view[0] ^= 1;
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	stop_touching(&toucher, 1);
	carry_state(m, 5);
}

static void test_cancel(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	command(&m->source, json_pack("{s:s}", "cmd", "cancel"));
	expect(&m->source, "cancelled", NULL, NULL);
	check(wait_side(&m->source) == 0, "exit status %d", m->source.status);
	/* QEMU was given nothing: the destination waits for the next source. */
	expect(&m->destination, "refused", "message", "cancelled the migration");
	end_side(&m->source);
	begin_source(m, m->port, NULL);
	if (switch_over(m)) {
		expect_end(m);
		check_memory(m);
	}
}

static void test_destination_fails(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	carry_state(m, 1000);
	expect_state(&m->source, "listen");
	expect_state(&m->destination, "listen");
	command(&m->destination,
		json_pack("{s:s,s:s}", "cmd", "fail", "message", "device \"x\" is unknown"));
	expect(&m->destination, "error", "message", "device \"x\" is unknown");
	expect(&m->source, "error", "message", "failed: device \"x\" is unknown");
	check(wait_side(&m->source) == 1);
	check(wait_side(&m->destination) == 1);
}

#define GROUPS	"/sys/fs/cgroup"
#define GROUP	GROUPS "/umem-loopback"

static void put_in(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void put_in(const char *path, const char *format, ...)
{
	FILE *file = fopen(path, "w");
	va_list args;

	va_start(args, format);
	if (!file || vfprintf(file, format, args) < 0 || fclose(file))
		bail("%s: %s", path, strerror(errno));
	va_end(args);
}

static void test_out_of_memory(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	m->nr_from = m->nr_to = 1;
	make_memory(&m->from[0], "ram0", 384 * MIB);
	put_in(GROUPS "/cgroup.subtree_control", "+memory");
	if (mkdir(GROUP, 0755))
		bail("%s: %s", GROUP, strerror(errno));
	put_in(GROUP "/memory.max", "%lld", 256LL * MIB);
	/* Whose memory is charged there from now on. */
	put_in(GROUP "/cgroup.procs", "0");
	make_memory(&m->to[0], "ram0", 384 * MIB);
	begin_destination(m, NULL);
	/* It shall not be at its end before the source has come. */
	kill(m->destination.pid, SIGSTOP);
	put_in(GROUPS "/cgroup.procs", "0");
	start_relay(&m->relay, m->port);
	begin_source(m, m->relay.port, NULL);
	for (int i = 0; i < TIMEOUT_MS && !m->relay.forwarded; i++)
		usleep(1000);
	kill(m->destination.pid, SIGCONT);
	expect(&m->destination, "error", "message", "region \"ram0\": out of memory: ");
	expect(&m->source, "error", "message", "failed: region \"ram0\": out of memory: ");
	end_side(&m->destination);
	free_memory(&m->to[0]);
	if (rmdir(GROUP))
		bail("%s: %s", GROUP, strerror(errno));
}

static void test_source_killed_before_state(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	kill(m->source.pid, SIGKILL);
	expect(&m->destination, "refused", "message", "connection to the source");
	end_side(&m->source);
	begin_source(m, m->port, NULL);
	if (switch_over(m)) {
		expect_end(m);
		check_memory(m);
	}
}

static void test_source_killed_after_state(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	carry_state(m, 1000);
	expect_state(&m->destination, "listen");
	kill(m->source.pid, SIGKILL);
	expect(&m->destination, "error", "message", "connection to the source");
	check(wait_side(&m->destination) == 1);
}

static void test_destination_killed_before_go(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	kill(m->destination.pid, SIGKILL);
	expect(&m->source, "error", "message", "connection to tcp:127.0.0.1:");
	check(wait_side(&m->source) == 1);
}

static void test_launcher_gone_before_go(struct migration *m)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	shutdown(m->source.control, SHUT_RDWR);
	check(wait_side(&m->source) == 1);
	shutdown(m->destination.control, SHUT_RDWR);
	check(wait_side(&m->destination) == 1);
}

static void test_launcher_gone_after_go(struct migration *m)
{
	begin(m, 1, 8 * MIB, NULL, false);
	if (!switch_over(m))
		return;
	shutdown(m->source.control, SHUT_RDWR);
	shutdown(m->destination.control, SHUT_RDWR);
	check(wait_side(&m->source) == 0);
	check(wait_side(&m->destination) == 0);
	check_memory(m);
}

static void cut_and_resume(struct migration *m, const char *const *extra, int cuts)
{
	struct toucher touchers[4];

	begin(m, 2, 8 * MIB, extra, true);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, 3000, false);
	for (int i = 0; i < cuts; i++) {
		long before = m->relay.forwarded;

		for (int ms = 0; m->relay.forwarded < before + (long)MIB && ms < TIMEOUT_MS; ms++)
			usleep(1000);
		if (!check(m->relay.forwarded >= before + (long)MIB, "after %d cuts %ld bytes came", i,
			   m->relay.forwarded - before))
			break;
		m->relay.cut = true;
		if (!cut_ends(m))
			break;
	}
	expect_end(m);
	stop_touching(touchers, 4);
	check_memory(m);
}

static void test_cut_and_resumed(struct migration *m)
{
	cut_and_resume(m, NULL, 4);
}

static void test_cut_with_waiters(struct migration *m)
{
	static const char *const extra[] = { "--no-push", NULL };
	struct toucher touchers[4];

	begin(m, 1, 4 * MIB, extra, true);
	if (!switch_over(m))
		return;
	m->relay.refuse = true;
	m->relay.cut = true;
	expect_state(&m->source, "paused");
	expect_state(&m->destination, "paused");
	/* These wait through the outage: nobody can be asked. */
	start_touching(touchers, 4, m, 4 * MIB / PAGE, true);
	sleep(2);
	m->relay.refuse = false;
	reach_state(&m->source, "running");
	reach_state(&m->destination, "running");
	expect_end(m);
	stop_touching(touchers, 4);
	check_memory(m);
}

/* One that has ended is followed by another, as by umem-qemu. */

static json_t *session_of(struct side *side, bool gone)
{
	json_t *session = json_deep_copy(side->session);

	json_object_set_new(session, "gone", json_boolean(gone));
	json_object_set_new(session, "run", json_true());
	return session;
}

static void replace_source(struct migration *m, const char *const *extra)
{
	json_t *session = session_of(&m->source, true);
	char uri[64];

	uri_of(uri, m->relay.port ? m->relay.port : m->port);
	end_side(&m->source);
	start_side_with(&m->source, "source", uri, m->from, m->nr_from, extra,
			json_incref(session));
	m->source.session = session;
}

static void replace_destination(struct migration *m, bool gone)
{
	json_t *session = session_of(&m->destination, gone);
	char uri[64];

	uri_of(uri, m->port);
	end_side(&m->destination);
	start_side_with(&m->destination, "destination", uri, m->to, m->nr_to, NULL,
			json_incref(session));
	m->destination.session = session;
	expect(&m->destination, "listening", "uri", uri);
}

/* Told to, or killed. */
static void ends(struct side *side, bool told)
{
	if (told)
		command(side, json_pack("{s:s}", "cmd", "stop"));
	else
		kill(side->pid, SIGKILL);
	check(wait_side(side) == (told ? 0 : 1000 + SIGKILL), "exit status %d", side->status);
}

/* @told: they end because they are told to */
static void replace_six_times(struct migration *m, const char *const *extra, bool told)
{
	struct toucher touchers[4];

	begin(m, 2, 12 * MIB, extra, false);
	if (!switch_over(m))
		return;
	start_touching(touchers, 4, m, 3000, false);
	for (int i = 0; i < 6 && !test_failed; i++) {
		bool source = i % 3 != 1, destination = i % 3 != 0;

		usleep(300000);
		if (source)
			ends(&m->source, told);
		if (destination)
			ends(&m->destination, told);
		if (source)
			replace_source(m, extra);
		if (destination)
			replace_destination(m, true);
		reach_state(&m->source, "running");
		reach_state(&m->destination, "running");
	}
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_bulk_bandwidth", 0));
	reach_state(&m->destination, "end");
	reach_state(&m->source, "end");
	stop_touching(touchers, 4);
	check_memory(m);
	check(wait_side(&m->source) == 0);
	check(wait_side(&m->destination) == 0);
	check(counter(&m->destination, "pages_present") == counter(&m->source, "pages_total"));
}

static const char *const slow[] = { "--max-bulk-bandwidth=2000000", NULL };

static void test_killed_and_replaced(struct migration *m)
{
	replace_six_times(m, slow, false);
}

static void test_stopped_and_replaced(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=2000000", "--compress=zstd",
					     NULL };

	replace_six_times(m, extra, true);
}

static bool source_gives_up(struct side *source)
{
	json_t *event = next_event(source, TIMEOUT_MS);
	const char *name = json_string_value(json_object_get(event, "event"));
	bool gives_up = name && !strcmp(name, "error");

	json_decref(event);
	return gives_up && check(wait_side(source) == 1);
}

/* Whoever was killed before GO came to the other side: RESUME brings it. */
static void go_by_resume(struct migration *m, bool source_dies, bool destination_dies)
{
	begin(m, 1, 4 * MIB, NULL, false);
	if (!both_advise(m))
		return;
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	if (!carry_state(m, 1000) || !expect_state(&m->source, "listen") ||
	    !expect_state(&m->destination, "listen"))
		return;
	command(&m->destination, json_pack("{s:s}", "cmd", "ready"));
	if (!expect(&m->source, "ready", NULL, NULL))
		return;
	if (source_dies) {
		ends(&m->source, false);
		reach_state(&m->destination, "paused");
	}
	if (destination_dies) {
		kill(m->source.pid, SIGSTOP);
		ends(&m->destination, false);
		replace_destination(m, false);
		reach_state(&m->destination, "paused");
		if (!source_dies)
			command(&m->source, json_pack("{s:s,s:b}", "cmd", "go", "run", 1));
		kill(m->source.pid, SIGCONT);
	}
	/* One that sees the other side end before it is told to say GO gives up, not knowing. */
	if (source_dies || source_gives_up(&m->source))
		replace_source(m, NULL);
	check(expect(&m->destination, "go", NULL, NULL));
	reach_state(&m->destination, "end");
	reach_state(&m->source, "end");
	check_memory(m);
}

static void test_source_killed_before_it_said_go(struct migration *m)
{
	go_by_resume(m, true, false);
}

static void test_destination_killed_before_it_heard_go(struct migration *m)
{
	go_by_resume(m, false, true);
}

static void test_both_killed_around_go(struct migration *m)
{
	go_by_resume(m, true, true);
}

/* The source has not heard that all is there: the guest has discarded the rest. */
static void test_destination_killed_at_the_end(struct migration *m)
{
	static const char *const none[] = { "--no-push", NULL };

	begin(m, 1, 4 * MIB, none, false);
	if (!switch_over(m))
		return;
	kill(m->source.pid, SIGSTOP);
	check(!umem_discard(m->to[0].fd, 0, 4 * MIB));
	reach_state(&m->destination, "end");
	ends(&m->source, false);
	ends(&m->destination, false);
	replace_destination(m, true);
	expect_state(&m->destination, "end");
	replace_source(m, none);
	reach_state(&m->source, "end");
	check(wait_side(&m->source) == 0);
	check(wait_side(&m->destination) == 0);
}

static void test_session_that_is_no_good(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	start_side_with(&m->source, "source", "tcp:127.0.0.1:9", m->from, 1, NULL,
			json_pack("{s:s}", "id", "nothing"));
	expect(&m->source, "error", "message", "no good \"id\", wanted 32 hexadecimal digits");
	check(wait_side(&m->source) == 1);
}

/* A guest's process: maps the region, and at a byte counts its faults on all of it. */
static pid_t start_toucher_process(struct migration *m, int *channel)
{
	int sockets[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		bail("socketpair: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		struct memory *memory = &m->to[0];
		struct rusage before, after;
		long faults;
		void *view;
		char byte;

		close(sockets[0]);
		if (umem_map_guest(memory->fd, 0, memory->length, PROT_READ, &view) ||
		    write(sockets[1], "x", 1) != 1 || read(sockets[1], &byte, 1) != 1)
			_exit(1);
		getrusage(RUSAGE_SELF, &before);
		for (uint64_t i = 0; i < memory->length; i += PAGE)
			byte ^= *((volatile char *)view + i);
		getrusage(RUSAGE_SELF, &after);
		faults = after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt;
		_exit(write(sockets[1], &faults, sizeof(faults)) != sizeof(faults));
	}
	close(sockets[1]);
	check(read(sockets[0], &(char){ 0 }, 1) == 1);
	*channel = sockets[0];
	return pid;
}

static long faults_of_process(struct migration *m, const char *const *extra)
{
	long faults = -1;
	int channel, status;
	pid_t pid, errands;

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, 4 * MIB);
	pid = start_toucher_process(m, &channel);
	begin_destination(m, extra);
	begin_source(m, m->port, NULL);
	if (switch_over(m)) {
		errands = errands_of(&m->destination);
		expect_end(m);
		/* It has touched what it was told to once it has ended. */
		check(!errands || is_gone(errands));
		check(write(channel, "x", 1) == 1);
		check(read(channel, &faults, sizeof(faults)) == sizeof(faults));
	}
	close(channel);
	check(waitpid(pid, &status, 0) == pid);
	return faults;
}

static void test_touch(struct migration *m)
{
	static const char *const extra[] = { "--touch", NULL };
	long pages = 4 * MIB / PAGE, faults;

	/* Folios of 2 MiB take next to no faults either way. */
	create_flags = 0;
	faults = faults_of_process(m, NULL);
	/* The kernel maps up to 16 pages a fault. */
	check(faults >= pages / 16, "without: %ld faults on %ld pages", faults, pages);
	end(m);
	faults = faults_of_process(m, extra);
	check(faults >= 0 && faults <= 8, "%ld faults on %ld pages", faults, pages);
	create_flags = UMEM_CREATE_HUGE;
}

/* What is left of its rights. */

/* A line of its status, in hexadecimal. */
static long status_of(pid_t pid, const char *key)
{
	char path[64], line[256];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "r");
	while (file && fgets(line, sizeof(line), file)) {
		if (!strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			value = strtol(line + strlen(key) + 1, NULL, 16);
	}
	if (file)
		fclose(file);
	return value;
}

static void check_rights(pid_t pid, long capabilities)
{
	check(status_of(pid, "Seccomp") == 2);
	check(status_of(pid, "NoNewPrivs") == 1);
	check(status_of(pid, "CapBnd") == 0);
	check(status_of(pid, "CapInh") == 0);
	check(status_of(pid, "CapAmb") == 0);
	check(status_of(pid, "CapPrm") == capabilities);
	check(status_of(pid, "CapEff") == capabilities);
}

/* What it has open: so many sockets and pagers, the region or not, and nothing else. */
static void check_descriptors(pid_t pid, unsigned int sockets, unsigned int pagers,
			      const struct memory *memory)
{
	unsigned int nr_sockets = 0, nr_pagers = 0, nr_regions = 0;
	char folder[64], path[320], target[256];
	struct stat region = { 0 }, st;
	struct dirent *entry;
	DIR *fds;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
	fds = opendir(folder);
	if (!check(fds, "%s", strerror(errno)))
		return;
	if (memory)
		fstat(memory->fd, &region);
	while ((entry = readdir(fds))) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 0 || !strcmp(entry->d_name, "2"))
			continue;
		target[n] = '\0';
		if (!strncmp(target, "socket:", 7))
			nr_sockets++;
		else if (!strcmp(target, "anon_inode:[umem-pager]"))
			nr_pagers++;
		else if (!stat(path, &st) && memory && st.st_dev == region.st_dev &&
			 st.st_ino == region.st_ino)
			nr_regions++;
		else
			check(!strcmp(target, "/dev/null") ||
			      (memory && !strcmp(target, "anon_inode:[eventpoll]")),
			      "descriptor %s is %s", entry->d_name, target);
	}
	closedir(fds);
	check(nr_sockets == sockets, "%u sockets, wanted %u", nr_sockets, sockets);
	check(nr_pagers == pagers, "%u pagers, wanted %u", nr_pagers, pagers);
	check(nr_regions == (memory != NULL), "%u regions", nr_regions);
}

static void test_rights(struct migration *m)
{
	static const char *const extra[] = { "--no-push", NULL };

	begin(m, 1, MIB, extra, false);
	if (!switch_over(m))
		return;
	/* Control, three channels, and to its errands; control, three channels, the listener. */
	check_rights(m->source.pid, 0);
	check_descriptors(m->source.pid, 5, 0, &m->from[0]);
	check_rights(m->destination.pid, 0);
	check_descriptors(m->destination.pid, 5, 1, &m->to[0]);
	if (check(errands_of(&m->source))) {
		check_rights(errands_of(&m->source), 0);
		check_descriptors(errands_of(&m->source), 1, 0, NULL);
	}
	check(!errands_of(&m->destination));
}

/* Files of sockets may belong to others: that one capability is kept for them. */
#define CAP_DAC_OVERRIDE_BIT	(1 << 1)

static void test_rights_of_errands(struct migration *m)
{
	begin_over(m, "unix:" UNIX_PATH, "unix:" UNIX_PATH, NULL);
	if (!both_advise(m))
		return;
	check_rights(errands_of(&m->source), CAP_DAC_OVERRIDE_BIT);
	check_rights(errands_of(&m->destination), CAP_DAC_OVERRIDE_BIT);
	check_descriptors(errands_of(&m->destination), 1, 0, NULL);
	unlink(UNIX_PATH);
}

#ifdef __x86_64__
/* Has a process that waits in a system call make another; its result, or -ETIME. */
static long make_call(pid_t pid, long number, long first, long second, long third)
{
	struct user_regs_struct saved, regs;
	long result = -ETIME;

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL))
		return -errno;
	for (int i = 0; i < 100 && result == -ETIME; i++) {
		if (i)
			ptrace(PTRACE_CONT, pid, NULL, NULL);
		usleep(1000);
		if (ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) || waitpid(pid, NULL, __WALL) != pid ||
		    ptrace(PTRACE_GETREGS, pid, NULL, &saved))
			return -errno;
		if ((ptrace(PTRACE_PEEKTEXT, pid, saved.rip - 2, NULL) & 0xffff) != 0x050f)
			continue;	/* it runs: another time */
		regs = saved;
		regs.rip -= 2;		/* its own instruction "syscall" */
		regs.rax = (unsigned long)number;
		regs.orig_rax = ~0UL;
		regs.rdi = (unsigned long)first;
		regs.rsi = (unsigned long)second;
		regs.rdx = (unsigned long)third;
		if (ptrace(PTRACE_SETREGS, pid, NULL, &regs) ||
		    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) ||
		    waitpid(pid, NULL, __WALL) != pid || ptrace(PTRACE_GETREGS, pid, NULL, &regs))
			return -errno;
		result = (long)regs.rax;
		ptrace(PTRACE_SETREGS, pid, NULL, &saved);
	}
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	return result;
}

static void refuses_calls(pid_t pid)
{
	/* Without a path these would fail, too, but with EFAULT. */
	check(make_call(pid, SYS_getpid, 0, 0, 0) == pid);
	check(make_call(pid, SYS_open, 0, O_RDONLY, 0) == -EPERM);
	check(make_call(pid, SYS_execve, 0, 0, 0) == -EPERM);
	check(make_call(pid, SYS_socket, AF_INET, SOCK_DGRAM, 0) == -EPERM);
}

static void test_refused_calls(struct migration *m)
{
	static const char *const extra[] = { "--no-push", NULL };
	struct toucher toucher;

	begin(m, 1, MIB, extra, false);
	if (!switch_over(m))
		return;
	refuses_calls(m->source.pid);
	check(make_call(m->source.pid, SYS_socket, AF_INET, SOCK_STREAM, 0) == -EPERM);
	refuses_calls(m->destination.pid);
	check(make_call(m->destination.pid, SYS_socket, AF_INET, SOCK_STREAM, 0) == -EPERM);
	refuses_calls(errands_of(&m->source));
	/* And nothing came of it. */
	start_touching(&toucher, 1, m, MIB / PAGE, true);
	expect_end(m);
	stop_touching(&toucher, 1);
	check_memory(m);
}

#endif

static void test_errands_killed(struct migration *m)
{
	begin(m, 1, MIB, (const char *const[]){ "--no-push", NULL }, true);
	if (!switch_over(m))
		return;
	kill(errands_of(&m->source), SIGKILL);
	m->relay.cut = true;
	expect_state(&m->source, "paused");
	expect(&m->source, "error", "message", "the process that makes connections has ended");
	check(wait_side(&m->source) == 1);
}

static void test_errands_end_with_umemd(struct migration *m)
{
	pid_t errands;

	begin(m, 1, MIB, NULL, false);
	if (!both_advise(m))
		return;
	errands = errands_of(&m->source);
	kill(m->source.pid, SIGKILL);
	check(wait_side(&m->source) == 1000 + SIGKILL);
	check(is_gone(errands));
}

/* Refusals. The destination stays good for the migration that follows. */

static void then_migrates(struct migration *m)
{
	end_side(&m->source);
	if (m->relay.port)
		stop_relay(&m->relay);
	begin_source(m, m->port, NULL);
	if (switch_over(m)) {
		expect_end(m);
		check_memory(m);
	}
}

static void refused(struct migration *m, const char *part)
{
	expect(&m->destination, "refused", "message", part);
	expect(&m->source, "error", "message", part);
	check(wait_side(&m->source) == 1);
}

static void test_length_differs(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_memory(&m->from[0], "ram0", 4 * MIB);
	make_memory(&m->to[0], "ram0", 8 * MIB);
	m->nr_from = m->nr_to = 1;
	begin_destination(m, NULL);
	begin_source(m, m->port, NULL);
	refused(m, "region \"ram0\" has 4194304 bytes at the source, 8388608 bytes at the destination");
	free_memory(&m->from[0]);
	make_memory(&m->from[0], "ram0", 8 * MIB);
	fill_memory(&m->from[0], 0);
	then_migrates(m);
}

static void test_name_differs(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_memory(&m->from[0], "ram0", 4 * MIB);
	make_memory(&m->to[0], "pc.ram", 4 * MIB);
	m->nr_from = m->nr_to = 1;
	begin_destination(m, NULL);
	begin_source(m, m->port, NULL);
	refused(m, "region \"ram0\" of 4194304 bytes is at the source, the destination has only \"pc.ram\" of 4194304 bytes");
}

static void test_region_missing(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_memory(&m->from[0], "ram0", 4 * MIB);
	make_memory(&m->to[0], "ram0", 4 * MIB);
	make_memory(&m->to[1], "ram1", 8 * MIB);
	m->nr_from = 1;
	m->nr_to = 2;
	begin_destination(m, NULL);
	begin_source(m, m->port, NULL);
	refused(m, "region \"ram1\" of 8388608 bytes is at the destination, the source has only \"ram0\" of 4194304 bytes");
}

static void lonely_destination(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, 4 * MIB);
	begin_destination(m, NULL);
}

static void put16(uint8_t *p, unsigned int value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

/* Sends bytes, returns what came back until the peer closed. */
static size_t talk(int port, const void *bytes, size_t size, uint8_t *answer, size_t room)
{
	int fd = connect_to(port);
	struct timeval limit = { .tv_sec = 20 };
	size_t got = 0;
	ssize_t n;

	if (!check(fd >= 0, "connect: %s", strerror(errno)))
		return 0;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	for (size_t done = 0; done < size; done += (size_t)n) {
		n = send(fd, (const uint8_t *)bytes + done, size - done, MSG_NOSIGNAL);
		if (n <= 0)
			break;
	}
	while (got < room && (n = read(fd, answer + got, room - got)) > 0)
		got += (size_t)n;
	close(fd);
	return got;
}

static bool contains(const uint8_t *bytes, size_t size, const char *text)
{
	return memmem(bytes, size, text, strlen(text)) != NULL;
}

static void test_version_differs(struct migration *m)
{
	uint8_t hello[MAGIC_SIZE + FRAME_HEADER + 40] = MAGIC;
	uint8_t answer[2048];
	size_t size;

	lonely_destination(m);
	put16(hello + 8, FRAME_HELLO);
	put16(hello + 12, 40);
	put16(hello + 20, 1);
	put16(hello + 24, 9);	/* versions 7 to 9 */
	put16(hello + 28, 7);
	size = talk(m->port, hello, sizeof(hello), answer, sizeof(answer));
	check(contains(answer, size, "the source speaks protocol versions 7 to 9, the destination 1 to 1"));
	expect(&m->destination, "refused", "message", "versions 7 to 9, the destination 1 to 1");
	then_migrates(m);
}

static void test_browser(struct migration *m)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
	uint8_t answer[64];

	lonely_destination(m);
	talk(m->port, request, strlen(request), answer, sizeof(answer));
	expect(&m->destination, "refused", "message", "got \"GET / HT\", wanted \"UMEM\"; this is a browser");
	then_migrates(m);
}

static void test_qemu_stream(struct migration *m)
{
	static const uint8_t stream[64] = { 'Q', 'E', 'V', 'M', 0, 0, 0, 3 };
	uint8_t answer[64];

	lonely_destination(m);
	talk(m->port, stream, sizeof(stream), answer, sizeof(answer));
	expect(&m->destination, "refused", "message",
	       "got \"QEVM\\x00\\x00\\x00\\x03\", wanted \"UMEM\"; this is a migration stream of QEMU itself");
	then_migrates(m);
}

static void test_noise(struct migration *m)
{
	uint8_t *noise = malloc(MIB), answer[64];

	lonely_destination(m);
	for (size_t i = 0; i < MIB; i++)
		noise[i] = (uint8_t)mix(i);
	talk(m->port, noise, MIB, answer, sizeof(answer));
	expect(&m->destination, "refused", "message", "not a umem peer");
	/* The same behind a good magic: no frame is that. */
	memcpy(noise, MAGIC, MAGIC_SIZE);
	talk(m->port, noise, MIB, answer, sizeof(answer));
	expect(&m->destination, "refused", "message", "frame");
	free(noise);
	then_migrates(m);
}

/* A source made by hand, in a session of zeroes. */
struct handmade {
	int channels[3];
	bool magic_seen[3];
};

static void connect_by_hand(struct migration *m, struct handmade *source, enum channel_kind kind)
{
	struct timeval limit = { .tv_sec = TIMEOUT_MS / 1000 };
	int fd = connect_to(m->port);

	check(fd >= 0, "connect: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	check(send(fd, MAGIC, MAGIC_SIZE, MSG_NOSIGNAL) == MAGIC_SIZE);
	source->channels[kind] = fd;
	source->magic_seen[kind] = false;
}

static void close_by_hand(struct handmade *source)
{
	for (int i = 0; i < 3; i++)
		close(source->channels[i]);
}

static uint8_t heard[FRAME_PAYLOAD_MAX];	/* the payload of the last frame */

/* The next frame but PING. */
static bool hear(struct handmade *source, enum channel_kind kind, struct frame *frame)
{
	uint8_t header[FRAME_HEADER], magic[MAGIC_SIZE];
	int fd = source->channels[kind];
	char error[CODEC_ERROR_MAX];

	if (!source->magic_seen[kind])
		source->magic_seen[kind] = recv(fd, magic, MAGIC_SIZE, MSG_WAITALL) == MAGIC_SIZE &&
					   !memcmp(magic, MAGIC, MAGIC_SIZE);
	do {
		if (!source->magic_seen[kind] ||
		    recv(fd, header, FRAME_HEADER, MSG_WAITALL) != FRAME_HEADER ||
		    frame_decode(frame, header, error) ||
		    (frame->length && recv(fd, heard, frame->length, MSG_WAITALL) !=
				      (ssize_t)frame->length))
			return check(false, "no frame came on %s: %s", channel_name(kind),
				     strerror(errno));
	} while (frame->type == FRAME_PING);
	return true;
}

static bool hear_type(struct handmade *source, enum channel_kind kind, enum frame_type type)
{
	struct frame frame;

	return hear(source, kind, &frame) &&
	       check(frame.type == type, "%s came, wanted %s", frame_name(frame.type),
		     frame_name(type));
}

static void say(struct handmade *source, enum channel_kind kind, uint16_t type, uint16_t flags,
		uint16_t count, const void *payload, uint16_t size)
{
	uint8_t frame[FRAME_HEADER + 256] = { 0 };

	put16(frame, type);
	put16(frame + 2, flags);
	put16(frame + 4, size);
	put16(frame + 12, count);
	memcpy(frame + FRAME_HEADER, payload, size);
	check(send(source->channels[kind], frame, FRAME_HEADER + (size_t)size, MSG_NOSIGNAL) > 0);
}

static void join_by_hand(struct migration *m, struct handmade *source)
{
	for (uint16_t kind = CHANNEL_URGENT; kind <= CHANNEL_BULK; kind++) {
		uint8_t join[JOIN_BYTES] = { 0 };

		connect_by_hand(m, source, kind);
		put16(join + SESSION_SIZE, kind);
		say(source, kind, FRAME_JOIN, 0, 0, join, sizeof(join));
	}
}

static void begin_by_hand(struct migration *m, struct handmade *source, uint16_t features)
{
	uint8_t hello[HELLO_FIXED + HELLO_REGION] = { 0 };

	put16(hello, 1);
	put16(hello + 4, 1);
	put16(hello + 8, features);
	put16(hello + 16, PAGE_BYTES);
	memcpy(hello + HELLO_FIXED, &m->to[0].length, 8);
	strcpy((char *)hello + HELLO_FIXED + 8, m->to[0].name);
	connect_by_hand(m, source, CHANNEL_CONTROL);
	say(source, CHANNEL_CONTROL, FRAME_HELLO, 0, 1, hello, sizeof(hello));
	hear_type(source, CHANNEL_CONTROL, FRAME_HELLO_ACK);
	join_by_hand(m, source);
	expect_state(&m->destination, "advise");
}

static void expect_lost(struct migration *m, struct handmade *source, const char *message)
{
	expect(&m->destination, "refused", "message", message);
	close_by_hand(source);
}

/* From ADVISE on. */
static bool hand_over_by_hand(struct migration *m, struct handmade *source)
{
	say(source, CHANNEL_CONTROL, FRAME_STATE, 0, 0, "state", 5);
	say(source, CHANNEL_CONTROL, FRAME_STATE_END, 0, 0, "", 0);
	if (!hear_type(source, CHANNEL_CONTROL, FRAME_PREPARED) ||
	    !expect_state(&m->destination, "listen"))
		return false;
	command(&m->destination, json_pack("{s:s}", "cmd", "ready"));
	if (!hear_type(source, CHANNEL_CONTROL, FRAME_READY))
		return false;
	say(source, CHANNEL_CONTROL, FRAME_GO, FRAME_GO_RUN, 0, "", 0);
	return expect(&m->destination, "go", NULL, NULL) &&
	       expect_state(&m->destination, "running");
}

static void say_resume(struct migration *m, struct handmade *source)
{
	uint8_t resume[RESUME_BYTES] = { 0 };

	connect_by_hand(m, source, CHANNEL_CONTROL);
	put16(resume + SESSION_SIZE, PROTOCOL_VERSION);
	say(source, CHANNEL_CONTROL, FRAME_RESUME, FRAME_GO_RUN, 0, resume, sizeof(resume));
}

static void resume_by_hand(struct migration *m, struct handmade *source)
{
	struct frame frame;

	say_resume(m, source);
	join_by_hand(m, source);
	while (hear(source, CHANNEL_CONTROL, &frame) && frame.type == FRAME_BITMAP)
		;
	check(frame.type == FRAME_PREPARED, "%s came", frame_name(frame.type));
	expect_state(&m->destination, "recover");
	expect_state(&m->destination, "running");
}

static uint64_t word_by_hand(uint64_t seed, unsigned int word)
{
	return mix(seed * 512 + word);
}

static void send_page_flags(struct handmade *source, enum channel_kind kind, uint64_t page,
			    uint64_t seed, bool damaged, uint16_t flags)
{
	struct frame frame = {
		.type = FRAME_PAGES,
		.flags = flags,
		.length = PAGES_ENTRY,
		.count = 1,
	};
	struct page_entry entry = { .offset = page * PAGE, .zero = !seed };
	uint8_t bytes[FRAME_HEADER + PAGES_ENTRY + PAGE];
	uint64_t words[512];
	size_t size;

	for (unsigned int i = 0; i < 512; i++)
		words[i] = word_by_hand(seed, i);
	entry.checksum = page_checksum(seed ? words : NULL, 0, entry.offset) ^ damaged;
	frame.length += seed ? PAGE : 0;
	size = FRAME_HEADER + frame.length;
	frame_encode(bytes, &frame);
	page_entry_encode(bytes + FRAME_HEADER, &entry);
	memcpy(bytes + FRAME_HEADER + PAGES_ENTRY, words, PAGE);
	check(send(source->channels[kind], bytes, size, MSG_NOSIGNAL) == (ssize_t)size);
}

/* One page; a seed of 0 is a zero page. */
static void send_page(struct handmade *source, enum channel_kind kind, uint64_t page,
		      uint64_t seed, bool damaged)
{
	send_page_flags(source, kind, page, seed, damaged, 0);
}

static bool page_has_seed(struct migration *m, uint64_t page, uint64_t seed)
{
	for (unsigned int i = 0; i < 512; i++) {
		if (m->to[0].view[page * 512 + i] != (seed ? word_by_hand(seed, i) : 0))
			return false;
	}
	return true;
}

static void zero_the_rest(struct migration *m, struct handmade *source, uint64_t from)
{
	for (uint64_t page = from; page < m->to[0].length / PAGE; page++)
		send_page(source, CHANNEL_BULK, page, 0, false);
}

/* REQUEST of one page; how many milliseconds it took to come. @started: in ns, of now_ns(). */
static uint64_t hear_request(struct handmade *source, uint64_t page, uint16_t flags,
			     uint64_t started)
{
	uint64_t pages[REQUEST_MAX];
	char error[CODEC_ERROR_MAX];
	struct frame frame;

	if (hear(source, CHANNEL_URGENT, &frame))
		check(frame.type == FRAME_REQUEST && frame.flags == flags && frame.count == 1 &&
		      !request_decode(pages, &frame, heard, 1 << 20, error) && pages[0] == page,
		      "%s with flags %u and %u pages, the first %llu", frame_name(frame.type),
		      frame.flags, frame.count, (unsigned long long)pages[0]);
	return (now_ns() - started) / NSEC_PER_MSEC;
}

static bool hears_nothing(struct handmade *source, enum channel_kind kind, int timeout_ms)
{
	struct pollfd poll_fd = { .fd = source->channels[kind], .events = POLLIN };

	return !poll(&poll_fd, 1, timeout_ms);
}

struct waiter {
	struct migration *m;
	pthread_t thread;
	uint64_t page;
	atomic_bool done;
};

static void *wait_for_page(void *argument)
{
	struct waiter *waiter = argument;

	(void)*(volatile uint64_t *)&waiter->m->to[0].view[waiter->page * 512];
	waiter->done = true;
	return NULL;
}

static void start_waiting(struct waiter *waiter, struct migration *m, uint64_t page)
{
	*waiter = (struct waiter){ .m = m, .page = page };
	pthread_create(&waiter->thread, NULL, wait_for_page, waiter);
}

static void expect_end_by_hand(struct migration *m, struct handmade *source)
{
	expect_state(&m->destination, "end");
	hear_type(source, CHANNEL_CONTROL, FRAME_END);
	say(source, CHANNEL_CONTROL, FRAME_END, 0, 0, "", 0);
	check(wait_side(&m->destination) == 0);
	next_event(&m->destination, 100);
	close_by_hand(source);
}

static void test_damaged_pages(struct migration *m)
{
	struct handmade source;
	struct waiter waiter;
	struct umem_info info;
	uint64_t started, ms, at_once = UINT64_MAX;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	start_waiting(&waiter, m, 5);
	hear_request(&source, 5, 0, 0);
	for (int times = 1; times <= 2; times++) {
		started = now_ns();
		send_page(&source, times & 1 ? CHANNEL_URGENT : CHANNEL_BULK, 5, 55, true);
		at_once = min(at_once, hear_request(&source, 5, FRAME_REQUEST_AGAIN, started));
	}
	/* A busy host may hold up one of them. */
	check(at_once < 200, "it took %llu ms", (unsigned long long)at_once);
	started = now_ns();
	send_page(&source, CHANNEL_URGENT, 5, 55, true);
	expect(&m->destination, "damaged", "region", "ram0");
	for (uint64_t least = 250; least <= 1000; least *= 2) {
		ms = hear_request(&source, 5, FRAME_REQUEST_AGAIN, started);
		check(ms >= least && ms < 10 * least, "%llu ms, wanted %llu or more",
		      (unsigned long long)ms, (unsigned long long)least);
		started = now_ns();
		send_page(&source, CHANNEL_URGENT, 5, 55, true);
	}
	check(!waiter.done && !umem_info(m->to[0].fd, &info) && info.missing == m->to[0].length,
	      "a damaged page was shown");
	send_page(&source, CHANNEL_URGENT, 5, 55, false);
	pthread_join(waiter.thread, NULL);
	check(page_has_seed(m, 5, 55));
	/* a copy too many is no reason to ask */
	send_page(&source, CHANNEL_URGENT, 5, 56, true);
	check(hears_nothing(&source, CHANNEL_URGENT, 2500), "it asks for a page that it has");
	check(page_has_seed(m, 5, 55));
	zero_the_rest(m, &source, 0);
	expect_end_by_hand(m, &source);
	check(counter(&m->destination, "checksum_errors") == 7, "%lld errors",
	      (long long)counter(&m->destination, "checksum_errors"));
	check(counter(&m->destination, "damaged_pages") == 1);
}

/* Many pages, each damaged for a while: all arrive, and nothing is forgotten. */
static void test_many_damaged_pages(struct migration *m)
{
	uint64_t pages[REQUEST_MAX], all = 4 * MIB / PAGE;
	unsigned int sent[4 * MIB / PAGE] = { 0 };
	char error[CODEC_ERROR_MAX];
	struct handmade source;
	struct frame frame;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	for (uint64_t page = 0; page < all; page++)
		send_page(&source, CHANNEL_BULK, page, page + 1, true);
	say(&source, CHANNEL_BULK, FRAME_ALL_SENT, 0, 0, "", 0);
	for (uint64_t good = 0; good < all && hear(&source, CHANNEL_URGENT, &frame);) {
		if (!check(frame.type == FRAME_REQUEST && frame.flags == FRAME_REQUEST_AGAIN &&
			   !request_decode(pages, &frame, heard, all, error)))
			break;
		for (uint32_t i = 0; i < frame.count; i++) {
			bool damaged = ++sent[pages[i]] < 3;

			good += sent[pages[i]] == 3;
			send_page(&source, CHANNEL_URGENT, pages[i], pages[i] + 1, damaged);
		}
	}
	/* 64 are told one by one, and the rest is counted */
	for (int i = 0; i < 64; i++) {
		if (!expect(&m->destination, "damaged", "region", "ram0"))
			return;
	}
	expect_end_by_hand(m, &source);
	check(counter(&m->destination, "damaged_pages") == (json_int_t)all);
	for (uint64_t page = 0; page < all; page++)
		check(page_has_seed(m, page, page + 1));
}

/* What came first stays, in whatever order, how often and on whatever channel the rest comes. */
static void test_replayed_pages(struct migration *m)
{
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	for (uint64_t page = 64; page-- > 0;)
		send_page(&source, page % 3 ? CHANNEL_URGENT : CHANNEL_BULK, page, page + 1, false);
	for (uint64_t page = 0; page < 64; page++)
		check(page_has_seed(m, page, page + 1));
	/* the guest writes; every page comes again, older, other or empty, on both channels */
	for (uint64_t page = 0; page < 64; page++)
		m->to[0].view[page * 512] = ~page;
	for (uint64_t page = 0; page < 64; page++) {
		for (int times = 0; times < 2; times++) {
			send_page(&source, CHANNEL_URGENT, page, page + 1, false);
			send_page(&source, CHANNEL_BULK, page, page + 1000, false);
			send_page(&source, CHANNEL_BULK, page, 0, false);
		}
	}
	/* a page on urgent that bulk was to have brought before it said that all was sent */
	say(&source, CHANNEL_BULK, FRAME_ALL_SENT, 0, 0, "", 0);
	send_page(&source, CHANNEL_URGENT, 64, 65, false);
	send_page(&source, CHANNEL_BULK, 65, 66, false);
	/* with these two here all before them is, too */
	check(page_has_seed(m, 64, 65) && page_has_seed(m, 65, 66));

	close_by_hand(&source);
	expect_state(&m->destination, "paused");
	resume_by_hand(m, &source);
	for (uint64_t page = 0; page < 64; page++)
		send_page(&source, CHANNEL_BULK, page, page + 1, false);
	zero_the_rest(m, &source, 66);
	expect_state(&m->destination, "end");
	send_page(&source, CHANNEL_URGENT, 64, 99, false);
	send_page(&source, CHANNEL_BULK, 66, 99, false);
	hear_type(&source, CHANNEL_CONTROL, FRAME_END);
	usleep(300000);
	say(&source, CHANNEL_CONTROL, FRAME_END, 0, 0, "", 0);
	check(wait_side(&m->destination) == 0);
	next_event(&m->destination, 100);
	close_by_hand(&source);
	for (uint64_t page = 0; page < 64; page++) {
		bool kept = m->to[0].view[page * 512] == ~page;

		m->to[0].view[page * 512] = word_by_hand(page + 1, 0);
		check(kept && page_has_seed(m, page, page + 1), "page %llu was overwritten",
		      (unsigned long long)page);
	}
	check(page_has_seed(m, 64, 65) && page_has_seed(m, 65, 66));
	check(!m->to[0].view[66 * 512]);
	check(counter(&m->destination, "duplicates") == 64 * 6 + 64, "%lld duplicates",
	      (long long)counter(&m->destination, "duplicates"));
}

/* Frames that are no pages, said twice: the session is broken off and resumed, no more. */
static void test_replayed_frames(struct migration *m)
{
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	send_page(&source, CHANNEL_BULK, 0, 1, false);
	check(page_has_seed(m, 0, 1));
	say(&source, CHANNEL_CONTROL, FRAME_GO, FRAME_GO_RUN, 0, "", 0);
	expect(&m->destination, "state", "message", "frame GO may not come in state running");
	close_by_hand(&source);
	resume_by_hand(m, &source);
	say(&source, CHANNEL_CONTROL, FRAME_STATE_END, 0, 0, "", 0);
	expect(&m->destination, "state", "message", "frame STATE_END may not come");
	close_by_hand(&source);
	resume_by_hand(m, &source);
	check(page_has_seed(m, 0, 1));
	zero_the_rest(m, &source, 1);
	expect_end_by_hand(m, &source);
}

/* One that ended in order between the two ENDs, whose launcher starts another. */
static void test_source_ends_before_it_said_end(struct migration *m)
{
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	zero_the_rest(m, &source, 0);
	expect_state(&m->destination, "end");
	hear_type(&source, CHANNEL_CONTROL, FRAME_END);
	for (int i = 0; i < 3; i++)
		shutdown(source.channels[i], SHUT_WR);
	/* it has seen that when it has ended them, too */
	for (int i = 0; i < 3; i++) {
		while (recv(source.channels[i], heard, sizeof(heard), 0) > 0)
			;
	}
	close_by_hand(&source);
	say_resume(m, &source);
	hear_type(&source, CHANNEL_CONTROL, FRAME_END);
	say(&source, CHANNEL_CONTROL, FRAME_END, 0, 0, "", 0);
	check(wait_side(&m->destination) == 0);
	close(source.channels[CHANNEL_CONTROL]);
}

/* Giving a source up. */

static _Thread_local sigjmp_buf on_sigbus;
static _Thread_local volatile sig_atomic_t sigbus_code;

static void take_sigbus(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	sigbus_code = info->si_code;
	siglongjmp(on_sigbus, 1);
}

/* Touches pages in order, each at most once. */
struct survivor {
	struct migration *m;
	pthread_t thread;
	uint64_t first, poisoned, wrong;
};

static void *survive(void *argument)
{
	struct survivor *survivor = argument;
	struct migration *m = survivor->m;
	uint64_t pages = m->from[0].length / PAGE;
	volatile uint64_t page;

	for (page = survivor->first; page < pages; page++) {
		if (sigsetjmp(on_sigbus, 1)) {
			survivor->poisoned++;
			survivor->wrong += sigbus_code != BUS_MCEERR_AR;
			continue;
		}
		survivor->wrong += !page_is_right(target_of(m, 0)->view, 0, page);
	}
	return NULL;
}

/* The pages that "gone" events name, to be cross-checked; -1: no such event came. */
static json_int_t pages_gone(struct migration *m, uint64_t *named, uint64_t *least)
{
	json_int_t pages = -1;
	json_t *object, *range;
	size_t i;

	*named = 0;
	*least = UINT64_MAX;
	while (pages < 0 && (object = next_event(&m->destination, TIMEOUT_MS))) {
		const char *event = json_string_value(json_object_get(object, "event"));

		json_array_foreach(json_object_get(object, "ranges"), i, range) {
			*named += (uint64_t)json_integer_value(json_array_get(range, 1)) / PAGE;
			*least = min(*least,
				     (uint64_t)json_integer_value(json_array_get(range, 0)));
		}
		if (!strcmp(event, "gone"))
			pages = json_integer_value(json_object_get(object, "pages"));
		else if (strcmp(event, "gone-ranges") && strcmp(event, "state"))
			check(false, "event %s came", event);
		json_decref(object);
	}
	return pages;
}

#define SURVIVORS	4

static void test_source_given_up(struct migration *m)
{
	static const char *const extra[] = { "--no-push", "--forward=0", NULL };
	struct sigaction action = { .sa_sigaction = take_sigbus, .sa_flags = SA_SIGINFO };
	uint64_t pages = 4 * MIB / PAGE, touched = 100, named, least;
	struct survivor survivors[SURVIVORS];
	struct umem_info info;
	json_int_t gone;
	int turns = 0;

	sigaction(SIGBUS, &action, NULL);
	begin(m, 1, 4 * MIB, extra, true);
	if (!switch_over(m))
		return;
	for (uint64_t page = 0; page < touched; page++)
		check(page_is_right(m->to[0].view, 0, page));
	command(&m->destination, json_pack("{s:s}", "cmd", "give-up"));
	expect(&m->destination, "refused", "message", "not possible in state running");
	m->relay.refuse = true;
	m->relay.cut = true;
	expect_state(&m->source, "paused");
	expect_state(&m->destination, "paused");
	for (unsigned int i = 0; i < SURVIVORS; i++) {
		survivors[i] = (struct survivor){ .m = m, .first = i % 2 ? 0 : touched + i };
		pthread_create(&survivors[i].thread, NULL, survive, &survivors[i]);
	}
	do {
		usleep(10000);
		check(!umem_info(m->to[0].fd, &info));
	} while (info.waiters < SURVIVORS && ++turns < TIMEOUT_MS / 10);
	check(info.waiters == SURVIVORS && !info.poisoned, "%llu wait",
	      (unsigned long long)info.waiters);

	command(&m->destination, json_pack("{s:s}", "cmd", "give-up"));
	gone = pages_gone(m, &named, &least);
	check(gone == (json_int_t)(pages - touched), "%lld pages are gone", (long long)gone);
	check(named == (uint64_t)gone && least == touched * PAGE, "%llu are named, from %llu on",
	      (unsigned long long)named, (unsigned long long)least);
	check(wait_side(&m->destination) == 0);
	for (unsigned int i = 0; i < SURVIVORS; i++) {
		pthread_join(survivors[i].thread, NULL);
		check(survivors[i].poisoned == pages - max(touched, survivors[i].first) &&
		      !survivors[i].wrong, "thread %u: %llu of %llu pages raised SIGBUS, %llu wrong",
		      i, (unsigned long long)survivors[i].poisoned,
		      (unsigned long long)(pages - touched),
		      (unsigned long long)survivors[i].wrong);
	}
	/* the source may try as long as it likes */
	m->relay.refuse = false;
	for (int i = 0; i < 5; i++)
		json_decref(next_event(&m->source, 300));
	check(m->source.running);
	check(!umem_info(m->to[0].fd, &info) && !info.missing && !info.waiters &&
	      info.poisoned == (pages - touched) * PAGE);
	signal(SIGBUS, SIG_DFL);
}

/* One that came back half-way, and pages that it sends too late. */
static void test_source_given_up_while_it_returns(struct migration *m)
{
	struct sigaction action = { .sa_sigaction = take_sigbus, .sa_flags = SA_SIGINFO };
	uint8_t resume[RESUME_BYTES] = { 0 };
	struct survivor survivor = { .m = m };
	struct handmade source;
	uint64_t named, least;
	struct frame frame;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM);
	if (!hand_over_by_hand(m, &source))
		return;
	close_by_hand(&source);
	expect_state(&m->destination, "paused");
	connect_by_hand(m, &source, CHANNEL_CONTROL);
	put16(resume + SESSION_SIZE, PROTOCOL_VERSION);
	say(&source, CHANNEL_CONTROL, FRAME_RESUME, FRAME_GO_RUN, 0, resume, sizeof(resume));
	hear(&source, CHANNEL_CONTROL, &frame);
	command(&m->destination, json_pack("{s:s}", "cmd", "give-up"));
	check(pages_gone(m, &named, &least) == 4 * MIB / PAGE);
	check(wait_side(&m->destination) == 0);
	check(connect_to(m->port) < 0);
	close(source.channels[0]);
	sigaction(SIGBUS, &action, NULL);
	survive(&survivor);
	check(survivor.poisoned == 4 * MIB / PAGE);
	signal(SIGBUS, SIG_DFL);
}

/* Many guests, one after another. */

#define CROWD		(256 / REGIONS)
#define CROWD_ROUNDS	2
#define CROWD_LENGTH	(32 * PAGE)
#define CROWD_SLACK	(CROWD * REGIONS * CROWD_ROUNDS / 8)	/* less than one a region */
#define MAX_REGIONS	"/sys/module/umem/parameters/max_regions"
#define MAX_MIB		"/sys/module/umem/parameters/max_mib"
#define TIME_WAIT	"/proc/sys/net/ipv4/tcp_max_tw_buckets"

/* Gives what it was. */
static unsigned long set_number(const char *path, unsigned long number)
{
	unsigned long before = 0;
	FILE *file = fopen(path, "r+");

	if (!file || fscanf(file, "%lu", &before) != 1)
		bail("%s: %s", path, strerror(errno));
	rewind(file);
	fprintf(file, "%lu", number);
	if (fclose(file))
		bail("%s, %lu: %s", path, number, strerror(errno));
	return before;
}

static void make_crowds_regions(struct migration *m)
{
	char name[UMEM_NAME_MAX];

	for (unsigned int i = 0; i < REGIONS; i++) {
		snprintf(name, sizeof(name), "ram%u", i);
		make_memory(&m->from[i], name, CROWD_LENGTH);
		make_memory(&m->to[REGIONS - 1 - i], name, CROWD_LENGTH);
		fill_memory(&m->from[i], i);
	}
	m->nr_from = m->nr_to = REGIONS;
}

/* All of them at the same time. */
static void move_crowd(struct migration *crowd)
{
	struct toucher toucher = { .touches = 4 * REGIONS };

	for (unsigned int i = 0; i < CROWD; i++) {
		memset(&crowd[i], 0, sizeof(crowd[i]));
		make_crowds_regions(&crowd[i]);
		begin_destination(&crowd[i], NULL);
		begin_source(&crowd[i], crowd[i].port, NULL);
		/* A destination has ten seconds to answer, not to wait for 31 others to start. */
		both_advise(&crowd[i]);
	}
	for (unsigned int i = 0; i < CROWD && !test_failed; i++)
		hand_over(&crowd[i]);
	for (unsigned int i = 0; i < CROWD && !test_failed; i++) {
		toucher.m = &crowd[i];
		touch(&toucher);
		expect_end(&crowd[i]);
		check_memory(&crowd[i]);
	}
	check(!toucher.wrong, "%lu reads were wrong", toucher.wrong);
	for (unsigned int i = 0; i < CROWD; i++)
		end(&crowd[i]);
}

static void tell_grown(const char *name, long before, long after)
{
	printf("# %s: %ld, then %ld\n", name, before, after);
}

static void ignore_grown(const char *name, long before, long after)
{
	(void)name;
	(void)before;
	(void)after;
}

/* What is freed late is given time. */
static void check_not_grown(const struct holdings *before)
{
	struct holdings now;

	for (int i = 0; i < TIMEOUT_MS / 1000; i++) {
		check(!holdings_take(&now));
		if (!holdings_grown(before, &now, CROWD_SLACK, ignore_grown))
			return;
		usleep(250000);
	}
	check(!holdings_grown(before, &now, CROWD_SLACK, tell_grown),
	      "after %d migrations, %d may be", CROWD * CROWD_ROUNDS, CROWD_SLACK);
}

/*
 * As many regions may exist as do at the same time: one that is left over, and its length, is
 * missed in the next round.
 */
static void test_crowd(struct migration *unused)
{
	unsigned long regions = set_number(MAX_REGIONS, 2 * CROWD * REGIONS);
	unsigned long mib = set_number(MAX_MIB, 2 * CROWD * REGIONS * CROWD_LENGTH / MIB);
	unsigned long time_wait = set_number(TIME_WAIT, 0);
	static struct migration crowd[CROWD];
	struct holdings before;

	(void)unused;
	move_crowd(crowd);
	check(!holdings_take(&before));
	for (int i = 0; i < CROWD_ROUNDS && !test_failed; i++)
		move_crowd(crowd);
	check_not_grown(&before);
	set_number(MAX_REGIONS, regions);
	set_number(MAX_MIB, mib);
	set_number(TIME_WAIT, time_wait);
}

/* Crowds of strangers. */

#define FLOOD 1000

struct flood {
	int port;
	pthread_t thread;
	atomic_bool stop;
	atomic_long connections;
};

static const uint8_t wrong_join[MAGIC_SIZE + FRAME_HEADER + JOIN_BYTES] = {
	'U', 'M', 'E', 'M', '\r', '\n', 0x1a, '\n', FRAME_JOIN, 0, 0, 0, JOIN_BYTES,
	[MAGIC_SIZE + FRAME_HEADER] = 1,
	[MAGIC_SIZE + FRAME_HEADER + SESSION_SIZE] = CHANNEL_URGENT,
};

/* What a stranger does next: a quarter are silent, speak byte by byte, join, or leave. */
static bool misbehave(int fd, int number, unsigned int step)
{
	switch (number % 4) {
	case 0:
		return send(fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
	case 1:
		return step < sizeof(wrong_join) &&
		       send(fd, wrong_join + step, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
	case 2:
		return !step && send(fd, wrong_join, sizeof(wrong_join),
				     MSG_NOSIGNAL | MSG_DONTWAIT) > 0;
	default:
		return false;
	}
}

static void *flood_main(void *argument)
{
	struct flood *flood = argument;
	static unsigned int steps[FLOOD];
	static int fds[FLOOD];
	/* no TIME_WAIT, which would run out of ports */
	struct linger linger = { .l_onoff = 1 };

	memset(fds, -1, sizeof(fds));
	while (!flood->stop) {
		for (int i = 0; i < FLOOD && !flood->stop; i++) {
			if (fds[i] >= 0 && !misbehave(fds[i], i, steps[i]++)) {
				close(fds[i]);
				fds[i] = -1;
			}
			if (fds[i] < 0) {
				fds[i] = connect_to(flood->port);
				steps[i] = 0;
				flood->connections += fds[i] >= 0;
				if (fds[i] >= 0)
					setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &linger,
						   sizeof(linger));
			}
			if (i % 10 == 0)
				usleep(1000);
		}
	}
	for (int i = 0; i < FLOOD; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	return NULL;
}

static void start_flood(struct flood *flood, int port)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = min(limit.rlim_max, (rlim_t)4096);
	setrlimit(RLIMIT_NOFILE, &limit);
	memset(flood, 0, sizeof(*flood));
	flood->port = port;
	pthread_create(&flood->thread, NULL, flood_main, flood);
	while (flood->connections < FLOOD)
		usleep(1000);
}

static void stop_flood(struct flood *flood)
{
	flood->stop = true;
	pthread_join(flood->thread, NULL);
}

static int descriptors_of(const struct side *side)
{
	char path[64];
	DIR *folder;
	int count = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", side->pid);
	folder = opendir(path);
	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

/* Next events of both sides, with what strangers cause in between at the destination. */
static bool state_among_refusals(struct migration *m, const char *state)
{
	uint64_t deadline = now_ns() + TIMEOUT_MS * NSEC_PER_MSEC;

	while (now_ns() < deadline) {
		json_t *object = next_event(&m->destination, 1000);
		const char *event = json_string_value(json_object_get(object, "event"));
		const char *got = json_string_value(json_object_get(object, "state"));
		bool right = got && !strcmp(got, state);
		bool refusal = event && (!strcmp(event, "refused") || !strcmp(event, "go"));

		json_decref(object);
		if (right)
			return true;
		if (event && !refusal)
			break;
	}
	return check(false, "state %s did not come", state);
}

/* The real source begins, runs, loses its connections and comes back; all in bounded time. */
static void test_flood(struct migration *m)
{
	static const char *const extra[] = { "--max-bulk-bandwidth=500000", NULL };
	struct toucher touchers[4];
	struct flood flood;
	uint64_t started;
	int fds;

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, 16 * MIB);
	begin_destination(m, NULL);
	start_flood(&flood, m->port);
	start_relay(&m->relay, m->port);
	started = now_ns();
	begin_source(m, m->relay.port, extra);
	if (!expect_state(&m->source, "advise") || !state_among_refusals(m, "advise"))
		goto out;
	printf("# a session began in %llu ms\n",
	       (unsigned long long)((now_ns() - started) / NSEC_PER_MSEC));
	check(now_ns() - started < TIMEOUT_MS * NSEC_PER_MSEC);
	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	if (!carry_state(m, 100000) || !expect_state(&m->source, "listen") ||
	    !state_among_refusals(m, "listen"))
		goto out;
	command(&m->destination, json_pack("{s:s}", "cmd", "ready"));
	expect(&m->source, "ready", NULL, NULL);
	command(&m->source, json_pack("{s:s,s:b}", "cmd", "go", "run", 1));
	if (!expect_state(&m->source, "running") || !state_among_refusals(m, "running"))
		goto out;
	start_touching(touchers, 4, m, 200, false);
	stop_touching(touchers, 4);
	fds = descriptors_of(&m->destination);
	check(fds > 0 && fds < 100, "%d descriptors", fds);

	m->relay.cut = true;
	started = now_ns();
	if (!reach_state(&m->source, "running") || !state_among_refusals(m, "paused") ||
	    !state_among_refusals(m, "recover") || !state_among_refusals(m, "running"))
		goto out;
	printf("# and was resumed in %llu ms, %ld strangers came\n",
	       (unsigned long long)((now_ns() - started) / NSEC_PER_MSEC), flood.connections);
	check(now_ns() - started < TIMEOUT_MS * NSEC_PER_MSEC);
	command(&m->source, json_pack("{s:s,s:i}", "cmd", "set", "max_bulk_bandwidth", 0));
	state_among_refusals(m, "end");
	expect_state(&m->source, "end");
	check(wait_side(&m->source) == 0);
	check(wait_side(&m->destination) == 0);
	check_memory(m);
out:
	stop_flood(&flood);
}

static void knock(struct migration *m, struct handmade *stranger, uint16_t type,
		  const uint8_t *payload, uint16_t size, uint16_t count, const char *answer)
{
	char text[TEXT_MAX + 1] = "";
	struct frame frame;

	connect_by_hand(m, stranger, CHANNEL_CONTROL);
	say(stranger, CHANNEL_CONTROL, type, 0, count, payload, size);
	if (hear(stranger, CHANNEL_CONTROL, &frame))
		text_decode(text, heard, frame.length);
	check(frame.type == FRAME_REFUSE && strstr(text, answer), "%s: %s", frame_name(frame.type),
	      text);
	expect(&m->destination, "refused", "message", answer);
	close(stranger->channels[CHANNEL_CONTROL]);
}

/* Nobody but the source comes in while it is away, and its place stays free for it. */
static void test_stranger_cannot_take_a_place(struct migration *m)
{
	uint8_t hello[HELLO_FIXED + HELLO_REGION] = { 0 }, join[JOIN_BYTES] = { 0 };
	struct handmade stranger;

	begin(m, 1, 4 * MIB, (const char *const[]){ "--no-push", NULL }, true);
	if (!switch_over(m))
		return;
	put16(hello, 1);
	put16(hello + 4, 1);
	put16(hello + 16, PAGE_BYTES);
	memcpy(hello + HELLO_FIXED, &m->to[0].length, 8);
	strcpy((char *)hello + HELLO_FIXED + 8, m->to[0].name);
	put16(join + SESSION_SIZE, CHANNEL_URGENT);
	knock(m, &stranger, FRAME_HELLO, hello, sizeof(hello), 1, "is under way here (state running)");
	knock(m, &stranger, FRAME_JOIN, join, sizeof(join), 0, "JOIN names a session");
	m->relay.refuse = true;
	m->relay.cut = true;
	expect_state(&m->source, "paused");
	expect_state(&m->destination, "paused");
	knock(m, &stranger, FRAME_HELLO, hello, sizeof(hello), 1, "is under way here (state paused)");
	knock(m, &stranger, FRAME_JOIN, join, sizeof(join), 0, "JOIN names a session");
	put16(join + SESSION_SIZE, PROTOCOL_VERSION);
	knock(m, &stranger, FRAME_RESUME, join, RESUME_BYTES, 0, "RESUME names a session");
	m->relay.refuse = false;
	/* It may have been refused before, and more than once. */
	if (reach_state(&m->source, "running") && reach_state(&m->destination, "running")) {
		struct toucher toucher;

		knock(m, &stranger, FRAME_RESUME, join, RESUME_BYTES, 0, "RESUME names a session");
		start_touching(&toucher, 1, m, 4 * MIB / PAGE, true);
		expect_end(m);
		stop_touching(&toucher, 1);
		check_memory(m);
	}
}

/* What belongs to pre-copy where it does not belong: the session ends, the next one is good. */
static void test_precopy_frames_out_of_place(struct migration *m)
{
	static const uint8_t zero_page[PAGES_ENTRY] = { 1 };
	static const uint8_t range[DISCARD_RANGE] = { [9] = 0x10 };
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, 0);
	say(&source, CHANNEL_BULK, FRAME_SYNC, 0, 1, "", 0);
	expect_lost(m, &source, "frame SYNC of pre-copy, wanted none: HELLO_ACK has not that feature");
	begin_by_hand(m, &source, 0);
	say(&source, CHANNEL_BULK, FRAME_PAGES, FRAME_PAGES_EARLY, 1, zero_page, PAGES_ENTRY);
	expect_lost(m, &source, "may have early pages, wanted none");
	begin_by_hand(m, &source, FEATURE_PRECOPY);
	say(&source, CHANNEL_URGENT, FRAME_PAGES, FRAME_PAGES_EARLY, 1, zero_page, PAGES_ENTRY);
	expect_lost(m, &source, "may have early pages on urgent, wanted them on bulk only");
	begin_by_hand(m, &source, FEATURE_PRECOPY);
	say(&source, CHANNEL_CONTROL, FRAME_STATE_END, 0, 0, "", 0);
	expect_lost(m, &source, "frame STATE_END came before PUBLISH");
	begin_by_hand(m, &source, FEATURE_PRECOPY);
	say(&source, CHANNEL_CONTROL, FRAME_PUBLISH, 0, 0, "", 0);
	say(&source, CHANNEL_CONTROL, FRAME_DISCARD, 0, 1, range, DISCARD_RANGE);
	expect_lost(m, &source, "frame DISCARD of pre-copy, wanted none: that is over");
	begin_by_hand(m, &source, FEATURE_PRECOPY);
	say(&source, CHANNEL_BULK, FRAME_SYNC, FRAME_SYNC_LAST, 1, "", 0);
	say(&source, CHANNEL_BULK, FRAME_PAGES, FRAME_PAGES_EARLY, 1, zero_page, PAGES_ENTRY);
	expect_lost(m, &source, "frame PAGES of pre-copy, wanted none: that is over");
	then_migrates(m);
}

/* Control may overtake bulk: of two early pages one was named old before it came. */
static void test_precopy_page_named_before_it_comes(struct migration *m)
{
	static const uint8_t pages[2 * PAGES_ENTRY] = { 1, [PAGES_ENTRY] = 1, 0x10 };
	static const uint8_t second[DISCARD_RANGE] = { [1] = 0x10, [9] = 0x10 };
	struct umem_info info = { 0 };
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_PRECOPY);
	say(&source, CHANNEL_CONTROL, FRAME_DISCARD, 0, 1, second, sizeof(second));
	usleep(100000);
	say(&source, CHANNEL_BULK, FRAME_PAGES, FRAME_PAGES_EARLY, 2, pages, sizeof(pages));
	say(&source, CHANNEL_BULK, FRAME_SYNC, FRAME_SYNC_LAST, 1, "", 0);
	say(&source, CHANNEL_CONTROL, FRAME_PUBLISH, 0, 0, "", 0);
	for (int i = 0; i < TIMEOUT_MS / 10; i++) {
		check(!umem_info(m->to[0].fd, &info));
		if (info.missing && info.missing != m->to[0].length)
			break;
		usleep(10000);
	}
	check(info.missing == m->to[0].length - PAGE_BYTES, "%llu bytes are missing",
	      (unsigned long long)info.missing);
	say(&source, CHANNEL_CONTROL, FRAME_CANCEL, 0, 0, "", 0);
	expect_lost(m, &source, "cancelled the migration");
	then_migrates(m);
}

/* Of two such pages the second comes to who has not seen that there was an early one. */
static void test_early_page_became_zero(struct migration *m)
{
	static const uint8_t both[DISCARD_RANGE] = { [9] = 0x20 };
	struct handmade source;

	lonely_destination(m);
	begin_by_hand(m, &source, FEATURE_CHECKSUM | FEATURE_PRECOPY);
	for (uint64_t page = 0; page < 2; page++)
		send_page_flags(&source, CHANNEL_BULK, page, page + 1, false, FRAME_PAGES_EARLY);
	say(&source, CHANNEL_CONTROL, FRAME_DISCARD, 0, 1, both, sizeof(both));
	say(&source, CHANNEL_BULK, FRAME_SYNC, FRAME_SYNC_LAST, 1, "", 0);
	say(&source, CHANNEL_CONTROL, FRAME_PUBLISH, 0, 0, "", 0);
	if (!hand_over_by_hand(m, &source))
		return;
	send_page(&source, CHANNEL_BULK, 0, 0, false);
	check(page_has_seed(m, 0, 0));
	ends(&m->destination, false);
	close_by_hand(&source);
	replace_destination(m, true);
	expect_state(&m->destination, "paused");
	resume_by_hand(m, &source);
	zero_the_rest(m, &source, 1);
	check(page_has_seed(m, 1, 0));
	expect_end_by_hand(m, &source);
}

static void test_silent_stranger(struct migration *m)
{
	int silent;

	lonely_destination(m);
	silent = connect_to(m->port);
	check(silent >= 0);
	m->destination.strangers = true;
	then_migrates(m);
	close(silent);
}

static void test_silent_stranger_is_sent_away(struct migration *m)
{
	int silent;

	lonely_destination(m);
	silent = connect_to(m->port);
	check(send(silent, "UM", 2, MSG_NOSIGNAL) == 2);
	expect(&m->destination, "refused", "message", "got \"UM\", wanted \"UMEM\"");
	close(silent);
}

static void test_second_source(struct migration *m)
{
	struct side other;
	char uri[64];

	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	uri_of(uri, m->port);
	start_side(&other, "source", uri, m->from, 1, NULL);
	expect(&other, "error", "message", "a migration is under way here (state advise)");
	check(wait_side(&other) == 1);
	expect(&m->destination, "refused", "message", "a migration is under way here");
	end_side(&other);

	command(&m->source, json_pack("{s:s}", "cmd", "stopped"));
	carry_state(m, 100);
	expect_state(&m->source, "listen");
	expect_state(&m->destination, "listen");
	command(&m->destination, json_pack("{s:s}", "cmd", "ready"));
	expect(&m->source, "ready", NULL, NULL);
	command(&m->source, json_pack("{s:s,s:b}", "cmd", "go", "run", 0));
	expect_state(&m->source, "running");
	expect(&m->destination, "go", NULL, NULL);
	expect_state(&m->destination, "running");
	expect_end(m);
	check_memory(m);
}

static void test_stranger_cannot_join(struct migration *m)
{
	uint8_t join[MAGIC_SIZE + FRAME_HEADER + JOIN_BYTES] = MAGIC;
	uint8_t answer[2048];
	size_t size;

	begin(m, 1, 4 * MIB, NULL, false);
	if (!expect_state(&m->source, "advise") || !expect_state(&m->destination, "advise"))
		return;
	put16(join + 8, FRAME_JOIN);
	put16(join + 12, JOIN_BYTES);
	put16(join + 40, CHANNEL_URGENT);
	size = talk(m->port, join, sizeof(join), answer, sizeof(answer));
	check(contains(answer, size, "JOIN names a session that is not the one here"));
	expect(&m->destination, "refused", "message", "JOIN names a session");

	put16(join + 44, CHANNELS_MAX);
	size = talk(m->port, join, sizeof(join), answer, sizeof(answer));
	check(contains(answer, size, "JOIN has index 16, wanted 0 to 15"));
	expect(&m->destination, "refused", "message", "JOIN has index 16");
	put16(join + 44, 0);

	put16(join + 8, FRAME_RESUME);
	put16(join + 40, PROTOCOL_VERSION);
	size = talk(m->port, join, sizeof(join), answer, sizeof(answer));
	check(contains(answer, size, "RESUME names a session that is not the one here"));
	expect(&m->destination, "refused", "message", "RESUME names a session");
	command(&m->source, json_pack("{s:s}", "cmd", "cancel"));
}

static void test_port_in_use(struct migration *m)
{
	char uri[64], part[128];
	int port = 0, fd = listen_on(&port);

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	uri_of(uri, port);
	start_side(&m->destination, "destination", uri, m->to, 1, NULL);
	snprintf(part, sizeof(part), "cannot listen on %s (127.0.0.1:%d): Address already in use",
		 uri, port);
	expect(&m->destination, "error", "message", part);
	check(wait_side(&m->destination) == 1);
	close(fd);
}

static void test_connection_refused(struct migration *m)
{
	char part[128];
	int port = 0, fd = listen_on(&port);

	close(fd);
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	begin_source(m, port, NULL);
	snprintf(part, sizeof(part), "cannot connect to tcp:127.0.0.1:%d (127.0.0.1:%d): Connection refused",
		 port, port);
	expect(&m->source, "error", "message", part);
	check(wait_side(&m->source) == 1);
}

static void test_not_a_destination(struct migration *m)
{
	int port = 0, fd = listen_on(&port), peer;

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	begin_source(m, port, NULL);
	peer = accept(fd, NULL, NULL);
	check(write(peer, "SSH-2.0-OpenSSH\r\n", 17) == 17);
	expect(&m->source, "error", "message", "got \"SSH-2.0-\", wanted \"UMEM\"; this is an SSH server");
	check(wait_side(&m->source) == 1);
	close(peer);
	close(fd);
}

static void test_destination_is_silent(struct migration *m)
{
	static const char *const extra[] = { "--connect-timeout=1", NULL };
	int port = 0, fd = listen_on(&port);

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	begin_source(m, port, extra);
	expect(&m->source, "error", "message", "took the connection but did not answer within 1 seconds");
	check(wait_side(&m->source) == 1);
	close(fd);
}

static void test_unknown_host(struct migration *m)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	start_side(&m->source, "source", "tcp:no.such.host.invalid:4444", m->from, 1, NULL);
	expect(&m->source, "error", "message", "cannot resolve host \"no.such.host.invalid\": ");
	check(wait_side(&m->source) == 1);
}

static void test_region_has_a_pager(struct migration *m)
{
	int pager;

	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	check(!umem_attach(m->to[0].fd, 0, &pager));
	start_side(&m->destination, "destination", "tcp:127.0.0.1:0", m->to, 1, NULL);
	expect(&m->destination, "error", "message", "region \"ram0\": cannot become its pager");
	check(wait_side(&m->destination) == 1);
	close(pager);
}

/* TLS. Each side has a folder of its own, so that they can differ. */

#define DESTINATION_FOLDER	"/tmp/umem-loopback-destination"
#define SOURCE_FOLDER		"/tmp/umem-loopback-source"
#define TLS_HOST		"127.0.0.1"

static void tell_tls(const char *destination, const char *destination_more, const char *source,
		     const char *source_more)
{
	tls_options[0][0] = destination;
	tls_options[0][1] = destination_more;
	tls_options[1][0] = source;
	tls_options[1][1] = source_more;
}

static void fill_folders(const struct folder_setup *destination, const struct folder_setup *source)
{
	folder_fill(DESTINATION_FOLDER, destination);
	folder_fill(SOURCE_FOLDER, source);
}

static void use_x509(void)
{
	static const struct folder_setup good = { .host = TLS_HOST };

	fill_folders(&good, &good);
	tell_tls("--tls-x509=" DESTINATION_FOLDER, NULL, "--tls-x509=" SOURCE_FOLDER,
		 "--tls-hostname=" TLS_HOST);
}

static void use_keys(const char *destination, const char *source)
{
	folder_keys(DESTINATION_FOLDER, destination);
	folder_keys(SOURCE_FOLDER, source);
	tell_tls("--tls-psk=" DESTINATION_FOLDER, NULL, "--tls-psk=" SOURCE_FOLDER, NULL);
}

static void forget_tls(void)
{
	tell_tls(NULL, NULL, NULL, NULL);
	folder_remove(DESTINATION_FOLDER);
	folder_remove(SOURCE_FOLDER);
}

static void test_x509(struct migration *m)
{
	use_x509();
	tls_options[1][1] = NULL;	/* the host is that of the URI */
	test_three_regions(m);
}

static void test_x509_two_stages(struct migration *m)
{
	static const char *const extra[] = { "--precopy", "--compress=zstd", NULL };

	use_x509();
	/* Little of it: where the CPU is emulated AES is, too. */
	begin(m, 1, 4 * MIB, extra, false);
	travel_in_two_stages(m, 3);
}

static void test_x509_channels(struct migration *m)
{
	use_x509();
	test_four_channels_of_each(m);
}

static void test_x509_cut_and_resumed(struct migration *m)
{
	use_x509();
	test_cut_and_resumed(m);
}

static void test_x509_memory(struct migration *m)
{
	use_x509();
	test_memory_is_bounded(m);
}

static void test_x509_unix(struct migration *m)
{
	use_x509();
	test_unix(m);
}

static void test_x509_fd(struct migration *m)
{
	use_x509();
	test_fd(m);
}

static void test_x509_without_a_client(struct migration *m)
{
	use_x509();
	folder_remove_file(SOURCE_FOLDER, "client-cert.pem");
	folder_remove_file(SOURCE_FOLDER, "client-key.pem");
	tls_options[0][1] = "--tls-no-verify";
	test_push(m);
}

static void test_psk(struct migration *m)
{
	use_keys(NULL, NULL);
	tls_options[1][1] = "--tls-username=other";
	test_push(m);
}

static void test_psk_killed_and_replaced(struct migration *m)
{
	use_keys(NULL, NULL);
	test_killed_and_replaced(m);
}

static void test_psk_unix(struct migration *m)
{
	use_keys(NULL, NULL);
	test_unix(m);
}

static void test_psk_fd_two_stages(struct migration *m)
{
	use_keys(NULL, NULL);
	begin_over_pair(m, precopy);
	travel_in_two_stages(m, 1);
}

/* The source cannot come, both say why, and the destination waits on for a good one. */
static void expect_sent_away(struct migration *m, const char *source, const char *destination)
{
	expect(&m->source, "error", "message", source);
	check(wait_side(&m->source) == 1);
	if (destination)
		expect(&m->destination, "refused", "message", destination);
	check(m->destination.running);
	end_side(&m->source);
}

static void sends_away(struct migration *m, const char *source, const char *destination)
{
	lonely_destination(m);
	begin_source(m, m->port, NULL);
	expect_sent_away(m, source, destination);
	end(m);
}

static void test_x509_refused(struct migration *m)
{
	static const struct folder_setup good = { .host = TLS_HOST };
	static const struct folder_setup other_ca = { .host = TLS_HOST, .seed = 1 };
	static const struct folder_setup other_host = { .host = "else.example" };
	static const struct folder_setup no_client = { .host = TLS_HOST, .no_client = true };

	use_x509();
	fill_folders(&good, &other_ca);
	sends_away(m, "the certificate \"CN=127.0.0.1\" of the other side is of no CA in ca-cert.pem",
		   "(TLS alert \"CA is unknown\"): our certificate is of no CA in its ca-cert.pem");
	fill_folders(&other_host, &good);
	sends_away(m, "the certificate \"CN=else.example\" does not name host \"127.0.0.1\"",
		   "it does not take our certificate");
	fill_folders(&good, &no_client);
	folder_remove_file(SOURCE_FOLDER, "client-cert.pem");
	folder_remove_file(SOURCE_FOLDER, "client-key.pem");
	sends_away(m, "it wants this side to have a client-cert.pem",
		   "the other side sent no certificate");
	/* With the source looking away it is the destination that refuses. */
	fill_folders(&good, &other_ca);
	tls_options[1][1] = "--tls-no-verify";
	sends_away(m, "(TLS alert \"CA is unknown\"): our certificate is of no CA",
		   "the certificate \"CN=the source\" of the other side is of no CA in ca-cert.pem");
}

static void test_psk_refused(struct migration *m)
{
	use_keys("qemu:11223344556677\n", "qemu:11223344556678\n");
	sends_away(m, "does the user have another key in keys.psk there?",
		   "does the user have another key in keys.psk there?");
	use_keys("qemu:11223344556677\n", "eve:11223344556677\n");
	tls_options[1][1] = "--tls-username=eve";
	sends_away(m, "its keys.psk has no key of our user", "no key of user \"eve\"");
	use_x509();
	use_keys(NULL, NULL);
	tls_options[0][0] = "--tls-x509=" DESTINATION_FOLDER;
	sends_away(m, "does one side have x509, the other PSK?",
		   "does one side have x509, the other PSK?");
}

/* Neither falls back to the other's way. */
static void test_tls_at_one_side(struct migration *m)
{
	static const char without[] = "it speaks without TLS, wanted TLS: set tls-creds at both sides";
	static const char with[] = "it speaks TLS, wanted none: set tls-creds at both sides, or at neither";

	use_x509();
	tell_tls("--tls-x509=" DESTINATION_FOLDER, NULL, NULL, NULL);
	sends_away(m, with, without);
	begin_over(m, "unix:" UNIX_PATH, "unix:" UNIX_PATH, NULL);
	expect_sent_away(m, with, without);
	end(m);
	begin_over_pair(m, NULL);
	expect(&m->source, "error", "message", with);
	expect(&m->destination, "error", "message", without);
	end(m);

	tell_tls(NULL, NULL, "--tls-x509=" SOURCE_FOLDER, "--tls-hostname=" TLS_HOST);
	sends_away(m, without, with);
	begin_over(m, "unix:" UNIX_PATH, "unix:" UNIX_PATH, NULL);
	expect_sent_away(m, without, with);
	end(m);
	begin_over_pair(m, NULL);
	expect(&m->source, "error", "message", without);
	expect(&m->destination, "error", "message", with);
}

static void test_x509_refused_on_a_stream(struct migration *m)
{
	static const struct folder_setup good = { .host = TLS_HOST };
	static const struct folder_setup other_ca = { .host = TLS_HOST, .seed = 1 };

	use_x509();
	fill_folders(&good, &other_ca);
	begin_over_pair(m, NULL);
	expect(&m->source, "error", "message", "of the other side is of no CA in ca-cert.pem");
	expect(&m->destination, "error", "message", "our certificate is of no CA");
	check(wait_side(&m->source) == 1);
	check(wait_side(&m->destination) == 1);
}

/* Before anything is connected: nobody listens there. */
static void expect_bad_file(struct migration *m, const char *role, const char *uri,
			    const char *message)
{
	memset(m, 0, sizeof(*m));
	make_regions(m, 1, MIB);
	start_side(&m->source, role, uri, m->from, 1, NULL);
	expect(&m->source, "error", "message", message);
	check(wait_side(&m->source) == 1);
	end(m);
}

static void test_bad_files(struct migration *m)
{
	static const struct folder_setup expired = {
		.host = TLS_HOST, .server_expired = true, .client_expired = true,
	};

	use_x509();
	tls_options[1][1] = NULL;
	folder_remove_file(SOURCE_FOLDER, "ca-cert.pem");
	folder_remove_file(DESTINATION_FOLDER, "server-key.pem");
	expect_bad_file(m, "source", "tcp:127.0.0.1:1",
			SOURCE_FOLDER "/ca-cert.pem: No such file or directory, wanted certificates of CAs");
	expect_bad_file(m, "destination", "tcp:127.0.0.1:0",
			DESTINATION_FOLDER "/server-key.pem: No such file or directory");
	fill_folders(&expired, &expired);
	expect_bad_file(m, "source", "tcp:127.0.0.1:1",
			SOURCE_FOLDER "/client-cert.pem: the certificate has expired");
	expect_bad_file(m, "destination", "tcp:127.0.0.1:0",
			DESTINATION_FOLDER "/server-cert.pem: the certificate has expired");
	use_x509();
	tls_options[1][1] = NULL;
	expect_bad_file(m, "source", "unix:" UNIX_PATH, "wanted tls-hostname to be set");
}

/* One that says nothing, and one that stops in the middle, keep nobody waiting. */
static void test_silent_in_the_handshake(struct migration *m)
{
	static const uint8_t beginning[] = { 22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3 };
	int silent, slow;

	use_x509();
	lonely_destination(m);
	silent = connect_to(m->port);
	slow = connect_to(m->port);
	check(send(slow, beginning, sizeof(beginning), MSG_NOSIGNAL) == sizeof(beginning));
	m->destination.strangers = true;
	then_migrates(m);
	close(silent);
	close(slow);
}

static void test_silent_in_the_handshake_is_sent_away(struct migration *m)
{
	int silent;

	use_x509();
	lonely_destination(m);
	silent = connect_to(m->port);
	expect(&m->destination, "refused", "message",
	       "did not make the handshake of TLS within 10 seconds");
	close(silent);
}

static const struct {
	const char *name;
	void (*run)(struct migration *m);
} tests[] = {
	{ "everything arrives, asked for or not", test_push },
	{ "three regions, listed in another order at the destination", test_three_regions },
	{ "everything arrives without checksums", test_no_checksum },
	{ "everything arrives with follow and prefault", test_follow },
	{ "what is a hole at the source stays one", test_hole },
	{ "what is a hole at the source stays one, with small folios", test_hole_of_small_folios },
	{ "two stages: what writers leave behind is right", test_two_stages },
	{ "two stages: switched in the first round", test_two_stages_at_once },
	{ "two stages: compressed", test_two_stages_compressed },
	{ "pre-copy of a guest that does not write completes", test_precopy_converges },
	{ "pre-copy of one that does, once the limit allows it", test_precopy_does_not_converge },
	{ "pre-copy keeps to its bandwidth, changed while it runs", test_precopy_bandwidth },
	{ "pre-copy is over when the rest fits the downtime limit", test_downtime_limit },
	{ "pre-copy given up leaves nothing to the next source", test_precopy_given_up },
	{ "everything arrives over IPv6", test_ipv6 },
	{ "everything arrives at a host named", test_host_name },
	{ "everything arrives over a unix socket, whose file then goes", test_unix },
	{ "a unix socket left behind by a killed destination is replaced", test_unix_left_behind },
	{ "everything arrives over one inherited descriptor", test_fd },
	{ "two stages over one inherited descriptor", test_fd_two_stages },
	{ "a stream lost after GO: said that it cannot be connected again", test_fd_cut },
	{ "fd: of one direction or not open: refused", test_fd_refused },
	{ "everything arrives through a command", test_exec },
	{ "a command that fails: said with its exit status or what it sent", test_exec_fails },
	{ "without push only what is asked for is sent, each page once", test_no_push },
	{ "with zstd pages that shrink travel compressed", test_zstd },
	{ "a limit of bulk holds", test_bulk_bandwidth },
	{ "a limit of bulk leaves urgent alone and goes when told", test_bulk_bandwidth_changes },
	{ "a limit of bulk holds while pages are asked for, which have none",
	  test_bulk_bandwidth_under_requests },
	{ "four channels of each kind carry it", test_four_channels_of_each },
	{ "channels come and go after the switch", test_channels_change },
	{ "channels come and go in pre-copy, and no old page wins", test_channels_in_precopy },
	{ "one of several channels lost: connected again, all of them", test_lost_channel },
	{ "one stream has one channel of each kind", test_channels_of_a_stream },
	{ "32 pages forward save 95 % of a sequential reader's requests", test_prefault },
	{ "memory of umemd stays below 32 MiB", test_memory_is_bounded },
	{ "no page leaves before the guest is stopped", test_pages_wait_for_stopped },
	{ "with --touch no page is a fault to the guest's process any more", test_touch },
	{ "cancel before GO, then another migration", test_cancel },
	{ "destination fails to load: the source is told why", test_destination_fails },
	{ "destination short of memory: the source is told why", test_out_of_memory },
	{ "source killed before device state: destination listens again",
	  test_source_killed_before_state },
	{ "source killed after device state: destination gives up", test_source_killed_after_state },
	{ "destination killed before GO: source gives up", test_destination_killed_before_go },
	{ "launcher gone before GO: both give up", test_launcher_gone_before_go },
	{ "launcher gone after GO: the migration goes on", test_launcher_gone_after_go },
	{ "connections cut after GO four times, resumed each time", test_cut_and_resumed },
	{ "threads wait through an outage", test_cut_with_waiters },
	{ "killed after GO and replaced: source, destination, both, twice",
	  test_killed_and_replaced },
	{ "told to stop after GO and replaced, with zstd", test_stopped_and_replaced },
	{ "source killed before it said GO: its successor does",
	  test_source_killed_before_it_said_go },
	{ "destination killed before it heard GO: its successor does",
	  test_destination_killed_before_it_heard_go },
	{ "both killed around GO", test_both_killed_around_go },
	{ "both killed at the end: their successors come to it", test_destination_killed_at_the_end },
	{ "a session to go on with that is no good: said why", test_session_that_is_no_good },
	{ "both have no capabilities and only the descriptors they need", test_rights },
	{ "errands for a unix socket have the one capability they need", test_rights_of_errands },
#ifdef __x86_64__
	{ "open, execve and socket are refused in both", test_refused_calls },
#endif
	{ "errands killed: the source says that it cannot connect any more", test_errands_killed },
	{ "errands end with a umemd that is killed", test_errands_end_with_umemd },
	{ "region length differs: refused with both", test_length_differs },
	{ "region name differs: refused with both", test_name_differs },
	{ "region missing at the source: refused", test_region_missing },
	{ "version differs: refused with both", test_version_differs },
	{ "browser: refused", test_browser },
	{ "QEMU's own stream: refused by its name", test_qemu_stream },
	{ "frames of pre-copy out of place: refused, the next source is good",
	  test_precopy_frames_out_of_place },
	{ "an early page that was named old before it came is not shown",
	  test_precopy_page_named_before_it_comes },
	{ "an early page that became zero is zero, also to a successor",
	  test_early_page_became_zero },
	{ "1 MiB of noise: refused, with and without magic", test_noise },
	{ "a silent stranger blocks nobody", test_silent_stranger },
	{ "a silent stranger is sent away", test_silent_stranger_is_sent_away },
	{ "a second source is refused, the first goes on", test_second_source },
	{ "a stranger cannot join or resume a session", test_stranger_cannot_join },
	{ "a stranger takes no place while the source is away", test_stranger_cannot_take_a_place },
	{ "a flood of strangers: a session begins, runs and is resumed", test_flood },
	{ "a page that keeps coming damaged: not shown, reported once, asked for ever more seldom",
	  test_damaged_pages },
	{ "every page damaged three times: all arrive", test_many_damaged_pages },
	{ "pages twice, late and out of order change nothing", test_replayed_pages },
	{ "other frames twice: broken off and resumed, nothing lost", test_replayed_frames },
	{ "a source that ends before it said END: its successor hears END",
	  test_source_ends_before_it_said_end },
	{ "a source given up: SIGBUS for what is missing, all else goes on", test_source_given_up },
	{ "a source given up while it returns", test_source_given_up_while_it_returns },
	{ "256 regions at a time, migrated onto and removed in a loop, leave nothing behind",
	  test_crowd },
	{ "port in use: said with address and reason", test_port_in_use },
	{ "connection refused: said with address and reason", test_connection_refused },
	{ "something else listens there: said what it is", test_not_a_destination },
	{ "the other side is silent: said after the time given", test_destination_is_silent },
	{ "unknown host: said by name", test_unknown_host },
	{ "region with a pager: said which region", test_region_has_a_pager },
	{ "TLS, x509: everything arrives over tcp", test_x509 },
	{ "TLS, x509: two stages, compressed", test_x509_two_stages },
	{ "TLS, x509: four channels of each kind carry it", test_x509_channels },
	{ "TLS, x509: connections cut after GO four times, resumed each time",
	  test_x509_cut_and_resumed },
	{ "TLS, x509: memory of umemd stays below 32 MiB", test_x509_memory },
	{ "TLS, x509: everything arrives over a unix socket", test_x509_unix },
	{ "TLS, x509: everything arrives over one inherited descriptor", test_x509_fd },
	{ "TLS, x509: a source without certificate, where that is allowed",
	  test_x509_without_a_client },
	{ "TLS, PSK: everything arrives over tcp", test_psk },
	{ "TLS, PSK: everything arrives over a unix socket", test_psk_unix },
	{ "TLS, PSK: killed after GO and replaced", test_psk_killed_and_replaced },
	{ "TLS, PSK: two stages over one inherited descriptor", test_psk_fd_two_stages },
	{ "TLS, x509: other CA, other host, no certificate: refused, said at both sides",
	  test_x509_refused },
	{ "TLS, x509: other CA on one stream: refused, said at both sides",
	  test_x509_refused_on_a_stream },
	{ "TLS, PSK: other key, other user, x509 there: refused, said at both sides",
	  test_psk_refused },
	{ "TLS at one side only: refused, said at both sides", test_tls_at_one_side },
	{ "TLS: a file missing or expired: said before anything is connected", test_bad_files },
	{ "TLS: who is silent in the handshake blocks nobody", test_silent_in_the_handshake },
	{ "TLS: who is silent in the handshake is sent away",
	  test_silent_in_the_handshake_is_sent_away },
};

int main(int argc, char **argv)
{
	static struct migration m;
	int err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	umemd_path = argc > 1 ? argv[1] : "./umemd";
	if (getenv("UMEM_TEST_SECONDS"))
		patience = max(atoi(getenv("UMEM_TEST_SECONDS")) / TEST_SECONDS, 1);
	printf("TAP version 13\n1..%zu\n", ARRAY_SIZE(tests));
	if (access(umemd_path, X_OK))
		bail("%s: %s", umemd_path, strerror(errno));
	err = umem_device_open(&device);
	if (err)
		bail("%s: %s", UMEM_DEVICE, strerror(-err));

	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		uint64_t started = now_ns();

		test_number = (int)i + 1;
		test_name = tests[i].name;
		test_skipped = NULL;
		test_failed = false;
		if (argc > 2 && !strstr(test_name, argv[2])) {
			printf("ok %d %s # SKIP not chosen\n", test_number, test_name);
			continue;
		}
		tests[i].run(&m);
		end(&m);
		forget_tls();
		failures += test_failed;
		printf("%sok %d %s%s%s\n# %llu ms\n", test_failed ? "not " : "", test_number,
		       test_name, test_skipped ? " # SKIP " : "", test_skipped ? test_skipped : "",
		       (unsigned long long)((now_ns() - started) / NSEC_PER_MSEC));
	}
	printf("# %zu tests, %d failed\n", ARRAY_SIZE(tests), failures);
	return failures != 0;
}
