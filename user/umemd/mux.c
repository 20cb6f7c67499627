// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/mux.h"

#include <errno.h>

#include "common/util.h"

/* CREDIT goes when this much was taken: often enough not to stop a sender. */
#define CREDIT_STEP	(MUX_WINDOW / 4)

void mux_init(struct mux *mux, bool accepts)
{
	*mux = (struct mux){ .accepts = accepts };
	for (int i = 0; i < MUX_CHANNELS; i++) {
		mux->channels[i].credit = MUX_WINDOW;
		mux->channels[i].allowed = MUX_WINDOW;
	}
}

int mux_open(struct mux *mux, enum channel_kind channel)
{
	if (mux->channels[channel].opened)
		return -EBUSY;
	mux->channels[channel].opened = true;
	return 0;
}

void mux_encode(uint8_t bytes[MUX_HEADER], const struct mux_record *record)
{
	bytes[0] = (uint8_t)record->channel;
	bytes[1] = (uint8_t)record->type;
	bytes[2] = bytes[3] = 0;
	for (int i = 0; i < 4; i++)
		bytes[4 + i] = (uint8_t)(record->number >> 8 * i);
}

static int receive_data(struct mux *mux, const struct mux_record *record, char *error)
{
	struct mux_channel *channel = &mux->channels[record->channel];
	const char *name = channel_name(record->channel);

	if (!record->number || record->number > MUX_DATA_MAX)
		return wrong(error, "record DATA of the %s channel has %u bytes, wanted 1 to %u",
			     name, record->number, MUX_DATA_MAX);
	if (record->number > channel->allowed)
		return wrong(error, "record DATA of the %s channel has %u bytes, more than its credit of %u",
			     name, record->number, channel->allowed);
	if (!channel->opened && !mux->accepts)
		return wrong(error, "record DATA came on the %s channel, which was not opened", name);
	channel->opened = true;
	channel->allowed -= record->number;
	return 0;
}

static int receive_end(struct mux *mux, const struct mux_record *record, char *error)
{
	struct mux_channel *channel = &mux->channels[record->channel];
	const char *name = channel_name(record->channel);

	if (record->number)
		return wrong(error, "record END of the %s channel says %u, wanted 0", name,
			     record->number);
	if (!channel->opened)
		return wrong(error, "record END came on the %s channel, which was not opened", name);
	channel->peer_ended = true;
	return 0;
}

static int receive_credit(struct mux *mux, const struct mux_record *record, char *error)
{
	struct mux_channel *channel = &mux->channels[record->channel];

	if (!record->number || record->number > MUX_WINDOW - channel->credit)
		return wrong(error, "record CREDIT of the %s channel gives %u bytes, wanted 1 to the %u that were sent",
			     channel_name(record->channel), record->number,
			     MUX_WINDOW - channel->credit);
	channel->credit += record->number;
	return 0;
}

int mux_receive(struct mux *mux, const uint8_t bytes[MUX_HEADER], struct mux_record *record,
		char *error)
{
	if (bytes[0] >= MUX_CHANNELS)
		return wrong(error, "a record is of channel %u, wanted 0 to %u", bytes[0],
			     MUX_CHANNELS - 1);
	if (bytes[1] < MUX_DATA || bytes[1] > MUX_CREDIT)
		return wrong(error, "a record has type %u, wanted %u to %u", bytes[1], MUX_DATA,
			     MUX_CREDIT);
	if (bytes[2] | bytes[3])
		return wrong(error, "a record has %02x%02x in its reserved bytes, wanted 0000",
			     bytes[2], bytes[3]);
	record->channel = bytes[0];
	record->type = bytes[1];
	record->number = 0;
	for (int i = 3; i >= 0; i--)
		record->number = record->number << 8 | bytes[4 + i];

	if (record->type == MUX_CREDIT)
		return receive_credit(mux, record, error);
	if (mux->channels[record->channel].peer_ended)
		return wrong(error, "record %s came after END on the %s channel",
			     record->type == MUX_END ? "END" : "DATA",
			     channel_name(record->channel));
	return record->type == MUX_END ? receive_end(mux, record, error) :
					 receive_data(mux, record, error);
}

void mux_taken(struct mux *mux, enum channel_kind channel, uint32_t bytes)
{
	mux->channels[channel].taken += bytes;
}

void mux_end(struct mux *mux, enum channel_kind channel)
{
	mux->channels[channel].ending = true;
}

bool mux_may_send(const struct mux *mux, enum channel_kind channel)
{
	const struct mux_channel *state = &mux->channels[channel];

	return state->opened && !state->ending && state->credit;
}

static bool next_credit(const struct mux *mux, struct mux_record *record)
{
	for (int i = 0; i < MUX_CHANNELS; i++) {
		const struct mux_channel *channel = &mux->channels[i];

		if (channel->taken < CREDIT_STEP || channel->peer_ended)
			continue;
		*record = (struct mux_record){ (enum channel_kind)i, MUX_CREDIT, channel->taken };
		return true;
	}
	return false;
}

static bool next_of(const struct mux *mux, enum channel_kind channel, unsigned int ready,
		    struct mux_record *record)
{
	const struct mux_channel *state = &mux->channels[channel];

	if (state->ending && !state->ended) {
		*record = (struct mux_record){ channel, MUX_END, 0 };
		return true;
	}
	if (!(ready & 1u << channel) || !mux_may_send(mux, channel))
		return false;
	*record = (struct mux_record){ channel, MUX_DATA,
				       min(state->credit, (uint32_t)MUX_DATA_MAX) };
	return true;
}

bool mux_next(const struct mux *mux, unsigned int ready, struct mux_record *record)
{
	enum channel_kind other = mux->last == CHANNEL_URGENT ? CHANNEL_CONTROL : CHANNEL_URGENT;

	return next_credit(mux, record) || next_of(mux, other, ready, record) ||
	       next_of(mux, mux->last, ready, record) ||
	       next_of(mux, CHANNEL_BULK, ready, record);
}

void mux_sent(struct mux *mux, const struct mux_record *record)
{
	struct mux_channel *channel = &mux->channels[record->channel];

	switch (record->type) {
	case MUX_DATA:
		channel->credit -= record->number;
		if (record->channel != CHANNEL_BULK)
			mux->last = record->channel;
		break;
	case MUX_END:
		channel->ended = true;
		break;
	case MUX_CREDIT:
		channel->taken -= record->number;
		channel->allowed += record->number;
		break;
	}
}

bool mux_is_over(const struct mux *mux)
{
	bool any = false;

	for (int i = 0; i < MUX_CHANNELS; i++) {
		const struct mux_channel *channel = &mux->channels[i];

		if (channel->opened && !(channel->ended && channel->peer_ended))
			return false;
		any |= channel->opened;
	}
	return any;
}
