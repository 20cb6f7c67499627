// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * JSON lines: however they are cut into pieces the same objects come out, no line is
 * longer than allowed, and an object that came can be sent on as it is.
 *
 * Input: longest line in steps of 16 bytes (1), sizes of the pieces (3), the lines.
 */
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/jsonl.h"
#include "common/util.h"

#define RESULTS_MAX	64
#define READ_STEP	4096

/**
 * struct result - what came
 * @texts: objects, and sentences about what is none
 * @ended: a line was too long
 */
struct result {
	char *texts[RESULTS_MAX];
	size_t nr;
	bool ended;
};

static void make_pair(int pair[2])
{
	int room = 512 * 1024;

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
}

/* Sent, it is one line, and what is received of that is equal. */
static void send_on(json_t *object)
{
	char error[JSONL_ERROR_MAX];
	struct jsonl from, to;
	json_t *again;
	int pair[2], err;

	make_pair(pair);
	jsonl_init(&from, pair[0], 0, 1024 * 1024);
	jsonl_init(&to, pair[1], 1024 * 1024, 0);
	must(!jsonl_send(&from, json_incref(object)));
	do {
		must(jsonl_receive(&to) == 1);
		err = jsonl_next(&to, &again, error);
	} while (!err);
	must(err == 1 && json_equal(object, again));
	json_decref(again);
	must(jsonl_next(&to, &again, error) == 0);
	jsonl_destroy(&from);
	jsonl_destroy(&to);
	close(pair[0]);
	close(pair[1]);
}

static void take(struct result *result, struct jsonl *jsonl)
{
	char error[JSONL_ERROR_MAX];
	json_t *object;
	int err;

	while (!result->ended && result->nr < RESULTS_MAX &&
	       (err = jsonl_next(jsonl, &object, error))) {
		must(err == 1 || err == -EPROTO || err == -EMSGSIZE);
		result->ended = err == -EMSGSIZE;
		if (err == 1) {
			must(json_is_object(object));
			result->texts[result->nr] = json_dumps(object, JSON_COMPACT);
			send_on(object);
			json_decref(object);
		} else {
			must(!object && error[0] && strlen(error) < sizeof(error));
			result->texts[result->nr] = strdup(error);
		}
		must(result->texts[result->nr++]);
	}
	must(jsonl->in_used - jsonl->in_start <= jsonl->max_line + 1 || result->ended ||
	     result->nr == RESULTS_MAX);
}

static void connection(struct result *result, size_t max_line, const uint8_t *data, size_t size,
		       const uint8_t cuts[3])
{
	struct jsonl jsonl;
	int pair[2], got;

	*result = (struct result){ 0 };
	make_pair(pair);
	jsonl_init(&jsonl, pair[1], max_line, 0);
	for (size_t used = 0, i = 0; used < size; i++) {
		size_t piece = cuts[i % 3] ? min((size_t)cuts[i % 3], size - used) : size - used;
		ssize_t n = write(pair[0], data + used, piece);

		must(n > 0);
		used += (size_t)n;
		while (!result->ended && result->nr < RESULTS_MAX &&
		       (got = jsonl_receive(&jsonl)) == 1)
			take(result, &jsonl);
		if (result->ended || result->nr == RESULTS_MAX)
			break;
		must(got == -EAGAIN);
		must(jsonl.in_size <= max_line + 1 + 2 * READ_STEP);
	}
	jsonl_destroy(&jsonl);
	close(pair[0]);
	close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t whole[3];
	struct input input = { data, size };
	size_t max_line = 16 * (size_t)input_u8(&input);
	struct result results[2];
	uint8_t cuts[3];

	for (int i = 0; i < 3; i++)
		cuts[i] = input_u8(&input);
	json_object_seed(1);
	connection(&results[0], max_line, input.data, input.left, whole);
	connection(&results[1], max_line, input.data, input.left, cuts);
	must(results[0].nr == results[1].nr && results[0].ended == results[1].ended);
	for (size_t i = 0; i < results[0].nr; i++) {
		must(!strcmp(results[0].texts[i], results[1].texts[i]));
		free(results[0].texts[i]);
		free(results[1].texts[i]);
	}
	return 0;
}
