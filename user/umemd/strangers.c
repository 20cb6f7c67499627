// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/strangers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"

#define GOODBYE_NS	(2 * NSEC_PER_SEC)	/* for a REFUSE to be read */
#define TOLD_MAX	16			/* messages in */
#define TOLD_NS		(10 * NSEC_PER_SEC)

void strangers_init(struct strangers *strangers, struct loop *loop, struct launcher *launcher,
		    void (*introduced)(void *owner, struct stranger *stranger), void *owner)
{
	*strangers = (struct strangers){
		.loop = loop,
		.launcher = launcher,
		.introduced = introduced,
		.owner = owner,
		.listening = { .fd = -1 },
		.listener = { .fd = -1 },
	};
}

/* A flood is not to fill the log. */
static void tell(struct stranger *stranger, const char *text)
{
	struct strangers *strangers = stranger->strangers;

	if (strangers->told == TOLD_MAX) {
		strangers->untold++;
		return;
	}
	strangers->told++;
	launcher_message(strangers->launcher, "refused", "%s: %s", stranger->channel->peer, text);
}

static void tell_rest(struct strangers *strangers, uint64_t now)
{
	if (now - strangers->told_since_ns < TOLD_NS)
		return;
	if (strangers->untold)
		launcher_message(strangers->launcher, "refused", "%u more connections were sent away within %llu seconds",
				 strangers->untold, TOLD_NS / NSEC_PER_SEC);
	strangers->told_since_ns = now;
	strangers->told = strangers->untold = 0;
}

void strangers_dismiss(struct stranger *stranger)
{
	channel_free(stranger->strangers->loop, stranger->channel);
	stranger->channel = NULL;
}

/* It was told no. Closing right away could take the words back from the peer's buffer. */
static void see_off(struct stranger *stranger)
{
	shutdown(stranger->channel->watch.fd, SHUT_WR);
	stranger->refused = true;
	stranger->deadline_ns = now_ns() + GOODBYE_NS;
}

void strangers_refuse(struct stranger *stranger, enum refuse_code code, const char *text)
{
	struct frame frame = {
		.type = FRAME_REFUSE,
		.length = (uint32_t)strnlen(text, TEXT_MAX),
		.count = code,
	};

	tell(stranger, text);
	if (channel_send(stranger->channel, &frame, text))
		strangers_dismiss(stranger);
	else
		see_off(stranger);
}

struct channel *strangers_release(struct stranger *stranger)
{
	struct channel *channel = stranger->channel;

	stranger->channel = NULL;
	return channel;
}

bool strangers_any(const struct strangers *strangers)
{
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (strangers->places[i].channel)
			return true;
	}
	return false;
}

/* What comes. */

static int admit(struct channel *channel, const struct frame *frame, char *error)
{
	(void)channel;
	if (frame->type == FRAME_HELLO || frame->type == FRAME_JOIN || frame->type == FRAME_RESUME)
		return 0;
	return wrong(error, "frame %s came first, wanted HELLO, JOIN or RESUME",
		     frame_name(frame->type));
}

/* Reads and forgets what a refused peer still sends, until it closes. */
static void drain(struct stranger *stranger)
{
	uint8_t buffer[4096];
	ssize_t n = read(stranger->channel->watch.fd, buffer, sizeof(buffer));

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		strangers_dismiss(stranger);
}

static void ready(void *owner, uint32_t events)
{
	struct channel *channel = owner;
	struct stranger *stranger = channel->owner;
	struct strangers *strangers = stranger->strangers;
	char error[CODEC_ERROR_MAX];
	int err;

	if (stranger->refused) {
		drain(stranger);
		return;
	}
	/* What that computes takes a while: many of them shall not hold up a session. */
	if (channel_shakes_hands(channel)) {
		if (strangers->shook_hands)
			return;
		strangers->shook_hands = true;
	}
	if (events & EPOLLOUT)
		channel_flush(channel);
	err = channel_receive(channel, error);
	if (err == -EAGAIN)
		return;
	if (err == 1) {
		strangers->introduced(strangers->owner, stranger);
		return;
	}
	/* A umem peer is told; others would not understand. */
	if (err == -EPROTO && channel->magic_seen) {
		strangers_refuse(stranger, REFUSE_PROTOCOL, error);
		return;
	}
	tell(stranger, error);
	/* What was sent may say why: our magic, or an alert of TLS. */
	if (err == -EPROTO)
		see_off(stranger);
	else
		strangers_dismiss(stranger);
}

/* Who comes. */

static unsigned int crowd(const struct strangers *strangers, uint64_t origin)
{
	unsigned int count = 0;

	for (int i = 0; i < STRANGERS_MAX; i++)
		count += strangers->places[i].channel && strangers->places[i].origin == origin;
	return count;
}

/* Who was refused first, then the oldest of those who have most places of all. */
static struct stranger *who_gives_way(struct strangers *strangers)
{
	struct stranger *chosen = NULL;
	unsigned int most = 0;

	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &strangers->places[i];
		unsigned int count;

		if (!stranger->channel)
			continue;
		count = stranger->refused ? STRANGERS_MAX + 1 :
					    crowd(strangers, stranger->origin);
		if (count > most ||
		    (count == most && stranger->deadline_ns < chosen->deadline_ns)) {
			chosen = stranger;
			most = count;
		}
	}
	return chosen;
}

