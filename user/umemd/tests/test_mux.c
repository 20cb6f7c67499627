// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/mux.h"

#include <errno.h>
#include <string.h>

#include "umemd/tests/cmocka_first.h"

#define READY_ALL 7u

static struct mux ours, theirs;
static char error[CODEC_ERROR_MAX];

static int setup(void **state)
{
	(void)state;
	mux_init(&ours, false);
	mux_init(&theirs, true);
	for (int i = 0; i < MUX_CHANNELS; i++)
		mux_open(&ours, (enum channel_kind)i);
	error[0] = '\0';
	return 0;
}

static int receive(struct mux *mux, unsigned int channel, unsigned int type, uint32_t number)
{
	struct mux_record record = { channel, type, number }, got;
	uint8_t bytes[MUX_HEADER];
	int err;

	mux_encode(bytes, &record);
	err = mux_receive(mux, bytes, &got, error);
	if (!err) {
		assert_int_equal(got.channel, channel);
		assert_int_equal(got.type, type);
		assert_int_equal(got.number, number);
	}
	return err;
}

static void refused(struct mux *mux, unsigned int channel, unsigned int type, uint32_t number,
		    const char *part)
{
	assert_int_equal(receive(mux, channel, type, number), -EPROTO);
	if (!strstr(error, part))
		fail_msg("said \"%s\", wanted \"%s\" in it", error, part);
}

/* Sends what is next of what is @ready; returns what it was. */
static struct mux_record send(struct mux *mux, unsigned int ready)
{
	struct mux_record record = { 0 };

	if (mux_next(mux, ready, &record))
		mux_sent(mux, &record);
	return record;
}

static void test_header_is_as_documented(void **state)
{
	struct mux_record record = { CHANNEL_BULK, MUX_DATA, 0x1234 };
	static const uint8_t wanted[MUX_HEADER] = { 2, 1, 0, 0, 0x34, 0x12, 0, 0 };
	uint8_t bytes[MUX_HEADER];

	(void)state;
	mux_encode(bytes, &record);
	assert_memory_equal(bytes, wanted, MUX_HEADER);
	assert_int_equal(mux_receive(&theirs, bytes, &record, error), 0);
	assert_int_equal(record.number, 0x1234);
}

static void test_nonsense_is_refused_with_what_it_was(void **state)
{
	struct mux_record record;

	(void)state;
	refused(&theirs, 3, MUX_DATA, 1, "channel 3, wanted 0 to 2");
	refused(&theirs, 255, MUX_DATA, 1, "channel 255");
	refused(&theirs, 0, 0, 1, "type 0, wanted 1 to 3");
	refused(&theirs, 0, 4, 1, "type 4, wanted 1 to 3");
	refused(&theirs, 0, MUX_DATA, 0, "has 0 bytes, wanted 1 to 16384");
	refused(&theirs, 0, MUX_DATA, MUX_DATA_MAX + 1, "has 16385 bytes, wanted 1 to 16384");
	refused(&theirs, 0, MUX_DATA, UINT32_MAX, "has 4294967295 bytes");
	assert_int_equal(receive(&theirs, 0, MUX_DATA, 1), 0);
	refused(&theirs, 0, MUX_END, 5, "record END of the control channel says 5, wanted 0");
	for (int i = 2; i < 4; i++) {
		uint8_t bytes[MUX_HEADER] = { 0, MUX_DATA, 0, 0, 1, 0, 0, 0 };

		bytes[i] = 1;
		assert_int_equal(mux_receive(&theirs, bytes, &record, error), -EPROTO);
		assert_non_null(strstr(error, "reserved bytes, wanted 0000"));
	}
}

static void test_every_header_is_taken_or_refused_and_windows_hold(void **state)
{
	uint64_t draw = 1;

	(void)state;
	for (int i = 0; i < 200000; i++) {
		struct mux_record record;
		uint8_t bytes[MUX_HEADER];

		draw = draw * 6364136223846793005ULL + 1442695040888963407ULL;
		memcpy(bytes, &draw, sizeof(bytes));
		bytes[0] %= 4;
		bytes[1] %= 5;
		bytes[2] = bytes[3] = 0;
		if (i % 2)
			bytes[6] = bytes[7] = 0;
		mux_receive(&theirs, bytes, &record, error);
		for (int k = 0; k < MUX_CHANNELS; k++) {
			assert_in_range(theirs.channels[k].credit, 0, MUX_WINDOW);
			assert_in_range(theirs.channels[k].allowed, 0, MUX_WINDOW);
		}
	}
}

