// SPDX-License-Identifier: GPL-2.0-or-later
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/meter.h"
#include "common/report.h"
#include "common/text.h"
#include "common/util.h"
#include "umemctl/client.h"
#include "umemctl/guests.h"
#include "umemctl/options.h"
#include "umemctl/show.h"
#include "umemctl/watch.h"

#define EXIT_DONE	0
#define EXIT_FAILED	1
#define EXIT_USAGE	2

static int fail(char *error)
{
	log_error("%s", error);
	free(error);
	return EXIT_FAILED;
}

static void print_and_free(char *text)
{
	if (text)
		fputs(text, stdout);
	fflush(stdout);
	free(text);
}

/* ---- the guest that is meant ---- */

static int open_path(struct client *client, const char *path)
{
	int err = client_open(client, path);

	if (!err)
		return 0;
	log_error("%s: %s, wanted the control socket of a running umem-qemu", path,
		  strerror(-err));
	return -1;
}

static int open_guest(struct client *client, const struct options *options)
{
	const struct guest *guest;
	struct guests guests;
	char *error;
	int err = -1;

	if (options->guest && strchr(options->guest, '/'))
		return open_path(client, options->guest);
	guests_find(&guests);
	guest = guests_choose(&guests, options->guest, &error);
	if (guest)
		err = open_path(client, guest->path);
	else
		fail(error);
	guests_free(&guests);
	return err;
}

/* ---- the commands ---- */

static int print_info(struct client *client, const struct options *options)
{
	json_t *reply, *info;
	char *error;

	reply = client_ask(client, json_pack("{s:s}", "cmd", "info"), &error);
	if (!reply)
		return fail(error);
	info = json_object_get(reply, "info");
	if (options->json && !json_dumpf(info, stdout, JSON_INDENT(2)))
		putchar('\n');
	else
		print_and_free(report_text(info));
	json_decref(reply);
	return EXIT_DONE;
}

/* @command: taken over; @done: what is said when it was taken; NULL: nothing */
static int order_with(struct client *client, json_t *command, const char *done)
{
	char *error;
	json_t *reply = client_ask(client, command, &error);

	if (!reply)
		return fail(error);
	json_decref(reply);
	if (done)
		puts(done);
	return EXIT_DONE;
}

static int order(struct client *client, const char *command, const char *done)
{
	return order_with(client, json_pack("{s:s}", "cmd", command), done);
}

static int start_postcopy(struct client *client, const struct options *options)
{
	(void)options;
	return order(client, "start-postcopy", "migrate: the guest moves now");
}

static int cancel(struct client *client, const struct options *options)
{
	(void)options;
	return order(client, "cancel", "migrate: cancelled, the guest stays");
}

static int give_up(struct client *client, const struct options *options)
{
	(void)options;
	return order(client, "give-up", "migrate: the source is given up, see umemctl gone");
}

static int set(struct client *client, const struct options *options)
{
	return order_with(client, json_pack("{s:s,s:s}", "cmd", "set", "lost_source",
					    options->value), NULL);
}

/* Prints ranges from @from on. Return: how many there were, -1: failure. */
static int print_gone(struct client *client, int from)
{
	json_t *reply, *range;
	char *error;
	size_t i;
	int nr;

	reply = client_ask(client, json_pack("{s:s,s:i}", "cmd", "gone", "from", from), &error);
	if (!reply) {
		fail(error);
		return -1;
	}
	json_array_foreach(json_object_get(reply, "ranges"), i, range) {
		char *line = text_format("%s 0x%llx 0x%llx\n",
			json_string_value(json_array_get(range, 0)),
			(unsigned long long)json_integer_value(json_array_get(range, 1)),
			(unsigned long long)json_integer_value(json_array_get(range, 2)));

		print_and_free(line);
	}
	nr = (int)i;
	json_decref(reply);
	return nr;
}

static int gone(struct client *client, const struct options *options)
{
	int from = 0, nr;

	(void)options;
	while ((nr = print_gone(client, from)) > 0)
		from += nr;
	return nr < 0 ? EXIT_FAILED : EXIT_DONE;
}

