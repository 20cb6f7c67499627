// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/side.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "umemd/socket.h"

#define TICK_MS		100
#define PING_PERIOD_NS	(5 * NSEC_PER_SEC)
#define SILENCE_NS	(30 * NSEC_PER_SEC)
#define EXPLAIN_NS	(300 * NSEC_PER_MSEC)	/* for control to say why the rest ended */

/* The end. */

void side_finish(struct side *side, int exit_status)
{
	if (side->done)
		return;
	side->done = true;
	side->loop.stopped = true;
	side->exit_status = exit_status;
}

void side_drop(struct side *side, struct channel *channel)
{
	enum channel_kind kind = channel->kind;

	side->channels[kind][channel->index] = NULL;
	channel_free(&side->loop, channel);
	while (side->nr[kind] && !side->channels[kind][side->nr[kind] - 1])
		side->nr[kind]--;
}

void side_close_channels(struct side *side)
{
	struct channel *channel;

	for (int kind = 0; kind < SIDE_KINDS; kind++) {
		side_for_each(side, kind, channel)
			side_drop(side, channel);
	}
	side->lost_ns = 0;
}

void side_fail(struct side *side, const char *format, ...)
{
	struct channel *control = side_control(side);
	char text[TEXT_MAX];
	va_list args;

	if (side->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (control && side->session.state >= SESSION_PREPARE) {
		struct frame frame = { .type = FRAME_ERROR, .length = (uint32_t)strlen(text) };

		channel_send(control, &frame, text);
	}
	launcher_message(&side->launcher, "error", "%s", text);
	side_close_channels(side);
	side_finish(side, 1);
}

static void say_paused(struct side *side, const char *why, const char *next)
{
	char text[sizeof(side->lost_why) + 128];

	side->paused_told = true;
	snprintf(text, sizeof(text), "%s; %s", why, next);
	log_warning("%s", text);
	launcher_send(&side->launcher, json_pack("{s:s,s:s,s:s}", "event", "state",
						 "state", "paused", "message", text));
}

void side_lost(struct side *side, const char *format, ...)
{
	enum session_state before = side->session.state;
	char text[sizeof(side->lost_why)], error[CODEC_ERROR_MAX];
	const char *next;
	va_list args;

	if (side->done)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	if (session_event(&side->session, EVENT_LOST, error)) {
		side->role->over(side->owner, text);
		return;
	}
	side_close_channels(side);
	next = side->role->paused(side->owner);
	/* Of several attempts to connect the first is told. */
	if (next && (before != SESSION_PAUSED || !side->paused_told))
		say_paused(side, text, next);
	else
		log_debug("%s", text);
}

/*
 * When the other side gives up it says so on control and closes all channels:
 * what is said may come after another channel's end.
 */
static void wait_for_explanation(struct side *side, const struct channel *channel, const char *why)
{
	if (side->lost_ns)
		return;
	if (side->stream && stream_broken(side->stream))
		why = stream_broken(side->stream);
	snprintf(side->lost_why, sizeof(side->lost_why), "connection to %s lost on the %s channel: %s",
		 side->name, channel_name(channel->kind), why);
	side->lost_ns = now_ns() + EXPLAIN_NS;
}

/* Nothing comes on it any more. */
static void channel_ended(struct side *side, struct channel *channel, const char *why)
{
	if (channel->end == CHANNEL_HEARD_LEAVE) {
		side_drop(side, channel);
		return;
	}
	wait_for_explanation(side, channel, why);
	if (channel->kind == CHANNEL_CONTROL)
		side_lost(side, "%s", side->lost_why);
	else
		side_drop(side, channel);
}

/* What goes out. */

struct channel *side_control(const struct side *side)
{
	struct channel *control = side->channels[CHANNEL_CONTROL][0];

	return control && !control->connecting ? control : NULL;
}

bool side_is_joined(const struct side *side)
{
	for (int kind = CHANNEL_URGENT; kind < SIDE_KINDS; kind++) {
		const struct channel *first = side->channels[kind][0];

		if (!first || first->connecting)
			return false;
	}
	return true;
}

static uint64_t load(struct channel *channel)
{
	return channel_queued(channel) + channel_under_way(channel);
}

struct channel *side_idlest(const struct side *side, enum channel_kind kind, bool idle)
{
	struct channel *channel, *idlest = NULL;

	side_for_each(side, kind, channel) {
		if (channel->connecting || channel->held || channel->end ||
		    (idle && channel_busy(channel)))
			continue;
		if (!idlest || load(channel) < load(idlest))
			idlest = channel;
	}
	return idlest;
}

bool side_sent(struct side *side, struct channel *channel, int err)
{
	if (!err)
		return true;
	/* Control may have come to its end with the explanation on it, not read yet. */
	if (channel->kind == CHANNEL_CONTROL && err != -ENOBUFS)
		wait_for_explanation(side, channel, strerror(-err));
	else
		channel_ended(side, channel, strerror(-err));
	return false;
}

bool side_say(struct side *side, enum frame_type type, uint16_t flags)
{
	struct channel *control = side_control(side);

	return side_sent(side, control, channel_say(control, type, flags));
}

void side_tell_session(struct side *side, const uint32_t *index)
{
	const struct options *options = side->options;
	struct ticket *ticket = calloc(1, sizeof(*ticket));

	if (!ticket) {
		side_fail(side, "out of memory");
		return;
	}
	memcpy(ticket->session, side->session_id, SESSION_SIZE);
	ticket->features = side->features;
	ticket->nr_regions = options->nr_regions;
	for (uint32_t i = 0; i < options->nr_regions; i++)
		strcpy(ticket->names[i], options->regions[index ? index[i] : i].name);
	launcher_send(&side->launcher, json_pack("{s:s, s:o}", "event", "session",
						 "session", ticket_encode(ticket)));
	free(ticket);
}

int side_go_on(struct side *side, uint32_t *index, bool *run, char *error)
{
	const struct options *options = side->options;
	struct ticket *ticket = calloc(1, sizeof(*ticket));
	int err = -ENOMEM;

	if (!ticket)
		wrong(error, "out of memory");
	else
		err = ticket_read(ticket, options->resume_fd, error);
	if (!err)
		err = ticket_match(ticket, options->regions, options->nr_regions, index, error);
	if (!err) {
		memcpy(side->session_id, ticket->session, SESSION_SIZE);
		side->features = ticket->features;
		session_go_on(&side->session, ticket->gone);
		progress_start(&side->progress, now_ns());
		*run = ticket->run;
	}
	free(ticket);
	return err;
}

void side_progress(struct side *side)
{
	for (int kind = 0; kind < SIDE_KINDS; kind++) {
		struct channel *channel;

		side->progress.channels[kind] = 0;
		side_for_each(side, kind, channel)
			side->progress.channels[kind] += !channel->connecting && !channel->end;
	}
	side->role->count(side->owner);
	launcher_send(&side->launcher,
		      progress_event(&side->progress, side->role->role,
				     session_state_name(side->session.state), now_ns()));
}

/* What comes in. */

/* The source says it when it wants the channel no more; the destination has the last word. */
static void take_leave(struct side *side, struct channel *channel)
{
	if (channel->end == CHANNEL_SAID_LEAVE) {
		side_drop(side, channel);
	} else if (side->role->role == ROLE_SOURCE || !channel->index) {
		side_lost(side, "%s: frame LEAVE came on %s channel %u, which is to stay",
			  side->name, channel_name(channel->kind), channel->index);
	} else {
		channel->end = CHANNEL_HEARD_LEAVE;
		side_sent(side, channel, channel_say(channel, FRAME_LEAVE, 0));
	}
}

static void take_frame(struct side *side, struct channel *channel)
{
	char error[CODEC_ERROR_MAX], text[TEXT_MAX + 1];

	if (session_frame(&side->session, channel->kind, &channel->frame, error)) {
		side_lost(side, "%s: %s", side->name, error);
	} else if (channel->frame.type == FRAME_ERROR) {
		text_decode(text, channel->payload, channel->frame.length);
		side_lost(side, "%s failed: %s", side->name, text);
	} else if (channel->frame.type == FRAME_LEAVE) {
		take_leave(side, channel);
	} else {
		side->role->take(side->owner, channel);
	}
}

/* Nothing came because of the stream: that has its own reason. */
static bool stream_failed(const struct side *side, const struct channel *channel)
{
	return side->stream && stream_broken(side->stream) && !channel->magic_seen;
}

static bool may_receive(const struct side *side, const struct channel *channel)
{
	return channel && !channel->connecting && !side->done &&
	       side->role->may_receive(side->owner, channel);
}

void side_receive(struct side *side, enum channel_kind kind, unsigned int index)
{
	while (may_receive(side, side->channels[kind][index])) {
		struct channel *channel = side->channels[kind][index];
		char error[CODEC_ERROR_MAX];
		int err = channel_receive(channel, error);

		if (err == -EAGAIN)
			return;
		if (err != 1) {
			if (err == -EPROTO && !stream_failed(side, channel))
				side_lost(side, "%s: %s", side->name, error);
			else
				channel_ended(side, channel, error);
			return;
		}
		take_frame(side, channel);
		/* One frame of bulk a turn, and what no poll would tell of. */
		if (kind == CHANNEL_BULK && side->channels[kind][index] == channel &&
		    !channel_has_frame(channel))
			return;
	}
}

static void channel_ready(void *owner, uint32_t events)
{
	struct channel *channel = owner;
	struct side *side = channel->owner;
	enum channel_kind kind = channel->kind;
	unsigned int index = channel->index;
	int err;

	if (channel->connecting) {
		side->role->connected(side->owner, channel);
		return;
	}
	if (events & EPOLLOUT) {
		err = channel_flush(channel);
		if (err != -EAGAIN && !side_sent(side, channel, err) &&
		    side->channels[kind][index] != channel)
			return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) || channel_shakes_hands(channel))
		side_receive(side, kind, index);
}

