// SPDX-License-Identifier: GPL-2.0-or-later
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"
#include "umemd/checksum.h"
#include "umemd/compress.h"
#include "umemd/errands.h"
#include "umemd/sandbox.h"
#include "umemd/side.h"
#include "umemd/socket.h"

#define START_NS	(1000 * NSEC_PER_SEC)
#define TURN_NS		(1 * NSEC_PER_MSEC)
#define LAST_TURNS	8	/* after all that the input has */
#define IN_ROOM		(2 * (FRAME_HEADER + FRAME_PAYLOAD_MAX))

struct world world;

static struct compressor *compressor;
static uint8_t room_in[WORLD_CONNECTIONS][IN_ROOM];

/* The clock, random numbers, and who connects: in place of the real ones. */

int __wrap_clock_gettime(clockid_t clock, struct timespec *time);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned int flags);
int __wrap_socket_resolve(const struct uri *uri, int listen, struct socket_address *addresses,
			  unsigned int *count, char *error);
int __wrap_sandbox_enter(unsigned int rights, bool any_file, char *error);
int __wrap_errands_start(struct errands *errands, const struct errands_setup *setup, char *error);
int __wrap_errands_connect(struct errands *errands, unsigned int address, int *fd);
int __wrap_socket_listen(const struct uri *uri, struct socket_listener *listener,
			 char actual[URI_TEXT_MAX], char *error);
int __wrap_socket_accept(int listener, int *fd, char peer[SOCKET_TEXT_MAX]);
int __real_loop_turn(struct loop *loop, uint64_t timeout_ns);
int __wrap_loop_turn(struct loop *loop, uint64_t timeout_ns);
void __real_side_destroy(struct side *side);
void __wrap_side_destroy(struct side *side);

int __wrap_clock_gettime(clockid_t clock, struct timespec *time)
{
	(void)clock;
	time->tv_sec = (time_t)(world.now_ns / NSEC_PER_SEC);
	time->tv_nsec = (long)(world.now_ns % NSEC_PER_SEC);
	return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned int flags)
{
	(void)flags;
	memcpy(buffer, WORLD_SESSION, min(size, strlen(WORLD_SESSION)));
	return (ssize_t)size;
}

int __wrap_socket_resolve(const struct uri *uri, int listen, struct socket_address *addresses,
			  unsigned int *count, char *error)
{
	(void)uri;
	(void)listen;
	(void)error;
	memset(addresses, 0, 2 * sizeof(*addresses));
	*count = 2;
	return 0;
}

/* The other end of a new socket; umemd's into @fd. NULL: there are too many. */
static struct connection *add_connection(int *fd)
{
	struct connection *connection;
	int pair[2], room = 1 << 20;

	if (world.nr_connections == WORLD_CONNECTIONS)
		return NULL;
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	connection = &world.connections[world.nr_connections];
	*connection = (struct connection){
		.fd = pair[0],
		.open = true,
		.in = room_in[world.nr_connections++],
	};
	*fd = pair[1];
	return connection;
}

static void note_sent(const void *bytes, size_t size)
{
	if (world.sent_used + size > world.sent_room) {
		world.sent_room = 2 * (world.sent_used + size);
		world.sent = realloc(world.sent, world.sent_room);
		must(world.sent);
	}
	memcpy(world.sent + world.sent_used, bytes, size);
	world.sent_used += size;
}

/* Returns whether all of it went. */
static bool write_to(struct connection *connection, const void *bytes, size_t size)
{
	ssize_t n;

	if (!connection->open || !size)
		return connection->open;
	n = send(connection->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n > 0)
		note_sent(bytes, (size_t)n);
	return n == (ssize_t)size;
}

bool world_sent(const void *bytes, size_t size)
{
	return memmem(world.sent, world.sent_used, bytes, size);
}

/* No process for errands: this one is not shut in. */
int __wrap_sandbox_enter(unsigned int rights, bool any_file, char *error)
{
	(void)rights;
	(void)any_file;
	(void)error;
	return 0;
}

int __wrap_errands_start(struct errands *errands, const struct errands_setup *setup, char *error)
{
	(void)errands;
	(void)setup;
	(void)error;
	return 0;
}

int __wrap_errands_connect(struct errands *errands, unsigned int address, int *fd)
{
	struct connection *connection = add_connection(fd);

	(void)errands;
	(void)address;
	if (!connection)
		return -ECONNREFUSED;
	write_to(connection, MAGIC, MAGIC_SIZE);
	return 0;
}

