// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util.h"

#define TURN_RECORDS	8	/* sent before others in the loop have their turn */
#define TURN_TLS	4	/* records of TLS that are received before that */
#define REAP_MS		500
#define CLOSE_MS	2000

/* The command of an exec: URI. */

static void __attribute__((noreturn)) become_command(const char *command, int fd)
{
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	if (dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0)
		_exit(126);
	/* QEMU would wait for the end of its state while a copy of that is open. */
	close_range(STDERR_FILENO + 1, ~0U, 0);
	execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

static int start_command(const char *command, pid_t *pid, int *fd)
{
	int pair[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	*pid = fork();
	if (!*pid)
		become_command(command, pair[1]);
	err = errno;
	close(pair[1]);
	if (*pid < 0) {
		close(pair[0]);
		return -err;
	}
	*fd = pair[0];
	return 0;
}

/* How the command ended, after its side of the stream did. */
static void describe_command(struct stream *stream, char *text, size_t size)
{
	int status;
	pid_t pid;

	for (int i = 0; ; i++) {
		pid = waitpid(stream->command, &status, WNOHANG);
		if (pid || i == REAP_MS / 10)
			break;
		usleep(10000);
	}
	if (pid == stream->command && WIFEXITED(status))
		snprintf(text, size, "; the command exited with status %d", WEXITSTATUS(status));
	else if (pid == stream->command && WIFSIGNALED(status))
		snprintf(text, size, "; the command was killed by signal %d (%s)",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(text, size, "; the command closed it and has not ended");
}

/* The end of it all, for both directions of every channel. */
static void __attribute__((format(printf, 2, 3)))
break_stream(struct stream *stream, const char *format, ...)
{
	char text[CODEC_ERROR_MAX - 128], command[128] = "";
	va_list args;

	if (stream->broken[0])
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	loop_remove(stream->loop, &stream->watch);
	tls_free(stream->tls);
	stream->tls = NULL;
	close(stream->watch.fd);
	stream->watch.fd = -1;
	if (stream->command)
		describe_command(stream, command, sizeof(command));
	snprintf(stream->broken, sizeof(stream->broken), "%s%s", text, command);
	for (int i = 0; i < MUX_CHANNELS; i++)
		stream->mux.channels[i].peer_ended = true;
}

/* The sockets of the roles. */

static void channel_ready(void *owner, uint32_t events)
{
	struct stream_channel *channel = owner;

	/* stream_turn() does the work, in its order. */
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		channel->readable = true;
}

static int open_pair(struct stream *stream, enum channel_kind kind, int *fd)
{
	struct stream_channel *channel = &stream->channels[kind];
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	channel->watch.fd = pair[0];
	*fd = pair[1];
	return 0;
}

static void accept_channel(struct stream *stream, enum channel_kind kind)
{
	int fd = -1, err;

	if (stream->channels[kind].watch.fd >= 0 || stream->channels[kind].deaf)
		return;
	err = stream->finishing ? -ESHUTDOWN : open_pair(stream, kind, &fd);
	if (!err) {
		stream->opened(stream->owner, fd);
		return;
	}
	stream->channels[kind].deaf = true;
	mux_end(&stream->mux, kind);
}

/* Nobody reads it: it need not be kept, and the other side may send on. */
static void drop_ring(struct stream *stream, enum channel_kind kind)
{
	struct stream_channel *channel = &stream->channels[kind];

	mux_taken(&stream->mux, kind, (uint32_t)channel->ring_used);
	channel->ring_used = 0;
	channel->deaf = true;
}

/* What the role takes of @data now. */
static size_t hand_over(struct stream *stream, enum channel_kind kind, struct iovec *iov,
			size_t count)
{
	struct stream_channel *channel = &stream->channels[kind];
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n;

	if (channel->deaf)
		return 0;
	do {
		n = sendmsg(channel->watch.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		if (errno != EAGAIN)
			drop_ring(stream, kind);
		return 0;
	}
	mux_taken(&stream->mux, kind, (uint32_t)n);
	return (size_t)n;
}

static void flush_ring(struct stream *stream, enum channel_kind kind)
{
	struct stream_channel *channel = &stream->channels[kind];

	if (channel->ring_used) {
		size_t first = min(channel->ring_used, MUX_WINDOW - channel->ring_start);
		struct iovec iov[2] = {
			{ channel->ring + channel->ring_start, first },
			{ channel->ring, channel->ring_used - first },
		};
		size_t n = hand_over(stream, kind, iov, iov[1].iov_len ? 2 : 1);

		channel->ring_start = (channel->ring_start + n) % MUX_WINDOW;
		channel->ring_used -= min(n, channel->ring_used);
	}
	if (!channel->ring_used && stream->mux.channels[kind].peer_ended && !channel->shut &&
	    channel->watch.fd >= 0) {
		shutdown(channel->watch.fd, SHUT_WR);
		channel->shut = true;
	}
}

/* There is room: who sends more than its credit was refused. */
static bool keep(struct stream_channel *channel, const uint8_t *data, size_t size)
{
	size_t end = (channel->ring_start + channel->ring_used) % MUX_WINDOW;
	size_t first = min(size, MUX_WINDOW - end);

	if (!channel->ring)
		channel->ring = malloc(MUX_WINDOW);
	if (!channel->ring)
		return false;
	memcpy(channel->ring + end, data, first);
	memcpy(channel->ring, data + first, size - first);
	channel->ring_used += size;
	return true;
}

static void deliver(struct stream *stream, enum channel_kind kind, uint8_t *data, size_t size)
{
	struct stream_channel *channel = &stream->channels[kind];
	struct iovec iov = { data, size };
	size_t n = 0;

	if (!channel->ring_used)
		n = hand_over(stream, kind, &iov, 1);
	if (channel->deaf)
		mux_taken(&stream->mux, kind, (uint32_t)(size - n));
	else if (n < size && !keep(channel, data + n, size - n))
		break_stream(stream, "out of memory");
}

/* From the stream. */

static size_t take_magic(struct stream *stream, const uint8_t *bytes, size_t size, char *error)
{
	if (size < MAGIC_SIZE)
		return 0;
	if (magic_check(bytes, MAGIC_SIZE, MUX_MAGIC, error)) {
		break_stream(stream, "%s", error);
		return 0;
	}
	stream->magic_seen = true;
	return MAGIC_SIZE;
}

static size_t take_header(struct stream *stream, const uint8_t *bytes, size_t size, char *error)
{
	struct mux_record record;

	if (size < MUX_HEADER)
		return 0;
	if (mux_receive(&stream->mux, bytes, &record, error)) {
		break_stream(stream, "%s", error);
		return 0;
	}
	if (record.type == MUX_DATA) {
		stream->data_channel = record.channel;
		stream->data_left = record.number;
		accept_channel(stream, record.channel);
	}
	return MUX_HEADER;
}

static size_t take_data(struct stream *stream, uint8_t *bytes, size_t size)
{
	size_t part = min(size, (size_t)stream->data_left);

	stream->data_left -= (uint32_t)part;
	deliver(stream, stream->data_channel, bytes, part);
	return part;
}

static void take_records(struct stream *stream)
{
	char error[CODEC_ERROR_MAX];
	size_t taken = 1;

	while (taken && stream->in_used && !stream->broken[0]) {
		uint8_t *bytes = stream->in + stream->in_start;

		if (!stream->magic_seen)
			taken = take_magic(stream, bytes, stream->in_used, error);
		else if (stream->data_left)
			taken = take_data(stream, bytes, stream->in_used);
		else
			taken = take_header(stream, bytes, stream->in_used, error);
		stream->in_start += taken;
		stream->in_used -= taken;
	}
	memmove(stream->in, stream->in + stream->in_start, stream->in_used);
	stream->in_start = 0;
}

/*
 * @err: 0 its end. Whether the other side ended in an orderly way is for the channels
 * to tell; what it sent instead of the magic says most.
 */
static void break_by(struct stream *stream, int err)
{
	char why[CODEC_ERROR_MAX];

	if (!stream->magic_seen && stream->in_used)
		magic_check(stream->in, stream->in_used, MUX_MAGIC, why);
	else if (err == -EBADMSG && stream->tls)
		snprintf(why, sizeof(why), "%s", tls_why(stream->tls));
	else
		snprintf(why, sizeof(why), "%s", err ? strerror(-err) : "the stream ended");
	break_stream(stream, "%s", why);
}

/* Is TLS ready to be used, or without need? */
static bool is_up(struct stream *stream)
{
	int err = 0;

	if (stream->broken[0])
		return false;
	if (stream->tls && !tls_is_up(stream->tls))
		err = tls_handshake(stream->tls);
	if (err && err != -EAGAIN)
		break_by(stream, err);
	return !err;
}

/* As recv(). With TLS there is room for a record: what it holds is always all taken. */
static ssize_t receive_bytes(struct stream *stream)
{
	uint8_t *bytes = stream->in + stream->in_used;
	size_t room = STREAM_IN_MAX - stream->in_used;
	ssize_t n;

	if (stream->tls)
		return tls_receive(stream->tls, bytes, room);
	n = read(stream->watch.fd, bytes, room);
	return n < 0 ? -errno : n;
}

/* Returns whether something came, so that more may. */
static bool receive(struct stream *stream)
{
	ssize_t n;

	if (!is_up(stream))
		return false;
	n = receive_bytes(stream);
	if (n > 0) {
		stream->in_used += (size_t)n;
		take_records(stream);
	} else if (n != -EAGAIN && n != -EINTR) {
		break_by(stream, (int)n);
	}
	return n > 0 && !stream->broken[0];
}

static void stream_ready(void *owner, uint32_t events)
{
	struct stream *stream = owner;

	/* What is to be sent is sent by stream_turn(). */
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	for (int i = 0; receive(stream) && stream->tls && i < TURN_TLS; i++)
		;
}

/* To the stream. */

static ssize_t send_bytes(struct stream *stream)
{
	struct iovec iov = { stream->out + stream->out_start, stream->out_used };
	ssize_t n;

	if (stream->tls)
		return tls_send(stream->tls, &iov, 1);
	n = write(stream->watch.fd, iov.iov_base, iov.iov_len);
	return n < 0 ? -errno : n;
}

/* Returns whether all of it is gone. */
static bool flush(struct stream *stream)
{
	if (!is_up(stream))
		return false;
	while (stream->out_used && !stream->broken[0]) {
		ssize_t n = send_bytes(stream);

		if (n >= 0) {
			stream->out_start += (size_t)n;
			stream->out_used -= (size_t)n;
		} else if (n == -EAGAIN) {
			return false;
		} else if (n != -EINTR) {
			/* The other side may have said why: that is read first. */
			while (receive(stream))
				;
			if (!stream->broken[0])
				break_by(stream, (int)n);
		}
	}
	return !stream->broken[0];
}

static unsigned int readable(const struct stream *stream)
{
	unsigned int ready = 0;

	for (int i = 0; i < MUX_CHANNELS; i++)
		ready |= (unsigned int)stream->channels[i].readable << i;
	return ready;
}

/* The bytes of a DATA record. Returns false if there are none now. */
static bool fetch(struct stream *stream, struct mux_record *record)
{
	struct stream_channel *channel = &stream->channels[record->channel];
	ssize_t n;

	do {
		n = recv(channel->watch.fd, stream->out + MUX_HEADER, record->number,
			 MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		record->number = (uint32_t)n;
		return true;
	}
	channel->readable = false;
	if (!n || errno != EAGAIN)
		mux_end(&stream->mux, record->channel);
	return false;
}

/* The next record, into @out, which is empty. Returns whether there is one. */
static bool next_record(struct stream *stream)
{
	struct mux_record record;

	while (mux_next(&stream->mux, readable(stream), &record)) {
		if (record.type == MUX_DATA && !fetch(stream, &record))
			continue;
		mux_encode(stream->out, &record);
		mux_sent(&stream->mux, &record);
		stream->out_start = 0;
		stream->out_used = MUX_HEADER;
		if (record.type == MUX_DATA)
			stream->out_used += record.number;
		return true;
	}
	return false;
}

static bool wants_write(const struct stream *stream)
{
	return stream->tls && !tls_is_up(stream->tls) ? tls_wants_write(stream->tls) :
							stream->out_used;
}

static void set_wants(struct stream *stream)
{
	bool waiting = stream->out_used;

	for (int i = 0; i < MUX_CHANNELS; i++) {
		struct stream_channel *channel = &stream->channels[i];
		uint32_t events = 0;

		if (!waiting && !stream->broken[0] &&
		    mux_may_send(&stream->mux, (enum channel_kind)i))
			events |= EPOLLIN;
		if (channel->ring_used)
			events |= EPOLLOUT;
		loop_want(stream->loop, &channel->watch, events);
	}
	loop_want(stream->loop, &stream->watch, EPOLLIN | (wants_write(stream) ? EPOLLOUT : 0));
}

void stream_turn(struct stream *stream)
{
	for (int i = 0; i < MUX_CHANNELS; i++)
		flush_ring(stream, (enum channel_kind)i);
	for (int i = 0; i < TURN_RECORDS && flush(stream) && next_record(stream); i++)
		;
	flush(stream);
	set_wants(stream);
}

const char *stream_broken(const struct stream *stream)
{
	return stream->broken[0] ? stream->broken : NULL;
}

bool stream_is_over(const struct stream *stream)
{
	return stream->broken[0] || mux_is_over(&stream->mux);
}

/* Beginning and end. */

static int check_descriptor(int fd, char *error)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || fstat(fd, &st)) {
		snprintf(error, CODEC_ERROR_MAX, "fd:%d: descriptor %d is not open, wanted one that was inherited",
			 fd, fd);
		return -EBADF;
	}
	if ((flags & O_ACCMODE) != O_RDWR) {
		snprintf(error, CODEC_ERROR_MAX, "fd:%d: descriptor %d is open for %s only, wanted both directions",
			 fd, fd, (flags & O_ACCMODE) == O_WRONLY ? "writing" : "reading");
		return -EBADF;
	}
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode)) {
		snprintf(error, CODEC_ERROR_MAX, "fd:%d: descriptor %d is a file or a disk, wanted a socket",
			 fd, fd);
		return -EINVAL;
	}
	return 0;
}

static int open_descriptor(struct stream *stream, const struct uri *uri, char *error)
{
	int err, flags;

	if (uri->kind == URI_EXEC) {
		err = start_command(uri->rest, &stream->command, &stream->watch.fd);
		if (err) {
			snprintf(error, CODEC_ERROR_MAX, "exec:%s: no process for the command: %s",
				 uri->rest, strerror(-err));
			return err;
		}
	} else {
		err = check_descriptor(uri->fd, error);
		if (err)
			return err;
		stream->watch.fd = uri->fd;
	}
	flags = fcntl(stream->watch.fd, F_GETFL);
	fcntl(stream->watch.fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(stream->watch.fd, F_SETFD, FD_CLOEXEC);
	err = loop_want(stream->loop, &stream->watch, EPOLLIN);
	if (err) {
		snprintf(error, CODEC_ERROR_MAX, "fd:%d: descriptor %d cannot be waited for: %s",
			 uri->fd, uri->fd, strerror(-err));
		close(stream->watch.fd);
	}
	return err;
}

struct stream *stream_open(struct loop *loop, const struct uri *uri,
			   const struct credentials *credentials,
			   void (*opened)(void *owner, int fd), void *owner, char *error)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		snprintf(error, CODEC_ERROR_MAX, "out of memory");
		return NULL;
	}
	stream->loop = loop;
	stream->opened = opened;
	stream->owner = owner;
	stream->watch = (struct watch){
		.priority = PRIORITY_URGENT,
		.ready = stream_ready,
		.owner = stream,
	};
	for (int i = 0; i < MUX_CHANNELS; i++) {
		stream->channels[i].stream = stream;
		stream->channels[i].watch = (struct watch){
			.fd = -1,
			.priority = PRIORITY_URGENT,
			.ready = channel_ready,
			.owner = &stream->channels[i],
		};
	}
	mux_init(&stream->mux, opened);
	if (open_descriptor(stream, uri, error)) {
		free(stream);
		return NULL;
	}
	stream->tls = credentials ? tls_new(credentials, stream->watch.fd) : NULL;
	if (credentials && !stream->tls) {
		snprintf(error, CODEC_ERROR_MAX, "out of memory");
		stream_close(stream);
		return NULL;
	}
	memcpy(stream->out, MUX_MAGIC, MAGIC_SIZE);
	stream->out_used = MAGIC_SIZE;
	return stream;
}

