// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/channel.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"

#define DATA_ROOM	((size_t)PAGES_MAX * PAGE_BYTES)
#define WANT_MAX	(128 * 1024)

static int append(struct channel *channel, const void *data, size_t size)
{
	size_t queued = channel_queued(channel);

	if (queued + size > CHANNEL_OUT_MAX)
		return -ENOBUFS;
	if (channel->out_start) {
		memmove(channel->out, channel->out + channel->out_start, queued);
		channel->out_start = 0;
		channel->out_used = queued;
	}
	if (queued + size > channel->out_room) {
		size_t room = max(queued + size, (size_t)4096);
		uint8_t *grown = realloc(channel->out, room);

		if (!grown)
			return -ENOMEM;
		channel->out = grown;
		channel->out_room = room;
	}
	if (size)
		memcpy(channel->out + channel->out_used, data, size);
	channel->out_used += size;
	return 0;
}

struct channel *channel_new(int fd, const char *peer, const struct credentials *credentials,
			    uint64_t *bytes, const struct watch *watch, channel_admit admit)
{
	struct tls *tls = credentials ? tls_new(credentials, fd) : NULL;
	struct channel *channel = calloc(1, sizeof(*channel));

	if (!channel || (credentials && !tls) || append(channel, MAGIC, MAGIC_SIZE)) {
		tls_free(tls);
		free(channel);
		close(fd);
		return NULL;
	}
	channel->tls = tls;
	channel->watch = *watch;
	channel->watch.fd = fd;
	channel->watch.owner = channel;
	channel->owner = watch->owner;
	channel->watch.events = 0;
	channel->admit = admit;
	channel->bytes = bytes;
	channel->lowat = 1;
	channel->heard_ns = now_ns();
	snprintf(channel->peer, sizeof(channel->peer), "%s", peer);
	return channel;
}

void channel_free(struct loop *loop, struct channel *channel)
{
	if (!channel)
		return;
	loop_remove(loop, &channel->watch);
	tls_free(channel->tls);
	close(channel->watch.fd);
	if (channel->data)
		munmap(channel->data, DATA_ROOM);
	free(channel->payload);
	free(channel->out);
	free(channel);
}

