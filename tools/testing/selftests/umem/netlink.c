// SPDX-License-Identifier: GPL-2.0-only
/*
 * The generic netlink family: every attribute, every notification, who may see what,
 * and dumps while regions come and go.
 */
#include "missing_region.h"
#include "netlink_client.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define NOBODY		65534
#define MANY		200	/* regions or threads: more than one message takes */
#define MSEC		1000000ULL

static uint32_t setup_id(void)
{
	setup();
	return info(region_fd).id;
}

static struct attrs region_of(struct client *nl, uint32_t id)
{
	return nl_get(nl, UMEM_CMD_REGION_GET, id);
}

static struct attrs stats_of(struct client *nl, uint32_t id)
{
	return nl_get(nl, UMEM_CMD_STATS_GET, id);
}

/* ---- regions ---- */

static void a_new_region_is_told_as_it_is(void)
{
	struct client *nl = nl_open();
	struct attrs attrs;
	uint32_t id;

	region_fd = region_id(NR * PAGE, &id);
	attrs = region_of(nl, id);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_ID), id);
	CHECK(!strcmp(attr_string(attrs, UMEM_A_REGION_NAME), "selftest"), "name");
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_UID), geteuid());
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_PID), getpid());
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_LENGTH), NR * PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_MISSING), 0);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_POISONED), 0);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_WAITERS), 0);
	CHECK(!has_attr(attrs, UMEM_A_REGION_PAGER), "there is no pager");
	CHECK(!has_attr(attrs, UMEM_A_REGION_TRACKED), "nothing is tracked");
}

static void what_changes_in_a_region_is_told(void)
{
	struct umem_track track = { .size = sizeof(track), .op = UMEM_TRACK_START };
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	struct toucher t;
	struct attrs attrs;

	CHECK_EQ(change(pager_fd, UMEM_POISON, PAGE, PAGE), 1);
	CHECK(!ioctl(pager_fd, UMEM_TRACK, &track), "UMEM_TRACK");
	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	attrs = region_of(nl, id);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_MISSING), (NR - 1) * PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_POISONED), PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_REGION_WAITERS), 1);
	CHECK(has_attr(attrs, UMEM_A_REGION_PAGER), "there is a pager");
	CHECK(has_attr(attrs, UMEM_A_REGION_TRACKED), "dirty pages are tracked");
	copy_byte(pager_fd, 0, 'x');
	finish(&t);
}

static void lengths_beyond_32_bits_are_told(void)
{
	const uint64_t length = 5ULL << 32;
	struct client *nl = nl_open();
	uint32_t id;

	region_fd = region_id(length, &id);
	CHECK_EQ(attr_uint(region_of(nl, id), UMEM_A_REGION_LENGTH), length);
}

static void bad_requests_are_refused(void)
{
	struct client *nl = nl_open();
	uint32_t id = setup_id(), none = 0;
	char byte = 1;

	nl_request_id(nl, UMEM_CMD_REGION_GET, 0, INT32_MAX);
	CHECK_EQ(nl_error(nl), ENOENT);
	nl_request_id(nl, UMEM_CMD_THREAD_GET, NLM_F_DUMP, INT32_MAX);
	CHECK_EQ(nl_error(nl), ENOENT);
	nl_request_id(nl, UMEM_CMD_STATS_GET, 0, none);
	CHECK_EQ(nl_error(nl), ERANGE);
	nl_request(nl, nl->family, UMEM_CMD_REGION_GET, 0, 0, NULL, 0);
	CHECK_EQ(nl_error(nl), EINVAL);
	nl_request(nl, nl->family, UMEM_CMD_REGION_GET, 0, UMEM_A_REGION_ID, &byte, 1);
	CHECK_EQ(nl_error(nl), EINVAL);
	nl_request(nl, nl->family, UMEM_CMD_REGION_GET, 0, UMEM_A_REGION_UID, &id, sizeof(id));
	CHECK_EQ(nl_error(nl), EINVAL);
	nl_request_id(nl, UMEM_CMD_THREAD_GET, 0, id);
	CHECK_EQ(nl_error(nl), EOPNOTSUPP);
	nl_request_id(nl, UMEM_CMD_REGION_CREATED_NTF, 0, id);
	CHECK_EQ(nl_error(nl), EOPNOTSUPP);
}