static void test_sender_stops_at_its_window_and_goes_on_with_credit(void **state)
{
	uint64_t sent = 0;

	(void)state;
	for (;;) {
		struct mux_record record = send(&ours, 1u << CHANNEL_BULK);

		if (!record.type)
			break;
		assert_int_equal(receive(&theirs, record.channel, record.type, record.number), 0);
		sent += record.number;
	}
	assert_int_equal(sent, MUX_WINDOW);
	assert_false(mux_may_send(&ours, CHANNEL_BULK));
	refused(&theirs, CHANNEL_BULK, MUX_DATA, 1, "has 1 bytes, more than its credit of 0");

	/* The others are not held up by it. */
	assert_true(mux_may_send(&ours, CHANNEL_URGENT));
	assert_int_equal(send(&ours, READY_ALL).channel, CHANNEL_URGENT);
	assert_int_equal(send(&ours, READY_ALL).channel, CHANNEL_CONTROL);

	mux_taken(&theirs, CHANNEL_BULK, MUX_WINDOW / 4 - 1);
	assert_int_equal(send(&theirs, 0).type, 0);
	mux_taken(&theirs, CHANNEL_BULK, 1);
	assert_int_equal(send(&theirs, READY_ALL).type, MUX_CREDIT);
	assert_int_equal(theirs.channels[CHANNEL_BULK].allowed, MUX_WINDOW / 4);
	assert_int_equal(receive(&ours, CHANNEL_BULK, MUX_CREDIT, MUX_WINDOW / 4), 0);
	assert_true(mux_may_send(&ours, CHANNEL_BULK));
}

static void test_credit_for_what_was_not_sent_is_refused(void **state)
{
	(void)state;
	refused(&ours, CHANNEL_URGENT, MUX_CREDIT, 1, "gives 1 bytes, wanted 1 to the 0 that were sent");
	assert_int_equal(send(&ours, 1u << CHANNEL_URGENT).number, MUX_DATA_MAX);
	refused(&ours, CHANNEL_URGENT, MUX_CREDIT, 0, "gives 0 bytes");
	refused(&ours, CHANNEL_URGENT, MUX_CREDIT, MUX_DATA_MAX + 1, "wanted 1 to the 16384");
	refused(&ours, CHANNEL_URGENT, MUX_CREDIT, UINT32_MAX, "gives 4294967295 bytes");
	assert_int_equal(receive(&ours, CHANNEL_URGENT, MUX_CREDIT, MUX_DATA_MAX), 0);
}

static void test_control_and_urgent_take_turns_before_bulk(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++)
		assert_int_equal(send(&ours, READY_ALL).channel, i % 2 ? CHANNEL_CONTROL : CHANNEL_URGENT);
	assert_int_equal(send(&ours, 1u << CHANNEL_BULK).channel, CHANNEL_BULK);
	assert_int_equal(send(&ours, 0).type, 0);
}

static void test_only_the_source_opens_a_channel_and_once(void **state)
{
	struct mux source;

	(void)state;
	mux_init(&source, false);
	assert_false(mux_may_send(&source, CHANNEL_CONTROL));
	refused(&source, CHANNEL_CONTROL, MUX_DATA, 1, "the control channel, which was not opened");
	refused(&theirs, CHANNEL_BULK, MUX_END, 0, "the bulk channel, which was not opened");
	assert_int_equal(mux_open(&source, CHANNEL_CONTROL), 0);
	assert_int_equal(mux_open(&source, CHANNEL_CONTROL), -EBUSY);
	assert_int_equal(receive(&source, CHANNEL_CONTROL, MUX_DATA, 1), 0);
}

static void test_a_channel_ends_once_in_each_direction(void **state)
{
	(void)state;
	assert_int_equal(receive(&theirs, CHANNEL_CONTROL, MUX_DATA, 1), 0);
	assert_int_equal(receive(&theirs, CHANNEL_CONTROL, MUX_END, 0), 0);
	refused(&theirs, CHANNEL_CONTROL, MUX_DATA, 1, "record DATA came after END on the control channel");
	refused(&theirs, CHANNEL_CONTROL, MUX_END, 0, "record END came after END");
	assert_false(mux_is_over(&theirs));
	assert_true(mux_may_send(&theirs, CHANNEL_CONTROL));
	mux_end(&theirs, CHANNEL_CONTROL);
	assert_false(mux_may_send(&theirs, CHANNEL_CONTROL));
	assert_int_equal(send(&theirs, READY_ALL).type, MUX_END);
	assert_int_equal(send(&theirs, READY_ALL).type, 0);
	assert_true(mux_is_over(&theirs));
}

static void test_a_stream_without_channels_is_not_over(void **state)
{
	(void)state;
	assert_false(mux_is_over(&theirs));
}

#define test(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_header_is_as_documented),
		test(test_nonsense_is_refused_with_what_it_was),
		test(test_every_header_is_taken_or_refused_and_windows_hold),
		test(test_sender_stops_at_its_window_and_goes_on_with_credit),
		test(test_credit_for_what_was_not_sent_is_refused),
		test(test_control_and_urgent_take_turns_before_bulk),
		test(test_only_the_source_opens_a_channel_and_once),
		test(test_a_channel_ends_once_in_each_direction),
		test(test_a_stream_without_channels_is_not_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