int channel_take_pages(struct channel *channel)
{
	void *data;

	if (channel->data)
		return 0;
	data = mmap(NULL, DATA_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (data == MAP_FAILED)
		return -ENOMEM;
	channel->data = data;
	return 0;
}

/*
 * Be told of bytes only when there are this many, so that a frame is read at
 * once and not packet by packet: each read may cost a window update sent back.
 */
static void want_bytes(struct channel *channel, size_t bytes)
{
	int lowat = (int)min(bytes, (size_t)WANT_MAX);

	/* With TLS it is not known how many bytes these are. */
	if (lowat == channel->lowat || channel->tls)
		return;
	if (!setsockopt(channel->watch.fd, SOL_SOCKET, SO_RCVLOWAT, &lowat, sizeof(lowat)))
		channel->lowat = lowat;
}

static ssize_t receive_plain(struct channel *channel, struct iovec *iov, size_t count)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n;

	do {
		n = recvmsg(channel->watch.fd, &message, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return n;
}

/* As much as there is; what ends it is told next time. */
static ssize_t receive_tls(struct channel *channel, const struct iovec *iov, size_t count)
{
	ssize_t total = 0, n;

	for (size_t i = 0; i < count; i++) {
		for (size_t have = 0; have < iov[i].iov_len; have += (size_t)n) {
			n = tls_receive(channel->tls, (uint8_t *)iov[i].iov_base + have,
					iov[i].iov_len - have);
			if (n <= 0)
				return total ? total : n;
			total += n;
		}
	}
	return total;
}

/* Returns 1 when something came, else as channel_receive(). */
static int receive(struct channel *channel, struct iovec *iov, size_t count, size_t *got)
{
	ssize_t n = channel->tls ? receive_tls(channel, iov, count) :
				   receive_plain(channel, iov, count);

	*got = 0;
	if (n <= 0)
		return (int)n;
	*got = (size_t)n;
	*channel->bytes += (size_t)n;
	channel->heard_ns = now_ns();
	return 1;
}

static int receive_into(struct channel *channel, uint8_t *buffer, size_t *have, size_t size)
{
	struct iovec iov = { buffer + *have, size - *have };
	size_t got;
	int err = receive(channel, &iov, 1, &got);

	*have += got;
	if (err == 1 && *have < size)
		return -EAGAIN;
	return err;
}

static int receive_magic(struct channel *channel, char *error)
{
	int err = receive_into(channel, channel->magic, &channel->magic_have, MAGIC_SIZE);

	if (!err || channel->magic_have == MAGIC_SIZE) {
		int wrong = magic_check(channel->magic, channel->magic_have, MAGIC, error);

		if (wrong)
			return wrong;
		channel->magic_seen = true;
	}
	return err;
}

/* The header is complete: what follows, and where to? */
static int begin_payload(struct channel *channel, char *error)
{
	struct frame *frame = &channel->frame;
	int err = frame_decode(frame, channel->header, error);

	if (!err)
		err = channel->admit(channel, frame, error);
	if (err)
		return err;

	channel->payload_size = frame->length;
	channel->data_size = 0;
	if (frame->type == FRAME_PAGES) {
		channel->payload_size = (size_t)frame->count * PAGES_ENTRY;
		channel->data_size = frame->length - channel->payload_size;
	}
	if (channel->data_size && !channel->data) {
		snprintf(error, CODEC_ERROR_MAX, "frame PAGES came where none is taken");
		return -EPROTO;
	}
	if (channel->payload_size > channel->payload_room) {
		free(channel->payload);
		channel->payload_room = 0;
		channel->payload = malloc(channel->payload_size);
		if (!channel->payload)
			return -ENOMEM;
		channel->payload_room = channel->payload_size;
	}
	channel->payload_have = 0;
	channel->data_have = 0;
	channel->header_have = 0;
	channel->in_payload = true;
	return 0;
}

static struct iovec rest_of(uint8_t *buffer, size_t have, size_t size)
{
	if (have == size)	/* and there may be no buffer */
		return (struct iovec){ 0 };
	return (struct iovec){ buffer + have, size - have };
}

/* Whatever is left of this frame, and the next header if it is there already. */
static int receive_payload(struct channel *channel)
{
	struct iovec iov[3] = {
		rest_of(channel->payload, channel->payload_have, channel->payload_size),
		rest_of(channel->data, channel->data_have, channel->data_size),
		{ channel->header, FRAME_HEADER },
	};
	size_t got;
	int err = receive(channel, iov, ARRAY_SIZE(iov), &got);
	size_t part;

	part = min(got, iov[0].iov_len);
	channel->payload_have += part;
	got -= part;
	part = min(got, iov[1].iov_len);
	channel->data_have += part;
	got -= part;
	channel->header_have = got;
	return err;
}

/* What was queued meanwhile goes once it is done. */
static int shake_hands(struct channel *channel)
{
	int err = tls_handshake(channel->tls);

	if (!err)
		channel_flush(channel);
	return err ? err : 1;
}

static size_t payload_missing(const struct channel *channel)
{
	return channel->payload_size - channel->payload_have + channel->data_size -
	       channel->data_have;
}

int channel_receive(struct channel *channel, char *error)
{
	int err = 1;

	if (channel_shakes_hands(channel))
		err = shake_hands(channel);
	if (err == 1 && !channel->magic_seen)
		err = receive_magic(channel, error);
	if (err == 1 && !channel->in_payload) {
		if (channel->header_have < FRAME_HEADER)
			err = receive_into(channel, channel->header, &channel->header_have,
					   FRAME_HEADER);
		if (err == 1) {
			err = begin_payload(channel, error);
			if (err)
				return err;
			err = 1;
		}
	}
	if (err == 1 && payload_missing(channel))
		err = receive_payload(channel);
	if (err == 1 || err == -EAGAIN)
		want_bytes(channel, channel->in_payload ? max(payload_missing(channel), (size_t)1) : 1);
	if (err == 1) {
		if (payload_missing(channel))
			return -EAGAIN;
		channel->in_payload = false;
	} else if (err == -EBADMSG) {
		snprintf(error, CODEC_ERROR_MAX, "%s", tls_why(channel->tls));
		err = -EPROTO;
	} else if (err != -EAGAIN && err != -EPROTO) {
		snprintf(error, CODEC_ERROR_MAX, "%s",
			 err ? strerror(-err) : "the peer closed the connection");
	}
	return err;
}

bool channel_has_frame(const struct channel *channel)
{
	/* length is the last of the first 8 bytes: only an empty payload counts */
	return !channel->in_payload && channel->header_have == FRAME_HEADER &&
	       !(channel->header[4] | channel->header[5] | channel->header[6] |
		 channel->header[7]);
}

bool channel_shakes_hands(const struct channel *channel)
{
	return channel->tls && !tls_is_up(channel->tls);
}

bool channel_has_more(const struct channel *channel)
{
	return channel->tls && tls_has_more(channel->tls);
}

size_t channel_queued(const struct channel *channel)
{
	return channel->out_used - channel->out_start;
}

bool channel_busy(const struct channel *channel)
{
	return channel_queued(channel) || channel->iov_next < channel->iov_count;
}

uint64_t channel_under_way(struct channel *channel)
{
	int bytes = 0;

	/* Nothing was sent since there was nothing? Then the kernel need not be asked. */
	if (channel->under_way) {
		ioctl(channel->watch.fd, SIOCOUTQ, &bytes);
		channel->under_way = (uint64_t)bytes;
	}
	return channel->under_way;
}

bool channel_wants_write(const struct channel *channel)
{
	return channel_shakes_hands(channel) ? tls_wants_write(channel->tls) :
					       channel_busy(channel);
}

static ssize_t transmit_plain(struct channel *channel, struct iovec *iov, size_t count)
{
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n;

	do {
		n = sendmsg(channel->watch.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return n;
}

static ssize_t transmit(struct channel *channel, struct iovec *iov, size_t count)
{
	ssize_t n = channel->tls ? tls_send(channel->tls, iov, count) :
				   transmit_plain(channel, iov, count);

	if (n > 0) {
		*channel->bytes += (size_t)n;
		channel->under_way += (size_t)n;
	}
	return n;
}

static void advance(struct channel *channel, size_t sent)
{
	while (sent) {
		struct iovec *iov = &channel->iov[channel->iov_next];
		size_t part = min(sent, iov->iov_len);

		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		sent -= part;
		if (!iov->iov_len)
			channel->iov_next++;
	}
}

int channel_flush(struct channel *channel)
{
	if (channel_shakes_hands(channel))
		return -EAGAIN;
	while (channel_queued(channel)) {
		struct iovec iov = { channel->out + channel->out_start, channel_queued(channel) };
		ssize_t n = transmit(channel, &iov, 1);

		if (n < 0)
			return (int)n;
		channel->out_start += (size_t)n;
	}
	while (channel->iov_next < channel->iov_count) {
		ssize_t n = transmit(channel, channel->iov + channel->iov_next,
				     channel->iov_count - channel->iov_next);

		if (n < 0)
			return (int)n;
		advance(channel, (size_t)n);
	}
	return 0;
}

int channel_send(struct channel *channel, const struct frame *frame, const void *payload)
{
	uint8_t header[FRAME_HEADER];
	int err;

	if (channel_queued(channel) + FRAME_HEADER + frame->length > CHANNEL_OUT_MAX)
		return -ENOBUFS;
	frame_encode(header, frame);
	err = append(channel, header, sizeof(header));
	if (!err)
		err = append(channel, payload, frame->length);
	if (!err)
		err = channel_flush(channel);
	return err == -EAGAIN ? 0 : err;
}

int channel_say(struct channel *channel, enum frame_type type, uint16_t flags)
{
	struct frame frame = { .type = type, .flags = flags };

	return channel_send(channel, &frame, NULL);
}

int channel_send_pages(struct channel *channel, const struct iovec *iov, unsigned int count)
{
	int err;

	memcpy(channel->iov, iov, count * sizeof(*iov));
	channel->iov_next = 0;
	channel->iov_count = count;
	err = channel_flush(channel);
	return err == -EAGAIN ? 0 : err;
}