/* ---- statistics ---- */

static void every_counter_counts(void)
{
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	struct umem_info now;
	struct attrs attrs;
	struct toucher t;

	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	expect_request(pager_fd, 0);
	close(pager_fd);
	pager_fd = pager(region_fd);
	expect_request(pager_fd, 0);
	copy_byte(pager_fd, 0, 'c');
	finish(&t);
	copy_byte(pager_fd, 0, 'd');
	change(pager_fd, UMEM_PUBLISH, 1 * PAGE, 2 * PAGE);
	change(pager_fd, UMEM_ZERO, 3 * PAGE, 3 * PAGE);
	change(pager_fd, UMEM_POISON, 6 * PAGE, 4 * PAGE);
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * PAGE, PAGE),
	      "punch");
	now = info(region_fd);
	attrs = attr_attrs(find_attr(stats_of(nl, id), UMEM_A_STATS_COUNTERS));
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_FAULTS), now.faults);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_FAULTS), 1);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_REQUESTS), 1);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_DELIVERED), 2);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_PUBLISHED), 2);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_COPIED), 1);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_ZEROED), 3);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_DISCARDED), 1);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_POISONED), 4);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_DUPLICATES), 1);
	CHECK_EQ(attr_uint(attrs, UMEM_A_COUNTERS_PAGERS_LOST), 1);
	attrs = stats_of(nl, id);
	CHECK_EQ(attr_uint(attrs, UMEM_A_STATS_REGION_ID), id);
	CHECK(!strcmp(attr_string(attrs, UMEM_A_STATS_REGION_NAME), "selftest"), "name");
}

static void wait_ms(volatile char *addr, int page, int ms)
{
	struct toucher t;

	start(&t, touch_read, addr);
	expect_waiters(region_fd, 1);
	msleep(ms);
	copy_byte(pager_fd, page * PAGE, 'w');
	finish(&t);
}

static void the_histogram_has_each_wait_in_its_bar(void)
{
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	uint64_t waits = 0, last = 0, total;
	const struct nlattr *attr;
	struct attrs attrs;

	CHECK(!has_attr(stats_of(nl, id), UMEM_A_STATS_LATENCY), "nobody waited");
	wait_ms(guest, 0, 20);
	wait_ms(guest + PAGE, 1, 400);
	attrs = stats_of(nl, id);
	total = attr_uint(attrs, UMEM_A_STATS_WAIT_TIME);
	CHECK_EQ(attr_uint(attrs, UMEM_A_STATS_WAITS), 2);
	CHECK(total >= 420 * MSEC && total < 20000 * MSEC, "%llu ns", (unsigned long long)total);
	while ((attr = next_attr(&attrs))) {
		struct attrs bar = attr_attrs(attr);
		uint64_t from;

		if ((attr->nla_type & NLA_TYPE_MASK) != UMEM_A_STATS_LATENCY)
			continue;
		from = attr_uint(bar, UMEM_A_LATENCY_FROM);
		CHECK_EQ(attr_uint(bar, UMEM_A_LATENCY_BELOW), 2 * from);
		/* 16.8 ms is the power of two below the first wait, unless it took longer. */
		CHECK(from > last && from >= 1ULL << 24, "a bar from %llu",
		      (unsigned long long)from);
		waits += attr_uint(bar, UMEM_A_LATENCY_WAITS);
		last = from;
	}
	/* And 268 ms that below the second. */
	CHECK(last >= 1ULL << 28, "the last bar from %llu", (unsigned long long)last);
	CHECK_EQ(waits, 2);
}

static void no_action(int sig)
{
	(void)sig;
}

/* read() by the kernel into a missing page, so that a signal can end it */
static void touch_by_kernel(struct toucher *toucher)
{
	int fds[2];

	CHECK(!pipe(fds), "pipe");
	CHECK_EQ(write(fds[1], "x", 1), 1);
	toucher->ret = read(fds[0], (void *)toucher->addr, 1);
}