static int admit(struct channel *channel, const struct frame *frame, char *error)
{
	const struct side *side = channel->owner;
	int err = 0;

	if (channel->end == CHANNEL_HEARD_LEAVE)
		return wrong(error, "frame %s came after LEAVE", frame_name(frame->type));
	if (side->role->admits)
		err = side->role->admits(side->owner, channel, frame, error);
	return err ? err : session_admits(&side->session, channel->kind, frame, error);
}

void side_add(struct side *side, struct channel *channel, enum channel_kind kind,
	      unsigned int index, uint64_t bytes)
{
	static const enum loop_priority priorities[SIDE_KINDS] = {
		[CHANNEL_CONTROL] = PRIORITY_CONTROL,
		[CHANNEL_URGENT] = PRIORITY_URGENT,
		[CHANNEL_BULK] = PRIORITY_BULK,
	};

	loop_remove(&side->loop, &channel->watch);
	channel->kind = kind;
	channel->index = index;
	channel->owner = side;
	channel->watch.priority = priorities[kind];
	channel->watch.ready = channel_ready;
	channel->admit = admit;
	channel->bytes = &side->progress.bytes[kind];
	*channel->bytes += bytes;
	side->channels[kind][index] = channel;
	side->nr[kind] = max(side->nr[kind], index + 1);
}