int stream_connect(struct stream *stream, enum channel_kind channel, int *fd)
{
	int err;

	if (stream->broken[0])
		return -ENOTCONN;
	err = mux_open(&stream->mux, channel);
	return err ? err : open_pair(stream, channel, fd);
}

/* The roles are gone: all they said is there to be read, and no more will be. */
static void finish(struct stream *stream)
{
	uint64_t deadline = now_ns() + CLOSE_MS * NSEC_PER_MSEC;

	stream->finishing = true;
	for (int i = 0; i < MUX_CHANNELS; i++)
		stream->channels[i].readable = stream->channels[i].watch.fd >= 0;
	while (!stream->broken[0]) {
		struct pollfd poll_fd = { .fd = stream->watch.fd, .events = POLLIN };
		uint64_t now = now_ns();

		while (flush(stream) && next_record(stream))
			;
		if (wants_write(stream))
			poll_fd.events |= POLLOUT;
		else if (mux_is_over(&stream->mux))
			return;
		if (now >= deadline ||
		    poll(&poll_fd, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0)
			return;
		if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR))
			receive(stream);
	}
}

void stream_close(struct stream *stream)
{
	if (!stream)
		return;
	finish(stream);
	tls_free(stream->tls);
	if (stream->watch.fd >= 0) {
		loop_remove(stream->loop, &stream->watch);
		/* Others may hold a copy of the descriptor: the stream ends with us. */
		shutdown(stream->watch.fd, SHUT_RDWR);
		close(stream->watch.fd);
	}
	for (int i = 0; i < MUX_CHANNELS; i++) {
		struct stream_channel *channel = &stream->channels[i];

		loop_remove(stream->loop, &channel->watch);
		if (channel->watch.fd >= 0)
			close(channel->watch.fd);
		free(channel->ring);
	}
	free(stream);
}