static void an_interrupted_wait_is_in_no_bar(void)
{
	struct sigaction sa = { .sa_handler = no_action };
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	struct toucher t;
	struct attrs attrs;

	sigaction(SIGUSR1, &sa, NULL);
	start(&t, touch_by_kernel, guest);
	expect_waiters(region_fd, 1);
	pthread_kill(t.thread, SIGUSR1);
	for (int i = 0; i < 5000 && !attr_uint(stats_of(nl, id), UMEM_A_STATS_WAITS); i++)
		msleep(1);
	attrs = stats_of(nl, id);
	CHECK_EQ(attr_uint(attrs, UMEM_A_STATS_WAITS), 1);
	CHECK(!has_attr(attrs, UMEM_A_STATS_LATENCY), "the page did not come");
	copy_byte(pager_fd, 0, 'k');
	finish(&t);
}

/* ---- threads ---- */

struct named {
	struct toucher t;
	atomic_int tid;
	const char *name;
};

static void touch_with_name(struct toucher *toucher)
{
	struct named *named = (struct named *)toucher;

	prctl(PR_SET_NAME, named->name);
	named->tid = syscall(SYS_gettid);
	toucher->value = *toucher->addr;
	while (named->tid)	/* until it may end */
		msleep(1);
}

/* The thread's attributes in a dump of the region's, or none. */
static struct attrs thread_of(struct client *nl, uint32_t id, int tid)
{
	static char copy[NL_BUFFER];
	struct attrs found = { NULL, 0 };
	struct nlmsghdr *msg;

	nl_request_id(nl, UMEM_CMD_THREAD_GET, NLM_F_DUMP, id);
	while ((msg = nl_receive(nl))) {
		CHECK_EQ(attr_uint(msg_attrs(msg), UMEM_A_THREAD_REGION_ID), id);
		if ((int)attr_uint(msg_attrs(msg), UMEM_A_THREAD_TID) != tid)
			continue;
		CHECK(!found.data, "thread %d comes twice", tid);
		memcpy(copy, msg, msg->nlmsg_len);
		found = msg_attrs((struct nlmsghdr *)copy);
	}
	CHECK(!errno, "dump: %s", strerror(errno));
	return found;
}

static int count_threads(struct client *nl, uint32_t id)
{
	int nr = 0;

	nl_request_id(nl, UMEM_CMD_THREAD_GET, NLM_F_DUMP, id);
	while (nl_receive(nl))
		nr++;
	CHECK(!errno, "dump: %s", strerror(errno));
	return nr;
}

/* So many are left: who was joined is listed until the kernel is done with it. */
static void expect_threads(struct client *nl, uint32_t id, int nr)
{
	for (int i = 0; i < 5000 && count_threads(nl, id) != nr; i++)
		msleep(1);
	CHECK_EQ(count_threads(nl, id), nr);
}