void side_warn_if_plain(struct side *side, const struct channel *channel)
{
	struct socket_address peer;

	if (side->warned || side->credentials || side->stream ||
	    socket_peer(channel->watch.fd, &peer) || !socket_is_remote(&peer))
		return;
	side->warned = true;
	log_warning("pages and device state travel unencrypted between here and %s, and neither side proves who it is: set tls-creds at both, or use a network that nobody else is on",
		    channel->peer);
}

/* The launcher. */

static void command(void *owner, const char *name, json_t *object)
{
	struct side *side = owner;

	if (side->done)
		return;
	if (strcmp(name, "stop")) {
		side->role->command(side->owner, name, object);
	} else if (!side->session.gone) {
		log_warning("command stop before GO: wanted cancel, or fail");
	} else {	/* another goes on with the session */
		side_progress(side);
		side_finish(side, 0);
	}
}

static void launcher_lost(void *owner)
{
	struct side *side = owner;

	if (side->session.gone)
		log_warning("the launcher is gone; going on without it");
	else
		side_fail(side, "the launcher is gone");
}

/* Time, and the turns of the loop. */

static void check_control(struct side *side, uint64_t now)
{
	struct channel *control = side_control(side);

	if (side->lost_ns && now >= side->lost_ns) {
		side_lost(side, "%s", side->lost_why);
		return;
	}
	if (!control || side->session.state < SESSION_PREPARE)
		return;
	if (now - control->heard_ns >= SILENCE_NS) {
		side_lost(side, "nothing came from %s for %llu seconds", side->name,
			  SILENCE_NS / NSEC_PER_SEC);
		return;
	}
	if (now - side->ping_ns >= PING_PERIOD_NS) {
		int err = channel_say(control, FRAME_PING, 0);

		side->ping_ns = now;
		if (err != -ENOBUFS)
			side_sent(side, control, err);
	}
}

static void tick(struct side *side, uint64_t now)
{
	side->role->tick(side->owner, now);
	if (!side->done)
		check_control(side, now);
	if (!side->done && progress_due(&side->progress, now))
		side_progress(side);
}

/* What each connection is watched for follows from what it could do now. */
static uint32_t wants(const struct side *side, const struct channel *channel)
{
	uint32_t events = 0;

	if (channel->connecting)
		return EPOLLOUT;
	if (may_receive(side, channel))
		events |= EPOLLIN;
	if (channel_wants_write(channel) ||
	    (side->role->has_more && side->role->has_more(side->owner, channel)))
		events |= EPOLLOUT;
	return events;
}

