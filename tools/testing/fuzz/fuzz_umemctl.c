// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * umemctl: what a umem-qemu answers, and its own command line.
 *
 * Input: which of them (1), then answers, or words that end with a newline.
 */
#include "fuzz.h"

#include <sys/socket.h>
#include <unistd.h>

#include "umemctl/client.h"
#include "umemctl/guests.h"
#include "umemctl/options.h"

#define WORDS_MAX	32

static void check_answers(char *text)
{
	struct client client = { .path = (char *)"socket" };
	char *error = NULL;
	size_t size = strlen(text);
	json_t *object;
	int pair[2];

	must(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	client.fd = pair[1];
	jsonl_init(&client.jsonl, client.fd, 65536, 65536);
	if (size)
		must(write(pair[0], text, size) == (ssize_t)size);
	shutdown(pair[0], SHUT_WR);
	object = client_ask(&client, json_pack("{s:s}", "cmd", "info"), &error);
	must(!object != !error);
	must(!object || json_is_true(json_object_get(object, "ok")));
	while (object) {
		json_decref(object);
		object = client_next(&client, 1000, &error);
	}
	must(error && error[0]);
	free(error);
	jsonl_destroy(&client.jsonl);
	close(pair[0]);
	close(pair[1]);
}

static void check_command_line(char *text)
{
	char *argv[WORDS_MAX + 1] = { (char *)"umemctl" }, *rest = text, *error = NULL;
	struct options options;
	int argc = 1;

	while (argc < WORDS_MAX && (argv[argc] = strsep(&rest, "\n")))
		argc++;
	argv[argc] = NULL;
	if (options_parse(&options, argc, argv, &error))
		must(error && error[0]);
	else if (options.command == CTL_MIGRATE)
		must(options.uri && options.forward >= -1 && options.backward >= -1);
	free(error);
}

/* A name or a number chooses one of two guests, or there is a reason why not. */
static void check_guests(char *text)
{
	char *name = strsep(&text, "\n"), *error = NULL, *table;
	struct guests guests = { 0 };

	guests_add(&guests, 17, name, "none", "/a");
	guests_add(&guests, 18, "b", text ? text : "", "/b");
	must(!guests_choose(&guests, text ? text : name, &error) != !error);
	table = guests_table(&guests);
	must(table);
	free(table);
	free(error);
	guests_free(&guests);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(char *text) = {
		check_answers, check_command_line, check_guests,
	};
	struct input input = { data, size };
	uint8_t which = input_u8(&input);
	char *text = input_string(&input);

	json_object_seed(1);
	checks[which % 3](text);
	free(text);
	return 0;
}