/* Readable while somebody waits to be accepted. */
int __wrap_socket_listen(const struct uri *uri, struct socket_listener *listener,
			 char actual[URI_TEXT_MAX], char *error)
{
	(void)uri;
	(void)error;
	*listener = (struct socket_listener){
		.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE),
	};
	must(listener->fd >= 0);
	world.listener = listener->fd;
	strcpy(actual, "tcp:0:4444");
	return 0;
}

int __wrap_socket_accept(int listener, int *fd, char peer[SOCKET_TEXT_MAX])
{
	struct connection *connection;
	uint64_t one;

	if (read(listener, &one, sizeof(one)) != sizeof(one))
		return -EAGAIN;
	connection = add_connection(fd);
	if (!connection)
		return -ECONNABORTED;
	write_to(connection, MAGIC, MAGIC_SIZE);
	snprintf(peer, SOCKET_TEXT_MAX, "peer %u", world.nr_connections);
	return 0;
}

bool world_is_heard(void)
{
	for (unsigned int i = 0; i < world.nr_connections; i++) {
		const struct connection *connection = &world.connections[i];
		int unread = 0;

		if (!connection->open)
			continue;
		if (connection->deaf || ioctl(connection->fd, SIOCOUTQ, &unread) || unread)
			return false;
	}
	return true;
}

/* What umemd says. */

static void take_line(const char *line, size_t size)
{
	json_t *object = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
	const char *name;

	must(json_is_object(object));
	name = json_string_value(json_object_get(object, "event"));
	must(name);
	if (world.event)
		world.event(name, json_string_value(json_object_get(object, "state")));
	json_decref(object);
}

static void listen_launcher(void)
{
	ssize_t n;
	char *end;

	while ((n = recv(world.launcher, world.line + world.line_used,
			 sizeof(world.line) - world.line_used, MSG_DONTWAIT)) > 0) {
		world.line_used += (size_t)n;
		while ((end = memchr(world.line, '\n', world.line_used))) {
			take_line(world.line, (size_t)(end - world.line));
			world.line_used -= (size_t)(end + 1 - world.line);
			memmove(world.line, end + 1, world.line_used);
		}
		must(world.line_used < sizeof(world.line));
	}
}

/* The whole frame at the beginning of what came; returns its size, 0 if it is not there. */
static size_t take_frame(struct connection *connection)
{
	char error[CODEC_ERROR_MAX];
	struct frame frame;

	if (!connection->magic_seen) {
		if (connection->in_used < MAGIC_SIZE)
			return 0;
		must(!magic_check(connection->in, MAGIC_SIZE, MAGIC, error));
		connection->magic_seen = true;
		return MAGIC_SIZE;
	}
	if (connection->in_used < FRAME_HEADER)
		return 0;
	must(!frame_decode(&frame, connection->in, error));
	if (connection->in_used < FRAME_HEADER + frame.length)
		return 0;
	world.frame(connection, &frame, connection->in + FRAME_HEADER);
	return FRAME_HEADER + frame.length;
}

/* Returns whether anything was done. */
static bool listen_connection(struct connection *connection)
{
	bool any = false;
	size_t taken;
	ssize_t n;

	if (!connection->open || connection->deaf || connection->synced)
		return false;
	for (;;) {
		while (!connection->synced && (taken = take_frame(connection))) {
			connection->in_used -= taken;
			memmove(connection->in, connection->in + taken, connection->in_used);
			any = true;
		}
		if (connection->synced)
			return true;
		n = recv(connection->fd, connection->in + connection->in_used,
			 IN_ROOM - connection->in_used, MSG_DONTWAIT);
		if (n <= 0)
			return any;
		connection->in_used += (size_t)n;
	}
}

void world_listen(void)
{
	bool any = true;

	listen_launcher();
	while (any) {
		any = false;
		for (unsigned int i = 0; i < world.nr_connections; i++)
			any |= listen_connection(&world.connections[i]);
	}
}

bool world_is_frame_for(enum session_role role, const struct frame *frame)
{
	char error[CODEC_ERROR_MAX];

	for (int i = 0; i < SESSION_STATES * SIDE_KINDS; i++) {
		struct session session = { role, (enum session_state)(i / SIDE_KINDS), false, false };

		if (!session_admits(&session, (enum channel_kind)(i % SIDE_KINDS), frame, error))
			return true;
	}
	return false;
}

/* What is done to it. */

static struct connection *chosen_connection(void)
{
	static struct connection none;
	uint8_t number = input_u8(&world.input);

	return world.nr_connections ? &world.connections[number % world.nr_connections] : &none;
}