static void set_wants(struct side *side)
{
	struct channel *channel;

	for (int kind = 0; kind < SIDE_KINDS; kind++) {
		side_for_each(side, kind, channel)
			loop_want(&side->loop, &channel->watch, wants(side, channel));
	}
	side->role->set_wants(side->owner);
}

/* What TLS has decrypted and holds, no poll tells of. */
static bool has_more(const struct side *side, const struct channel *channel)
{
	return may_receive(side, channel) && channel_has_more(channel);
}

static bool any_has_more(const struct side *side)
{
	struct channel *channel;

	for (int kind = 0; side_channel_credentials(side) && kind < SIDE_KINDS; kind++) {
		side_for_each(side, kind, channel) {
			if (has_more(side, channel))
				return true;
		}
	}
	return false;
}

static void receive_more(struct side *side)
{
	static const enum channel_kind order[] = { CHANNEL_URGENT, CHANNEL_CONTROL, CHANNEL_BULK };
	struct channel *channel;

	for (size_t i = 0; side_channel_credentials(side) && i < ARRAY_SIZE(order); i++) {
		side_for_each(side, order[i], channel) {
			if (has_more(side, channel))
				side_receive(side, order[i], channel->index);
		}
	}
}

void side_run(struct side *side)
{
	uint64_t next_tick = 0;

	while (!side->done) {
		uint64_t now = now_ns(), wait;
		int err;

		if (now >= next_tick) {
			next_tick = now + TICK_MS * NSEC_PER_MSEC;
			tick(side, now);
			continue;
		}
		side->role->turn(side->owner);
		if (side->done)
			break;
		set_wants(side);
		if (side->stream)
			stream_turn(side->stream);
		wait = min(side->role->wait_ns(side->owner), next_tick - now);
		err = loop_turn(&side->loop, any_has_more(side) ? 0 : wait);
		if (err)
			side_fail(side, "epoll: %s", strerror(-err));
		receive_more(side);
	}
}

/* Beginning and end. */

int side_init(struct side *side, const struct side_role *role, void *owner,
	      const struct options *options)
{
	int err;

	side->options = options;
	side->role = role;
	side->owner = owner;
	side->state.fd = -1;
	side->launcher.command = command;
	side->launcher.lost = launcher_lost;
	side->launcher.owner = side;
	session_init(&side->session, role->role);
	err = loop_init(&side->loop);
	if (err)
		return err;
	err = launcher_init(&side->launcher, &side->loop, options->control_fd);
	if (err)
		loop_destroy(&side->loop);
	return err;
}

int side_load_credentials(struct side *side, char *error)
{
	const struct options *options = side->options;
	struct credentials_setup setup = options->tls;

	if (setup.kind == CREDENTIALS_NONE)
		return 0;
	if (!setup.hostname && options->uri.kind == URI_TCP && options->uri.host[0])
		setup.hostname = options->uri.host;
	side->credentials = credentials_load(&setup, side->role->role == ROLE_DESTINATION, error);
	return side->credentials ? 0 : -EINVAL;
}

int side_open_state(struct side *side, void (*ready)(void *owner, uint32_t events), char *error)
{
	int fd = side->options->state_fd;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		snprintf(error, CODEC_ERROR_MAX, "--state-fd %d: %s", fd, strerror(errno));
		return -EBADF;
	}
	side->state = (struct watch){
		.fd = fd,
		.priority = PRIORITY_CONTROL,
		.ready = ready,
		.owner = side->owner,
	};
	return 0;
}

void side_close_state(struct side *side)
{
	loop_remove(&side->loop, &side->state);
	close(side->state.fd);
	side->state.fd = -1;
}

int side_check_region(const struct side *side, uint32_t index, char *error)
{
	const struct hello_region *region = &side->options->regions[index];
	int fd = side->options->region_fds[index];
	off_t size = lseek(fd, 0, SEEK_END);

	if (size >= 0 && (uint64_t)size == region->length)
		return 0;
	snprintf(error, CODEC_ERROR_MAX, "region \"%s\": descriptor %d has %lld bytes, wanted %llu",
		 region->name, fd, (long long)size, (unsigned long long)region->length);
	return -EINVAL;
}

void side_destroy(struct side *side)
{
	side_close_channels(side);
	stream_close(side->stream);
	credentials_free(side->credentials);
	launcher_finish(&side->launcher);
	loop_destroy(&side->loop);
}