static int restart_pager(struct client *client, const struct options *options)
{
	(void)options;
	return order(client, "restart-pager", "pager: another umemd goes on");
}

static int pause_migration(struct client *client, const struct options *options)
{
	(void)options;
	return order(client, "pause", "migrate: paused until umemctl recover");
}

static int recover(struct client *client, const struct options *options)
{
	json_t *command = json_pack("{s:s}", "cmd", "recover");

	if (options->uri)
		json_object_set_new(command, "uri", jsonl_string(options->uri));
	return order_with(client, command, "migrate: goes on, see umemctl info");
}

static json_t *migrate_command(const struct options *options)
{
	json_t *command = json_pack("{s:s, s:o, s:b, s:b, s:b}", "cmd", "migrate",
				    "uri", jsonl_string(options->uri),
				    "precopy", !options->at_once,
				    "no_push", options->no_push, "follow", options->follow);

	if (options->forward >= 0)
		json_object_set_new(command, "forward", json_integer(options->forward));
	if (options->backward >= 0)
		json_object_set_new(command, "backward", json_integer(options->backward));
	return command;
}

static int wait_for_the_end(struct client *client)
{
	int status = WATCH_GOES_ON;
	struct watch watch;
	char *out, *error;
	json_t *event;

	watch_begin(&watch, meter_columns(STDOUT_FILENO), now_ns());
	while (status == WATCH_GOES_ON) {
		event = client_next(client, -1, &error);
		if (!event) {
			print_and_free(text_copy(meter_clear(&watch.meter)));
			log_error("%s before the migration ended, its end is not known", error);
			free(error);
			return EXIT_FAILED;
		}
		status = watch_event(&watch, event, now_ns(), &out, &error);
		json_decref(event);
		print_and_free(out);
		if (error)
			fail(error);
	}
	return status ? EXIT_FAILED : EXIT_DONE;
}

static int migrate(struct client *client, const struct options *options)
{
	char *error;
	json_t *reply = client_ask(client, migrate_command(options), &error);

	if (!reply)
		return fail(error);
	json_decref(reply);
	if (options->detach) {
		printf("migrate: begun, see umemctl info\n");
		return EXIT_DONE;
	}
	reply = client_ask(client, json_pack("{s:s}", "cmd", "watch"), &error);
	if (!reply)
		return fail(error);
	json_decref(reply);
	return wait_for_the_end(client);
}

static int with_guest(const struct options *options,
		      int (*run)(struct client *client, const struct options *options))
{
	struct client client;
	int status;

	if (open_guest(&client, options))
		return EXIT_FAILED;
	status = run(&client, options);
	client_close(&client);
	return status;
}

static int run(const struct options *options)
{
	switch (options->command) {
	case CTL_LIST:
		return show_list(options);
	case CTL_SHOW:
		return show_regions(options);
	case CTL_STAT:
		return show_stats(options);
	case CTL_EVENTS:
		return show_events(options);
	case CTL_MIGRATE:
		return with_guest(options, migrate);
	case CTL_START_POSTCOPY:
		return with_guest(options, start_postcopy);
	case CTL_CANCEL:
		return with_guest(options, cancel);
	case CTL_PAUSE:
		return with_guest(options, pause_migration);
	case CTL_RECOVER:
		return with_guest(options, recover);
	case CTL_RESTART_PAGER:
		return with_guest(options, restart_pager);
	case CTL_GIVE_UP:
		return with_guest(options, give_up);
	case CTL_GONE:
		return with_guest(options, gone);
	case CTL_SET:
		return with_guest(options, set);
	case CTL_INFO:
		return with_guest(options, print_info);
	case CTL_HELP:
		print_and_free(options_help());
		return EXIT_DONE;
	case CTL_VERSION:
		puts("umemctl " UMEM_VERSION);
		return EXIT_DONE;
	}
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	struct options options;
	char *error;

	log_init("umemctl", LOG_LEVEL_INFO);
	if (options_parse(&options, argc, argv, &error)) {
		fail(error);
		return EXIT_USAGE;
	}
	return run(&options);
}