static void close_connection(struct connection *connection)
{
	if (!connection->open)
		return;
	close(connection->fd);
	connection->open = connection->synced = false;
}

/* What is in a header besides type and length. */
static struct frame read_frame(uint16_t type)
{
	struct frame frame = { .type = type };

	frame.flags = input_u8(&world.input);
	frame.region = input_u8(&world.input);
	frame.count = input_u8(&world.input);
	return frame;
}

static void send_frame(unsigned int times)
{
	struct connection *connection = chosen_connection();
	struct frame frame = read_frame(input_u8(&world.input));
	size_t size = input_u16(&world.input);
	const uint8_t *payload = input_bytes(&world.input, &size);
	uint8_t header[FRAME_HEADER];

	frame.length = (uint32_t)size;
	frame_encode(header, &frame);
	while (times--) {
		if (write_to(connection, header, sizeof(header)) &&
		    write_to(connection, payload, size) && world.sent_frame)
			world.sent_frame(connection, &frame, payload);
	}
}

enum page_kind {
	PAGE_ZERO,
	PAGE_PLAIN,
	PAGE_COMPRESSED,
};

static void send_pages(void)
{
	static uint8_t contents[PAGES_MAX * PAGE_BYTES];
	uint8_t head[FRAME_HEADER + PAGES_MAX * PAGES_ENTRY], page[PAGE_BYTES];
	struct connection *connection = chosen_connection();
	struct frame frame = read_frame(FRAME_PAGES);
	size_t used = 0;

	frame.count = frame.count % PAGES_MAX + 1;
	for (uint32_t i = 0; i < frame.count; i++) {
		uint64_t number = input_u8(&world.input);
		struct page_entry entry = { .offset = number * PAGE_BYTES };
		uint8_t kind = input_u8(&world.input);

		memset(page, input_u8(&world.input), sizeof(page));
		entry.zero = (kind & 3) % 3 == PAGE_ZERO;
		if ((kind & 3) % 3 == PAGE_COMPRESSED)
			entry.compressed = (uint16_t)compress_page(compressor, contents + used,
								   page);
		else if (!entry.zero)
			memcpy(contents + used, page, PAGE_BYTES);
		entry.checksum = page_checksum(entry.zero ? NULL : page, frame.region,
					       entry.offset) + (kind >> 4 & 1);
		used += page_entry_contents(&entry);
		page_entry_encode(head + FRAME_HEADER + i * PAGES_ENTRY, &entry);
	}
	frame.length = (uint32_t)(frame.count * PAGES_ENTRY + used);
	frame_encode(head, &frame);
	if (write_to(connection, head, FRAME_HEADER + frame.count * PAGES_ENTRY) &&
	    write_to(connection, contents, used) && world.sent_frame)
		world.sent_frame(connection, &frame, head + FRAME_HEADER);
}

static void send_raw(void)
{
	struct connection *connection = chosen_connection();
	size_t size = input_u8(&world.input);
	const uint8_t *bytes = input_bytes(&world.input, &size);

	write_to(connection, bytes, size);
}

