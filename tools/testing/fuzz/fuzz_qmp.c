// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What QEMU says: every command gets one answer, whatever comes, and descriptors that
 * go along with commands are closed.
 *
 * Input: steps: 0 to 127, that many bytes come; from 128 on a command is given.
 */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "umem-qemu/qmp.h"

static unsigned int asked, answered, ready;

static void take_ready(void *context, const char *error)
{
	(void)context;
	(void)error;
	must(!ready++);
}

static void take_event(void *context, const struct qmp_event *event)
{
	(void)context;
	must(event->name);
}

static void take_reply(void *context, json_t *result, const char *error)
{
	bool *due = context;

	must(*due && !result != !error);
	*due = false;
	answered++;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct qmp_ops ops = { take_ready, take_event };
	struct input input = { data, size };
	bool due[64] = { false };
	struct qmp qmp;
	int pair[2];

	asked = answered = ready = 0;
	json_object_seed(1);
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	qmp_init(&qmp, pair[1], &ops, NULL);
	while (input.left) {
		size_t step = input_u8(&input);
		const uint8_t *bytes;

		if (step < 128) {
			bytes = input_bytes(&input, &step);
			if (write(pair[0], bytes, step) <= 0 || qmp_receive(&qmp) <= 0)
				break;
		} else if (asked < 64) {
			due[asked] = true;
			qmp_execute(&qmp, "query-status", NULL, step & 1 ? dup(pair[0]) : -1,
				    take_reply, &due[asked]);
			asked++;
		}
	}
	close(pair[0]);
	qmp_destroy(&qmp);
	close(pair[1]);
	must(answered == asked);
	return 0;
}