static void a_thread_is_told_while_it_waits_and_after(void)
{
	struct named one = { .name = "one" }, two = { .name = "two" };
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	struct attrs attrs;
	struct timespec now;
	uint64_t since;
	int tid;

	start(&one.t, touch_with_name, guest);
	start(&two.t, touch_with_name, guest + 3 * PAGE);
	expect_waiters(region_fd, 2);
	clock_gettime(CLOCK_MONOTONIC, &now);
	attrs = thread_of(nl, id, two.tid);
	CHECK(attrs.data, "the thread is not there");
	CHECK(!strcmp(attr_string(attrs, UMEM_A_THREAD_COMM), "two"), "comm");
	CHECK_EQ(attr_uint(attrs, UMEM_A_THREAD_WAITS), 0);
	CHECK_EQ(attr_uint(attrs, UMEM_A_THREAD_WAIT_TIME), 0);
	CHECK_EQ(attr_uint(attrs, UMEM_A_THREAD_OFFSET), 3 * PAGE);
	since = attr_uint(attrs, UMEM_A_THREAD_SINCE);
	CHECK(since && since <= now.tv_sec * 1000000000ULL + now.tv_nsec, "since %llu",
	      (unsigned long long)since);
	msleep(30);
	copy_byte(pager_fd, 3 * PAGE, 'x');
	expect_waiters(region_fd, 1);
	tid = two.tid;
	for (int i = 0; i < 5000 && has_attr(thread_of(nl, id, tid), UMEM_A_THREAD_SINCE); i++)
		msleep(1);
	attrs = thread_of(nl, id, tid);
	CHECK(!has_attr(attrs, UMEM_A_THREAD_SINCE), "it waits no more");
	CHECK(!has_attr(attrs, UMEM_A_THREAD_OFFSET), "it waits no more");
	CHECK_EQ(attr_uint(attrs, UMEM_A_THREAD_WAITS), 1);
	CHECK(attr_uint(attrs, UMEM_A_THREAD_WAIT_TIME) >= 30 * MSEC, "time");
	CHECK_EQ(attr_uint(attrs, UMEM_A_THREAD_LONGEST),
		 attr_uint(attrs, UMEM_A_THREAD_WAIT_TIME));
	CHECK(has_attr(thread_of(nl, id, one.tid), UMEM_A_THREAD_SINCE), "the other one waits");
	two.tid = 0;
	finish(&two.t);
	expect_threads(nl, id, 1);
	CHECK(!thread_of(nl, id, tid).data, "it has ended");
	copy_byte(pager_fd, 0, 'x');
	one.tid = 0;
	finish(&one.t);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s: %s", path,
	      strerror(errno));
	close(fd);
}

/* So many threads wait at a time, for the page; how many of them are listed. */
static int wait_together(struct client *nl, uint32_t id, int nr, int page)
{
	static struct toucher t[64];
	int listed;

	for (int i = 0; i < nr; i++)
		start(&t[i], touch_read, guest + page * PAGE);
	expect_waiters(region_fd, nr);
	listed = count_threads(nl, id);
	copy_byte(pager_fd, page * PAGE, 'x');
	for (int i = 0; i < nr; i++)
		finish(&t[i]);
	expect_threads(nl, id, 0);
	return listed;
}

static void threads_that_ended_make_room_and_the_list_has_an_end(void)
{
	static const char limit[] = "/sys/module/umem/parameters/max_threads";
	struct client *nl = nl_open();
	uint32_t id = setup_id();

	write_file(limit, "20");
	CHECK_EQ(wait_together(nl, id, 30, 0), 20);
	msleep(1100);
	CHECK_EQ(wait_together(nl, id, 20, 1), 20);
	msleep(1100);
	CHECK_EQ(wait_together(nl, id, 30, 2), 20);
	write_file(limit, "4096");
	CHECK_EQ(wait_together(nl, id, 64, 3), 64);
	CHECK_EQ(attr_uint(stats_of(nl, id), UMEM_A_STATS_WAITS), 30 + 20 + 30 + 64);
}

/* ---- dumps ---- */

static uint32_t ids[MANY];
static int fds[MANY];

static void make_many(void)
{
	for (int i = 0; i < MANY; i++)
		fds[i] = region_id(PAGE, &ids[i]);
}

/* How many of @ids are in the answer; each at most once. */
static int count_many(struct client *nl, int id_attr)
{
	bool seen[MANY] = { false };
	struct nlmsghdr *msg;
	int nr = 0;

	while ((msg = nl_receive(nl))) {
		uint32_t id = attr_uint(msg_attrs(msg), id_attr);

		for (int i = 0; i < MANY; i++) {
			if (ids[i] != id)
				continue;
			CHECK(!seen[i], "region %u comes twice", id);
			seen[i] = true;
			nr++;
		}
	}
	CHECK(!errno, "dump: %s", strerror(errno));
	return nr;
}