static void command(const char *line, size_t size)
{
	/* From then on nothing writes to the guest's memory, as QEMU promises. */
	world.frozen |= !!memmem(line, size, "stopped", strlen("stopped"));
	send(world.launcher, line, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	send(world.launcher, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void command_step(void)
{
	uint8_t number = input_u8(&world.input);
	const char *line;
	size_t size;

	if (number == 255) {
		size = input_u8(&world.input);
		line = (const char *)input_bytes(&world.input, &size);
		command(line, size);
	} else {
		line = world.commands[number % world.nr_commands];
		command(line, strlen(line));
	}
}

static void kernel_step(void)
{
	uint8_t what = input_u8(&world.input), region = input_u8(&world.input);
	uint8_t page = input_u8(&world.input);

	if (what % 3 == 0)
		kernel_touch(region, page);
	else if (world.options.role == ROLE_DESTINATION)
		kernel_discard(region, page);
	else if (!world.frozen)
		kernel_write(region, page, what);
}

static void state_step(void)
{
	static uint8_t bytes[255 * 16];
	size_t size = input_u8(&world.input);

	if (world.options.role == ROLE_DESTINATION)
		recv(world.state, bytes, size * 16, MSG_DONTWAIT);
	else if (size)
		send(world.state, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	else
		world.frozen = !shutdown(world.state, SHUT_WR);
}

static void connect_step(void)
{
	uint64_t one = 1;

	if (world.listener >= 0)
		must(write(world.listener, &one, sizeof(one)) == sizeof(one));
}

static void step(void)
{
	struct connection *connection;

	switch ((enum step)(input_u8(&world.input) % STEPS)) {
	case STEP_CONNECT:
		connect_step();
		break;
	case STEP_FRAME:
		send_frame(1);
		break;
	case STEP_PAGES:
		send_pages();
		break;
	case STEP_RAW:
		send_raw();
		break;
	case STEP_COMMAND:
		command_step();
		break;
	case STEP_KERNEL:
		kernel_step();
		break;
	case STEP_TIME:
		world.now_ns += NSEC_PER_MSEC << input_u8(&world.input) % 17;
		break;
	case STEP_CLOSE:
		close_connection(chosen_connection());
		break;
	case STEP_STATE:
		state_step();
		break;
	case STEP_DEAF:
		connection = chosen_connection();
		connection->deaf = !connection->deaf;
		break;
	case STEP_FLOOD:
		send_frame(16u * input_u8(&world.input));
		break;
	case STEPS:
		break;
	}
}

/* The other side, the launcher and QEMU go; umemd may say what it has to say. */
static void hang_up(void)
{
	for (unsigned int i = 0; i < world.nr_connections; i++)
		close_connection(&world.connections[i]);
	if (!world.ended) {
		shutdown(world.launcher, SHUT_WR);
		shutdown(world.state, SHUT_RDWR);
	}
	world.ended = true;
}

static void check(const struct side *side)
{
	must(side->session.state < SESSION_STATES);
	must(side->session.gone || !world.was_gone);
	must(!side->session.gone || side->session.state >= SESSION_RUNNING);
	world.was_gone = side->session.gone;
	for (int kind = 0; kind < SIDE_KINDS; kind++) {
		const struct channel *channel;

		must(side->nr[kind] <= CHANNELS_MAX);
		side_for_each(side, kind, channel)
			must(channel_queued(channel) <= CHANNEL_OUT_MAX &&
			     channel->payload_room <= FRAME_PAYLOAD_MAX);
	}
}

int __wrap_loop_turn(struct loop *loop, uint64_t timeout_ns)
{
	struct side *side = (struct side *)((char *)loop - offsetof(struct side, loop));

	(void)timeout_ns;
	world.side = side;
	check(side);
	world_listen();
	world.now_ns += TURN_NS;
	if (world.input.left) {
		step();
	} else {
		/* A side that waits for ever for the other has to be ended from here. */
		if (world.turns_left == LAST_TURNS / 2)
			hang_up();
		if (!world.turns_left--)
			side_finish(side, 0);
		else
			world.now_ns += 3 * NSEC_PER_SEC;
	}
	return __real_loop_turn(loop, 0);
}

/* What it says last is said in here. */
void __wrap_side_destroy(struct side *side)
{
	world_listen();
	hang_up();
	__real_side_destroy(side);
	listen_launcher();
}

/* The lowest that is free. */
static int next_descriptor(void)
{
	int fd = fcntl(0, F_DUPFD, 0);

	must(fd >= 0);
	close(fd);
	return fd;
}

static void make_pair(int *ours, int *theirs, int room)
{
	int pair[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	*ours = pair[0];
	*theirs = pair[1];
}

/* What the process leaves to its end. */
static void close_left(int fd, ino_t inode)
{
	struct stat st;

	if (!fstat(fd, &st) && st.st_ino == inode)
		close(fd);
}

static void begin(const uint8_t *data, size_t size)
{
	free(world.sent);
	world = (struct world){
		.input = { data, size },
		.options = world.options,
		.commands = world.commands,
		.nr_commands = world.nr_commands,
		.frame = world.frame,
		.sent_frame = world.sent_frame,
		.event = world.event,
		.now_ns = START_NS,
		.turns_left = LAST_TURNS,
		.listener = -1,
	};
	kernel_begin(&world.options, world.options.role == ROLE_SOURCE);
	if (!compressor)
		compressor = compressor_new();
	must(compressor);
}

void world_run(const uint8_t *data, size_t size, int (*run)(const struct options *options))
{
	struct options *options = &world.options;
	struct stat state;
	int descriptor;

	begin(data, size);
	descriptor = next_descriptor();
	make_pair(&world.launcher, &options->control_fd, 1 << 20);
	make_pair(&world.state, &options->state_fd, 4096);
	must(!fstat(options->state_fd, &state));

	run(options);
	for (unsigned int i = 0; i < world.nr_connections; i++)
		close_connection(&world.connections[i]);
	kernel_end();
	close(options->control_fd);
	close_left(options->state_fd, state.st_ino);
	close(world.launcher);
	close(world.state);
	must(next_descriptor() == descriptor);
}