static struct stranger *make_room(struct strangers *strangers)
{
	struct stranger *stranger = who_gives_way(strangers);

	if (stranger) {
		if (!stranger->refused)
			tell(stranger, "it was sent away to make room for another");
		strangers_dismiss(stranger);
	}
	return stranger;
}

static struct stranger *place(struct strangers *strangers)
{
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (!strangers->places[i].channel)
			return &strangers->places[i];
	}
	return make_room(strangers);
}

/* Return: NULL: out of memory. */
static struct channel *add(struct strangers *strangers, int fd, const char *peer, uint64_t origin)
{
	struct watch watch = { .priority = PRIORITY_STRANGERS, .ready = ready };
	struct stranger *stranger = place(strangers);

	watch.owner = stranger;
	*stranger = (struct stranger){
		.strangers = strangers,
		.origin = origin,
		.deadline_ns = now_ns() + STRANGERS_NS,
	};
	stranger->channel = channel_new(fd, peer, strangers->credentials, &stranger->bytes,
					&watch, admit);
	if (stranger->channel)
		channel_flush(stranger->channel);
	return stranger->channel;
}

void strangers_add(struct strangers *strangers, int fd, const char *peer, uint64_t origin)
{
	add(strangers, fd, peer, origin);
}

/* Who waits at the door keeps the loop awake: it is closed until there may be room. */
static void go_deaf(struct strangers *strangers, int err)
{
	if (strangers->told < TOLD_MAX) {
		strangers->told++;
		log_warning("nobody is let in for a moment: %s", strerror(-err));
	}
	make_room(strangers);
	strangers->deaf = true;
	loop_want(strangers->loop, &strangers->listener, 0);
}

static void listener_ready(void *owner, uint32_t events)
{
	struct strangers *strangers = owner;
	struct channel *channel;
	char peer[SOCKET_TEXT_MAX];
	uint64_t origin;
	int fd, err;

	(void)events;
	err = socket_accept(strangers->listener.fd, &fd, peer, &origin);
	if (!err) {
		/*
		 * Who means it speaks at once, often before it is let in. To hear it now
		 * leaves a flood no time to displace it. A handshake is not over at once, and
		 * takes turns.
		 */
		channel = add(strangers, fd, peer, origin);
		if (channel && !channel_shakes_hands(channel))
			ready(channel, EPOLLIN);
	} else if (err == -EMFILE || err == -ENFILE || err == -ENOBUFS || err == -ENOMEM) {
		go_deaf(strangers, err);
	} else if (err != -EAGAIN) {
		/* Of the network, and of this connection only. */
		log_debug("accept: %s", strerror(-err));
	}
}

int strangers_take_listener(struct strangers *strangers, int fd, char *error)
{
	int err;

	strangers->listening.fd = fd;
	strangers->listener = (struct watch){
		.fd = strangers->listening.fd,
		.events = EPOLLIN,
		.priority = PRIORITY_STRANGERS,
		.ready = listener_ready,
		.owner = strangers,
	};
	err = loop_add(strangers->loop, &strangers->listener);
	if (err)
		snprintf(error, SOCKET_ERROR_MAX, "epoll: %s", strerror(-err));
	return err;
}

int strangers_listen(struct strangers *strangers, const struct uri *uri,
		     char actual[URI_TEXT_MAX], char *error)
{
	int err = socket_listen(uri, &strangers->listening, actual, error);

	return err ? err : strangers_take_listener(strangers, strangers->listening.fd, error);
}

/* Time. */

static void out_of_time(struct stranger *stranger)
{
	struct channel *channel = stranger->channel;
	char error[CODEC_ERROR_MAX];

	snprintf(error, sizeof(error), "it did not introduce itself within %llu seconds",
		 STRANGERS_NS / NSEC_PER_SEC);
	if (channel_shakes_hands(channel))
		snprintf(error, sizeof(error), "it did not make the handshake of TLS within %llu seconds",
			 STRANGERS_NS / NSEC_PER_SEC);
	else if (!channel->magic_seen)
		magic_check(channel->magic, channel->magic_have, MAGIC, error);
	tell(stranger, error);
}

void strangers_tick(struct strangers *strangers, uint64_t now)
{
	tell_rest(strangers, now);
	if (strangers->deaf)
		loop_want(strangers->loop, &strangers->listener, EPOLLIN);
	strangers->deaf = false;
	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct stranger *stranger = &strangers->places[i];

		if (!stranger->channel || now < stranger->deadline_ns)
			continue;
		if (!stranger->refused)
			out_of_time(stranger);
		strangers_dismiss(stranger);
	}
}

void strangers_set_wants(struct strangers *strangers)
{
	strangers->shook_hands = false;
	for (int i = 0; i < STRANGERS_MAX; i++) {
		struct channel *channel = strangers->places[i].channel;

		if (channel)
			loop_want(strangers->loop, &channel->watch,
				  EPOLLIN | (channel_wants_write(channel) ? EPOLLOUT : 0));
	}
}

void strangers_destroy(struct strangers *strangers)
{
	for (int i = 0; i < STRANGERS_MAX; i++) {
		if (strangers->places[i].channel)
			strangers_dismiss(&strangers->places[i]);
	}
	loop_remove(strangers->loop, &strangers->listener);
	socket_unlisten(&strangers->listening);
}