static void a_dump_has_every_region_once(void)
{
	struct client *nl = nl_open();

	make_many();
	nl_dump(nl, UMEM_CMD_REGION_GET);
	CHECK_EQ(count_many(nl, UMEM_A_REGION_ID), MANY);
	CHECK(!nl->interrupted, "nothing has changed");
	nl_dump(nl, UMEM_CMD_STATS_GET);
	CHECK_EQ(count_many(nl, UMEM_A_STATS_REGION_ID), MANY);
	CHECK(!nl->interrupted, "nothing has changed");
	nl_request_id(nl, UMEM_CMD_REGION_GET, NLM_F_DUMP, ids[7]);
	CHECK_EQ(count_many(nl, UMEM_A_REGION_ID), 1);
	nl_request_id(nl, UMEM_CMD_STATS_GET, NLM_F_DUMP, ids[7]);
	CHECK_EQ(count_many(nl, UMEM_A_STATS_REGION_ID), 1);
}

static void a_dump_says_that_a_region_came_or_went(void)
{
	struct client *nl = nl_open();
	int fd;

	make_many();
	nl_dump(nl, UMEM_CMD_REGION_GET);
	CHECK(nl_receive(nl), "the first region");
	fd = region(PAGE);
	count_many(nl, UMEM_A_REGION_ID);
	CHECK(nl->interrupted, "one came");

	nl_dump(nl, UMEM_CMD_STATS_GET);
	CHECK(nl_receive(nl), "the first region");
	close(fd);
	count_many(nl, UMEM_A_STATS_REGION_ID);
	CHECK(nl->interrupted, "one went");

	nl_dump(nl, UMEM_CMD_REGION_GET);
	CHECK_EQ(count_many(nl, UMEM_A_REGION_ID), MANY);
	CHECK(!nl->interrupted, "the next dump is whole");
}

static atomic_bool stop;

static void *come_and_go(void *arg)
{
	while (!stop) {
		int one = region(PAGE), two = region(PAGE);

		close(one);
		close(two);
	}
	return arg;
}

static void those_that_stay_are_in_every_dump(void)
{
	struct client *nl = nl_open();
	bool interrupted = false;
	pthread_t thread;

	make_many();
	stop = false;
	CHECK(!pthread_create(&thread, NULL, come_and_go, NULL), "pthread_create");
	for (int i = 0; i < 50 || !interrupted; i++) {
		nl_dump(nl, UMEM_CMD_REGION_GET);
		CHECK_EQ(count_many(nl, UMEM_A_REGION_ID), MANY);
		interrupted |= nl->interrupted;
	}
	stop = true;
	pthread_join(thread, NULL);
}

static void a_dump_of_threads_says_that_one_came(void)
{
	static struct toucher t[MANY], late;
	struct client *nl = nl_open();
	uint32_t id = setup_id();

	for (int i = 0; i < MANY; i++)
		start(&t[i], touch_read, guest);
	expect_waiters(region_fd, MANY);
	CHECK_EQ(count_threads(nl, id), MANY);
	CHECK(!nl->interrupted, "none came");
	nl_request_id(nl, UMEM_CMD_THREAD_GET, NLM_F_DUMP, id);
	CHECK(nl_receive(nl), "the first thread");
	start(&late, touch_read, guest);
	expect_waiters(region_fd, MANY + 1);
	CHECK_EQ(nl_error(nl), 0);
	CHECK(nl->interrupted, "one came");
	copy_byte(pager_fd, 0, 'x');
	for (int i = 0; i < MANY; i++)
		finish(&t[i]);
	finish(&late);
}

/* ---- who may see what ---- */

static bool dump_has(struct client *nl, uint8_t cmd, uint32_t id)
{
	struct nlmsghdr *msg;
	bool has = false;

	nl_dump(nl, cmd);
	while ((msg = nl_receive(nl)))
		has |= attr_uint(msg_attrs(msg), 1) == id;
	CHECK(!errno, "dump: %s", strerror(errno));
	return has;
}

static void become_nobody(void)
{
	CHECK(!setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY),
	      "setuid: %s", strerror(errno));
	/* For /proc/self/uid_map to be one's own. */
	prctl(PR_SET_DUMPABLE, 1);
}

