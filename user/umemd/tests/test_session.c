// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/session.h"

#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"

static char error[CODEC_ERROR_MAX];

static void happens(struct session *session, enum session_event event, enum session_state wanted)
{
	error[0] = '\0';
	if (session_event(session, event, error))
		fail_msg("event %d: %s", event, error);
	assert_string_equal(session_state_name(session->state), session_state_name(wanted));
}

static void comes(struct session *session, enum channel_kind kind, enum frame_type type,
		  enum session_state wanted)
{
	struct frame frame = { .type = type };

	error[0] = '\0';
	if (session_frame(session, kind, &frame, error))
		fail_msg("%s: %s", frame_name(type), error);
	assert_string_equal(session_state_name(session->state), session_state_name(wanted));
}

static struct session source_running(void)
{
	struct session session;

	session_init(&session, ROLE_SOURCE);
	happens(&session, EVENT_CONNECTED, SESSION_HELLO);
	comes(&session, CHANNEL_CONTROL, FRAME_HELLO_ACK, SESSION_PREPARE);
	comes(&session, CHANNEL_CONTROL, FRAME_PREPARED, SESSION_ADVISE);
	happens(&session, EVENT_STOPPED, SESSION_ADVISE);
	happens(&session, EVENT_STATE_END, SESSION_LISTEN);
	comes(&session, CHANNEL_CONTROL, FRAME_READY, SESSION_READY);
	assert_false(session.gone);
	happens(&session, EVENT_GO, SESSION_RUNNING);
	assert_true(session.gone);
	return session;
}

static struct session one_that_goes_on(enum session_role role, bool gone)
{
	struct session session;

	session_init(&session, role);
	session_go_on(&session, gone);
	return session;
}