static uint32_t nobodys_region(int dev)
{
	struct umem_create create = { .size = sizeof(create), .length = PAGE, .name = "nobody" };

	CHECK(!ioctl(dev, UMEM_CREATE, &create), "UMEM_CREATE: %s", strerror(errno));
	return create.out_id;
}

static void expect_hidden(struct client *nl, uint32_t id)
{
	CHECK(!dump_has(nl, UMEM_CMD_REGION_GET, id), "regions");
	CHECK(!dump_has(nl, UMEM_CMD_STATS_GET, id), "stats");
	CHECK(!dump_has(nl, UMEM_CMD_THREAD_GET, id), "threads");
	nl_request_id(nl, UMEM_CMD_REGION_GET, 0, id);
	CHECK_EQ(nl_error(nl), EPERM);
	nl_request_id(nl, UMEM_CMD_STATS_GET, 0, id);
	CHECK_EQ(nl_error(nl), EPERM);
	nl_request_id(nl, UMEM_CMD_THREAD_GET, NLM_F_DUMP, id);
	CHECK_EQ(nl_error(nl), EPERM);
}

static void users_see_their_own_and_root_sees_all(void)
{
	struct client *privileged = nl_open(), *nl;
	uint32_t id = setup_id(), own;
	struct toucher t;
	int dev = device();

	start(&t, touch_read, guest);
	expect_waiters(region_fd, 1);
	CHECK(dump_has(privileged, UMEM_CMD_THREAD_GET, id), "root's own thread");
	become_nobody();
	own = nobodys_region(dev);
	nl = nl_open();
	expect_hidden(nl, id);
	CHECK(dump_has(nl, UMEM_CMD_REGION_GET, own), "one's own");
	CHECK(dump_has(nl, UMEM_CMD_STATS_GET, own), "one's own");
	CHECK_EQ(attr_uint(region_of(nl, own), UMEM_A_REGION_UID), NOBODY);
	/* The rights are those of who opened the socket. */
	CHECK(dump_has(privileged, UMEM_CMD_REGION_GET, id), "root's");
	CHECK(dump_has(privileged, UMEM_CMD_REGION_GET, own), "the user's");
	copy_byte(pager_fd, 0, 'x');
	finish(&t);
}

static void root_of_a_user_namespace_is_a_user(void)
{
	uint32_t id = setup_id(), own;
	int dev = device();
	struct client *nl;

	become_nobody();
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		skip("no user namespaces for users");
	write_file("/proc/self/uid_map", "0 65534 1");
	CHECK_EQ(geteuid(), 0);
	own = nobodys_region(dev);
	nl = nl_open();
	expect_hidden(nl, id);
	CHECK(dump_has(nl, UMEM_CMD_REGION_GET, own), "one's own, in another network namespace");
	CHECK_EQ(attr_uint(region_of(nl, own), UMEM_A_REGION_UID), 0);
}

/* Threads are told with the numbers they have where they are asked for. */
static void pids_are_of_the_readers_namespace(void)
{
	struct client *nl = nl_open();
	uint32_t id = setup_id();
	int status;
	pid_t pid;

	CHECK(!unshare(CLONE_NEWPID), "unshare: %s", strerror(errno));
	pid = fork();
	if (!pid) {
		CHECK_EQ(attr_uint(region_of(nl, id), UMEM_A_REGION_PID), 0);
		exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(attr_uint(region_of(nl, id), UMEM_A_REGION_PID), getpid());
}

/* ---- notifications ---- */

static struct client *listener(void)
{
	struct client *nl = nl_open();

	CHECK(!nl_join(nl, nl->regions), "join: %s", strerror(errno));
	CHECK(!nl_join(nl, nl->discards), "join: %s", strerror(errno));
	return nl;
}

/* The next notification, which must be this one, of that region. */
static struct attrs expect_ntf(struct client *nl, uint8_t cmd, uint32_t id)
{
	struct nlmsghdr *msg = nl_receive(nl);
	struct attrs attrs;

	CHECK(msg, "receive: %s", strerror(errno));
	attrs = msg_attrs(msg);
	CHECK_EQ(msg_cmd(msg), cmd);
	if (id)
		CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_REGION_ID), id);
	CHECK(!strcmp(attr_string(attrs, UMEM_A_EVENT_REGION_NAME), "selftest"), "name");
	CHECK(attr_uint(attrs, UMEM_A_EVENT_TIME), "time");
	return attrs;
}

static void expect_silence(struct client *nl)
{
	struct pollfd pfd = { .fd = nl->fd, .events = POLLIN };

	CHECK(!nl->left && !poll(&pfd, 1, 50), "more was told");
}

static void expect_state(struct attrs attrs, uint64_t missing, uint64_t poisoned)
{
	CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_LENGTH), NR * PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_MISSING), missing * PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_POISONED), poisoned * PAGE);
}

static void expect_range(struct attrs attrs, uint64_t offset, uint64_t size)
{
	CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_OFFSET), offset * PAGE);
	CHECK_EQ(attr_uint(attrs, UMEM_A_EVENT_SIZE), size * PAGE);
}

static void punch(uint64_t offset, uint64_t length)
{
	CHECK(!fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset * PAGE,
			 length * PAGE), "punch: %s", strerror(errno));
}

static void the_life_of_a_region_is_told(void)
{
	struct client *nl = listener();
	uint32_t id;

	region_fd = region_id(NR * PAGE, &id);
	expect_state(expect_ntf(nl, UMEM_CMD_REGION_CREATED_NTF, id), 0, 0);
	pager_fd = pager(region_fd);
	expect_state(expect_ntf(nl, UMEM_CMD_PAGER_ATTACHED_NTF, id), 0, 0);
	close(pager_fd);
	expect_state(expect_ntf(nl, UMEM_CMD_PAGER_DETACHED_NTF, id), 0, 0);
	pager_fd = pager(region_fd);
	expect_ntf(nl, UMEM_CMD_PAGER_ATTACHED_NTF, id);
	mark_missing(pager_fd, 0, NR * PAGE);
	close(pager_fd);
	expect_state(expect_ntf(nl, UMEM_CMD_PAGER_LOST_NTF, id), NR, 0);
	pager_fd = pager(region_fd);
	expect_state(expect_ntf(nl, UMEM_CMD_PAGER_ATTACHED_NTF, id), NR, 0);
	change(pager_fd, UMEM_ZERO, 0, (NR - 2) * PAGE);
	copy_byte(pager_fd, (NR - 2) * PAGE, 'x');
	expect_silence(nl);
	copy_byte(pager_fd, (NR - 1) * PAGE, 'x');
	expect_state(expect_ntf(nl, UMEM_CMD_COMPLETE_NTF, id), 0, 0);
	close(pager_fd);
	expect_ntf(nl, UMEM_CMD_PAGER_DETACHED_NTF, id);
	close(region_fd);
	expect_ntf(nl, UMEM_CMD_REGION_REMOVED_NTF, id);
	expect_silence(nl);
}

static void poison_and_discards_are_told_with_their_range(void)
{
	struct client *nl;
	struct attrs attrs;
	uint32_t id = setup_id();

	nl = listener();
	change(pager_fd, UMEM_POISON, PAGE, 3 * PAGE);
	attrs = expect_ntf(nl, UMEM_CMD_POISONED_NTF, id);
	expect_range(attrs, 1, 3);
	expect_state(attrs, NR - 3, 3);
	change(pager_fd, UMEM_POISON, PAGE, 3 * PAGE);
	punch(8, 2);
	attrs = expect_ntf(nl, UMEM_CMD_DISCARD_NTF, id);
	expect_range(attrs, 8, 2);
	expect_state(attrs, NR - 5, 3);
	punch(8, 2);
	change(pager_fd, UMEM_ZERO, 0, NR * PAGE);
	expect_silence(nl);	/* it is not complete: some is poisoned */
	punch(1, 3);
	expect_ntf(nl, UMEM_CMD_COMPLETE_NTF, id);
	expect_range(expect_ntf(nl, UMEM_CMD_DISCARD_NTF, id), 1, 3);
	expect_silence(nl);
}