static void test_session_goes_on_with_another_umemd(void **state)
{
	struct session source = one_that_goes_on(ROLE_SOURCE, true);
	struct session destination = one_that_goes_on(ROLE_DESTINATION, false);

	(void)state;
	happens(&source, EVENT_CONNECTED, SESSION_RESUME);
	comes(&source, CHANNEL_CONTROL, FRAME_BITMAP, SESSION_RESUME);
	comes(&source, CHANNEL_CONTROL, FRAME_PREPARED, SESSION_RUNNING);
	happens(&source, EVENT_LOST, SESSION_PAUSED);

	happens(&destination, EVENT_LOST, SESSION_PAUSED);
	assert_false(destination.gone);
	comes(&destination, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	assert_true(destination.gone);
	happens(&destination, EVENT_PREPARED, SESSION_RUNNING);

	/* The last pages may become present without the source. */
	destination = one_that_goes_on(ROLE_DESTINATION, true);
	happens(&destination, EVENT_COMPLETE, SESSION_END);
	comes(&destination, CHANNEL_CONTROL, FRAME_RESUME, SESSION_END);
}

static struct session destination_ready(void)
{
	struct session session;

	session_init(&session, ROLE_DESTINATION);
	comes(&session, CHANNEL_CONTROL, FRAME_HELLO, SESSION_PREPARE);
	happens(&session, EVENT_PREPARED, SESSION_ADVISE);
	comes(&session, CHANNEL_CONTROL, FRAME_STATE, SESSION_ADVISE);
	comes(&session, CHANNEL_BULK, FRAME_PAGES, SESSION_ADVISE);
	comes(&session, CHANNEL_CONTROL, FRAME_STATE_END, SESSION_LISTEN);
	happens(&session, EVENT_READY, SESSION_READY);
	assert_false(session.gone);
	return session;
}

static struct session destination_running(void)
{
	struct session session = destination_ready();

	comes(&session, CHANNEL_CONTROL, FRAME_GO, SESSION_RUNNING);
	assert_true(session.gone);
	return session;
}

static void test_source_from_start_to_end(void **state)
{
	struct session session = source_running();

	(void)state;
	comes(&session, CHANNEL_URGENT, FRAME_REQUEST, SESSION_RUNNING);
	comes(&session, CHANNEL_CONTROL, FRAME_END, SESSION_END);
}

static void test_destination_from_start_to_end(void **state)
{
	struct session session = destination_running();

	(void)state;
	comes(&session, CHANNEL_URGENT, FRAME_PAGES, SESSION_RUNNING);
	comes(&session, CHANNEL_BULK, FRAME_ALL_SENT, SESSION_RUNNING);
	happens(&session, EVENT_COMPLETE, SESSION_END);
	comes(&session, CHANNEL_CONTROL, FRAME_END, SESSION_END);
}

static void test_lost_after_go_is_resumed(void **state)
{
	struct session source = source_running(), destination = destination_running();

	(void)state;
	happens(&source, EVENT_LOST, SESSION_PAUSED);
	happens(&source, EVENT_LOST, SESSION_PAUSED);	/* an attempt that failed */
	happens(&source, EVENT_CONNECTED, SESSION_RESUME);
	comes(&source, CHANNEL_CONTROL, FRAME_BITMAP, SESSION_RESUME);
	comes(&source, CHANNEL_URGENT, FRAME_REQUEST, SESSION_RESUME);
	comes(&source, CHANNEL_CONTROL, FRAME_PREPARED, SESSION_RUNNING);
	happens(&source, EVENT_LOST, SESSION_PAUSED);
	happens(&source, EVENT_CONNECTED, SESSION_RESUME);
	happens(&source, EVENT_LOST, SESSION_PAUSED);

	happens(&destination, EVENT_LOST, SESSION_PAUSED);
	comes(&destination, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	happens(&destination, EVENT_PREPARED, SESSION_RUNNING);
	/* The source noticed first. */
	comes(&destination, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	comes(&destination, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	happens(&destination, EVENT_LOST, SESSION_PAUSED);
	assert_true(source.gone && destination.gone);
}

static void test_lost_before_go_is_the_end(void **state)
{
	struct session session;

	(void)state;
	session_init(&session, ROLE_SOURCE);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	happens(&session, EVENT_CONNECTED, SESSION_HELLO);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	comes(&session, CHANNEL_CONTROL, FRAME_HELLO_ACK, SESSION_PREPARE);
	comes(&session, CHANNEL_CONTROL, FRAME_PREPARED, SESSION_ADVISE);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	happens(&session, EVENT_STATE_END, SESSION_LISTEN);
	comes(&session, CHANNEL_CONTROL, FRAME_READY, SESSION_READY);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	assert_int_equal(session.state, SESSION_READY);

	session_init(&session, ROLE_DESTINATION);
	comes(&session, CHANNEL_CONTROL, FRAME_HELLO, SESSION_PREPARE);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	happens(&session, EVENT_PREPARED, SESSION_ADVISE);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
	comes(&session, CHANNEL_CONTROL, FRAME_STATE_END, SESSION_LISTEN);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
}

/* READY was said: whether GO was lost with the connection only the source knows. */
static void test_a_ready_destination_waits_for_the_verdict(void **state)
{
	struct session session = destination_ready();

	(void)state;
	happens(&session, EVENT_LOST, SESSION_PAUSED);
	assert_false(session.gone);
	happens(&session, EVENT_LOST, SESSION_PAUSED);
	comes(&session, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	assert_true(session.gone);
	happens(&session, EVENT_PREPARED, SESSION_RUNNING);
}

static void test_a_ready_destination_believes_cancel(void **state)
{
	struct session session = destination_ready();

	(void)state;
	comes(&session, CHANNEL_CONTROL, FRAME_CANCEL, SESSION_READY);
	assert_int_equal(session_event(&session, EVENT_LOST, error), -ENOTCONN);
}

static void test_end_survives_a_lost_connection(void **state)
{
	struct session session = destination_running();

	(void)state;
	happens(&session, EVENT_COMPLETE, SESSION_END);
	happens(&session, EVENT_LOST, SESSION_END);
	comes(&session, CHANNEL_CONTROL, FRAME_RESUME, SESSION_END);

	session = source_running();
	happens(&session, EVENT_LOST, SESSION_PAUSED);
	happens(&session, EVENT_CONNECTED, SESSION_RESUME);
	comes(&session, CHANNEL_CONTROL, FRAME_END, SESSION_END);
}

/* Every frame in every state on every channel: what is not listed is refused. */
static void test_nothing_else_is_taken(void **state)
{
#define S(name) (1u << SESSION_##name)
	static const struct {
		enum session_role role;
		enum frame_type type;
		enum channel_kind kind;
		unsigned int states;
	} taken[] = {
		{ ROLE_SOURCE, FRAME_HELLO_ACK, CHANNEL_CONTROL, S(HELLO) },
		{ ROLE_SOURCE, FRAME_REFUSE, CHANNEL_CONTROL,
		  S(HELLO) | S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) },
		{ ROLE_SOURCE, FRAME_REFUSE, CHANNEL_URGENT,
		  S(HELLO) | S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) },
		{ ROLE_SOURCE, FRAME_REFUSE, CHANNEL_BULK,
		  S(HELLO) | S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) },
		{ ROLE_SOURCE, FRAME_PREPARED, CHANNEL_CONTROL, S(PREPARE) | S(RESUME) },
		{ ROLE_SOURCE, FRAME_READY, CHANNEL_CONTROL, S(LISTEN) },
		{ ROLE_SOURCE, FRAME_REQUEST, CHANNEL_URGENT,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_SOURCE, FRAME_END, CHANNEL_CONTROL, S(RUNNING) | S(RESUME) },
		{ ROLE_SOURCE, FRAME_ERROR, CHANNEL_CONTROL,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_SOURCE, FRAME_BITMAP, CHANNEL_CONTROL, S(RESUME) },
		{ ROLE_SOURCE, FRAME_PING, CHANNEL_CONTROL,
		  S(HELLO) | S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) |
		  S(RESUME) | S(END) },
		{ ROLE_SOURCE, FRAME_LEAVE, CHANNEL_URGENT,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_SOURCE, FRAME_LEAVE, CHANNEL_BULK,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_DESTINATION, FRAME_LEAVE, CHANNEL_URGENT,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_DESTINATION, FRAME_LEAVE, CHANNEL_BULK,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_DESTINATION, FRAME_HELLO, CHANNEL_CONTROL, S(NONE) },
		{ ROLE_DESTINATION, FRAME_RESUME, CHANNEL_CONTROL,
		  S(READY) | S(RUNNING) | S(PAUSED) | S(RESUME) | S(END) },
		{ ROLE_DESTINATION, FRAME_STATE, CHANNEL_CONTROL, S(ADVISE) },
		{ ROLE_DESTINATION, FRAME_STATE_END, CHANNEL_CONTROL, S(ADVISE) },
		{ ROLE_DESTINATION, FRAME_SYNC, CHANNEL_BULK, S(ADVISE) | S(LISTEN) },
		{ ROLE_DESTINATION, FRAME_DISCARD, CHANNEL_CONTROL, S(ADVISE) },
		{ ROLE_DESTINATION, FRAME_PUBLISH, CHANNEL_CONTROL, S(ADVISE) },
		{ ROLE_DESTINATION, FRAME_GO, CHANNEL_CONTROL, S(READY) },
		{ ROLE_DESTINATION, FRAME_PAGES, CHANNEL_URGENT,
		  S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(END) },
		{ ROLE_DESTINATION, FRAME_PAGES, CHANNEL_BULK,
		  S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(END) },
		{ ROLE_DESTINATION, FRAME_ALL_SENT, CHANNEL_BULK,
		  S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(END) },
		{ ROLE_DESTINATION, FRAME_END, CHANNEL_CONTROL, S(END) },
		{ ROLE_DESTINATION, FRAME_ERROR, CHANNEL_CONTROL,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
		{ ROLE_DESTINATION, FRAME_CANCEL, CHANNEL_CONTROL,
		  S(HELLO) | S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) },
		{ ROLE_DESTINATION, FRAME_PING, CHANNEL_CONTROL,
		  S(PREPARE) | S(ADVISE) | S(LISTEN) | S(READY) | S(RUNNING) | S(RESUME) | S(END) },
	};
#undef S
	unsigned int accepted = 0;

	(void)state;
	for (int role = 0; role < 2; role++)
	for (int at = 0; at < SESSION_STATES; at++)
	for (int kind = 0; kind < 3; kind++)
	for (int type = 1; type < FRAME_TYPES; type++) {
		struct session session = { (enum session_role)role, (enum session_state)at, false, false };
		struct frame frame = { .type = (uint16_t)type };
		bool wanted = false;
		int err;

		for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
			wanted |= (int)taken[i].role == role && (int)taken[i].type == type &&
				  (int)taken[i].kind == kind && taken[i].states & 1u << at;
		error[0] = '\0';
		err = session_admits(&session, (enum channel_kind)kind, &frame, error);
		if ((err == 0) != wanted)
			fail_msg("role %d, state %s, %s, %s: %s", role,
				 session_state_name((enum session_state)at),
				 channel_name((enum channel_kind)kind), frame_name((uint16_t)type),
				 err ? error : "taken");
		assert_int_equal(session.state, at);
		assert_int_equal(session_frame(&session, (enum channel_kind)kind, &frame, error),
				 err);
		if (err) {
			assert_int_equal(err, -EPROTO);
			assert_int_equal(session.state, at);
			assert_true(strlen(error) > 0);
		}
		accepted += !err;
	}
	assert_true(accepted > 50);
}

static void test_commands_at_the_wrong_time_change_nothing(void **state)
{
	static const struct {
		enum session_role role;
		enum session_event event;
		enum session_state at;
	} wrong[] = {
		{ ROLE_SOURCE, EVENT_GO, SESSION_NONE },
		{ ROLE_SOURCE, EVENT_GO, SESSION_LISTEN },
		{ ROLE_SOURCE, EVENT_GO, SESSION_RUNNING },
		{ ROLE_SOURCE, EVENT_GO, SESSION_PAUSED },
		{ ROLE_SOURCE, EVENT_STOPPED, SESSION_PREPARE },
		{ ROLE_SOURCE, EVENT_STOPPED, SESSION_RUNNING },
		{ ROLE_SOURCE, EVENT_STATE_END, SESSION_LISTEN },
		{ ROLE_SOURCE, EVENT_CANCEL, SESSION_RUNNING },
		{ ROLE_SOURCE, EVENT_CANCEL, SESSION_PAUSED },
		{ ROLE_SOURCE, EVENT_CANCEL, SESSION_RESUME },
		{ ROLE_SOURCE, EVENT_CANCEL, SESSION_END },
		{ ROLE_SOURCE, EVENT_READY, SESSION_LISTEN },
		{ ROLE_SOURCE, EVENT_CONNECTED, SESSION_RUNNING },
		{ ROLE_DESTINATION, EVENT_CONNECTED, SESSION_NONE },
		{ ROLE_DESTINATION, EVENT_READY, SESSION_ADVISE },
		{ ROLE_DESTINATION, EVENT_READY, SESSION_READY },
		{ ROLE_DESTINATION, EVENT_READY, SESSION_RUNNING },
		{ ROLE_DESTINATION, EVENT_GO, SESSION_READY },
		{ ROLE_DESTINATION, EVENT_PREPARED, SESSION_RUNNING },
		{ ROLE_DESTINATION, EVENT_COMPLETE, SESSION_READY },
		{ ROLE_DESTINATION, EVENT_COMPLETE, SESSION_END },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct session session = { wrong[i].role, wrong[i].at, false, false };

		error[0] = '\0';
		assert_int_equal(session_event(&session, wrong[i].event, error), -EBUSY);
		assert_int_equal(session.state, wrong[i].at);
		assert_false(session.gone);
		assert_non_null(strstr(error, session_state_name(wrong[i].at)));
	}
}

static void test_only_a_lost_source_that_handed_over_is_given_up(void **state)
{
	struct session session = destination_ready(), source = source_running();

	(void)state;
	assert_int_equal(session_event(&session, EVENT_GIVE_UP, error), -EBUSY);
	happens(&session, EVENT_LOST, SESSION_PAUSED);
	/* GO was not heard: the guest may run at its source */
	assert_int_equal(session_event(&session, EVENT_GIVE_UP, error), -EBUSY);
	assert_string_equal(error, "\"give up\" is not possible in state paused");

	session = destination_running();
	assert_int_equal(session_event(&session, EVENT_GIVE_UP, error), -EBUSY);
	happens(&session, EVENT_LOST, SESSION_PAUSED);
	comes(&session, CHANNEL_CONTROL, FRAME_RESUME, SESSION_RESUME);
	happens(&session, EVENT_GIVE_UP, SESSION_END);

	happens(&source, EVENT_LOST, SESSION_PAUSED);
	assert_int_equal(session_event(&source, EVENT_GIVE_UP, error), -EBUSY);
}

static void test_who_does_not_know_the_secret_is_a_stranger(void **state)
{
	uint8_t id[SESSION_SIZE], claimed[SESSION_SIZE];
	struct session session;

	(void)state;
	memset(id, 0xa5, sizeof(id));
	session_init(&session, ROLE_DESTINATION);
	assert_false(session_knows(&session, id, id));
	comes(&session, CHANNEL_CONTROL, FRAME_HELLO, SESSION_PREPARE);
	assert_true(session_knows(&session, id, id));
	for (int bit = 0; bit < 8 * SESSION_SIZE; bit++) {
		memcpy(claimed, id, sizeof(id));
		claimed[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_false(session_knows(&session, id, claimed));
	}
}

static void test_cancel_is_possible_until_go(void **state)
{
	(void)state;
	for (int at = SESSION_NONE; at <= SESSION_READY; at++) {
		struct session session = { ROLE_SOURCE, (enum session_state)at, false, false };

		happens(&session, EVENT_CANCEL, (enum session_state)at);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source_from_start_to_end),
		cmocka_unit_test(test_session_goes_on_with_another_umemd),
		cmocka_unit_test(test_destination_from_start_to_end),
		cmocka_unit_test(test_lost_after_go_is_resumed),
		cmocka_unit_test(test_lost_before_go_is_the_end),
		cmocka_unit_test(test_a_ready_destination_waits_for_the_verdict),
		cmocka_unit_test(test_a_ready_destination_believes_cancel),
		cmocka_unit_test(test_end_survives_a_lost_connection),
		cmocka_unit_test(test_nothing_else_is_taken),
		cmocka_unit_test(test_commands_at_the_wrong_time_change_nothing),
		cmocka_unit_test(test_only_a_lost_source_that_handed_over_is_given_up),
		cmocka_unit_test(test_who_does_not_know_the_secret_is_a_stranger),
		cmocka_unit_test(test_cancel_is_possible_until_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