static void each_group_has_its_own(void)
{
	struct client *regions = nl_open(), *discards = nl_open();
	uint32_t id;

	CHECK(!nl_join(regions, regions->regions), "join");
	CHECK(!nl_join(discards, discards->discards), "join");
	id = setup_id();
	punch(0, 1);
	expect_ntf(regions, UMEM_CMD_REGION_CREATED_NTF, id);
	expect_ntf(regions, UMEM_CMD_PAGER_ATTACHED_NTF, id);
	expect_silence(regions);
	expect_ntf(discards, UMEM_CMD_DISCARD_NTF, id);
	expect_silence(discards);
}

static void who_listens_too_slowly_is_told_so(void)
{
	struct client *nl = listener();
	int size = 4096;

	CHECK(!setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)), "SO_RCVBUF");
	setup();
	for (int i = 0; i < 2 * NR; i++) {
		mark_missing(pager_fd, 0, PAGE);
		punch(0, 1);
	}
	while (nl_receive(nl))
		;
	CHECK_EQ(errno, ENOBUFS);
}

static bool kernel_filters(void)
{
	struct utsname name;
	int major, minor;

	CHECK(!uname(&name) && sscanf(name.release, "%d.%d", &major, &minor) == 2, "uname");
	return major > 6 || (major == 6 && minor >= 8);
}

static void users_hear_of_their_own_and_root_of_all(void)
{
	struct client *privileged = listener(), *nl;
	int dev = device();

	become_nobody();
	nl = nl_open();
	if (!kernel_filters()) {
		CHECK_ERRNO(nl_join(nl, nl->regions), EPERM);
		CHECK_ERRNO(nl_join(nl, nl->discards), EPERM);
		nobodys_region(dev);
		CHECK(nl_receive(privileged), "root is told");
		return;
	}
	CHECK(!nl_join(nl, nl->regions), "join: %s", strerror(errno));
	nobodys_region(dev);
	CHECK(nl_receive(nl), "one's own");
	CHECK(nl_receive(privileged), "the user's");
}

static void root_of_a_user_namespace_hears_of_nobody_elses(void)
{
	struct client *nl;
	int go[2], status;
	pid_t pid;
	char byte;

	CHECK(!pipe(go), "pipe");
	pid = fork();
	if (!pid) {
		become_nobody();
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
			skip("no user namespaces for users");
		nl = nl_open();
		CHECK(!nl_join(nl, nl->regions), "join: %s", strerror(errno));
		CHECK_EQ(write(go[1], "j", 1), 1);
		expect_silence(nl);
		msleep(200);
		expect_silence(nl);
		exit(0);
	}
	close(go[1]);
	if (read(go[0], &byte, 1) == 1)
		setup();
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP)
		skip("no user namespaces for users");
	CHECK_EQ(status, 0);
}

static const struct test tests[] = {
	TEST(a_new_region_is_told_as_it_is),
	TEST(what_changes_in_a_region_is_told),
	TEST(lengths_beyond_32_bits_are_told),
	TEST(bad_requests_are_refused),
	TEST(every_counter_counts),
	TEST(the_histogram_has_each_wait_in_its_bar),
	TEST(an_interrupted_wait_is_in_no_bar),
	TEST(a_thread_is_told_while_it_waits_and_after),
	TEST(threads_that_ended_make_room_and_the_list_has_an_end),
	TEST(a_dump_has_every_region_once),
	TEST(a_dump_says_that_a_region_came_or_went),
	TEST(those_that_stay_are_in_every_dump),
	TEST(a_dump_of_threads_says_that_one_came),
	TEST(users_see_their_own_and_root_sees_all),
	TEST(root_of_a_user_namespace_is_a_user),
	TEST(pids_are_of_the_readers_namespace),
	TEST(the_life_of_a_region_is_told),
	TEST(poison_and_discards_are_told_with_their_range),
	TEST(each_group_has_its_own),
	TEST(who_listens_too_slowly_is_told_so),
	TEST(users_hear_of_their_own_and_root_of_all),
	TEST(root_of_a_user_namespace_hears_of_nobody_elses),
};

TEST_MAIN(tests)
