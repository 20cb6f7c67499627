// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/uri.h"
#include "common/util.h"

#define PAGES_MAX	UINT32_MAX	/* umem-qemu knows how many it allows */

enum {
	OPTION_GUEST = 'g',
	OPTION_JSON = 'j',
	OPTION_HELP = 'h',
};

static const struct subcommand {
	const char *name;
	enum ctl_command command;
	const char *flags;		/* which options it has, by their letters */
	int arguments;			/* how many it may have */
	const char *usage;
	const char *help;		/* NULL: another name of the one above it */
} subcommands[] = {
	{ "list", CTL_LIST, "j", 0, "list [--json]",
	  "the running umem-qemus of this user, and the regions it may see" },
	{ "show", CTL_SHOW, "j", 1, "show [--json] [REGION]", "what regions are and how they are now" },
	{ "stat", CTL_STAT, "j", 1, "stat [--json] [REGION]",
	  "what happened in regions, who waited there and for how long" },
	{ "events", CTL_EVENTS, "j", 0, "events [--json]",
	  "tell what happens in regions, a line each, until interrupted" },
	{ "migrate", CTL_MIGRATE, "gpnmd", 3,
	  "migrate [-p [-n]] [-m] [-d] [--guest GUEST] URI [FORWARD [BACKWARD]]",
	  "move a guest to the umem-qemu at URI and wait until it is complete" },
	{ "start-postcopy", CTL_START_POSTCOPY, "g", 0, "start-postcopy [--guest GUEST]",
	  "no more pre-copy: the guest moves now, whatever is left" },
	{ "cancel", CTL_CANCEL, "g", 0, "cancel [--guest GUEST]",
	  "before the hand-over: give the migration up, the guest stays" },
	{ "pause", CTL_PAUSE, "g", 0, "pause [--guest GUEST]",
	  "after the hand-over: nothing is sent or brought until recover" },
	{ "recover", CTL_RECOVER, "g", 1, "recover [--guest GUEST] [URI]",
	  "paused: connect, or listen, again; from now on at URI if it is given" },
	{ "pager", CTL_RESTART_PAGER, "g", 1, "pager restart [--guest GUEST]",
	  "put the umemd that is installed now in the place of the one that runs" },
	{ "give-up", CTL_GIVE_UP, "g", 0, "give-up [--guest GUEST]",
	  "where the guest has come to: its source is lost, poison the pages that are missing" },
	{ "gone", CTL_GONE, "g", 0, "gone [--guest GUEST]",
	  "which pages never arrived after that: region, offset and length, a line each" },
	{ "set", CTL_SET, "g", 2, "set [--guest GUEST] lost-source wait|poison",
	  "what is done when a source was waited for as long as is allowed" },
	{ "info", CTL_INFO, "gj", 0, "info [--json] [--guest GUEST]",
	  "how the migration stands; migrate-info is the same" },
	{ "migrate-info", CTL_INFO, "gj", 0, "migrate-info [--json] [--guest GUEST]", NULL },
};

static const struct option long_options[] = {
	{ "guest", required_argument, NULL, OPTION_GUEST },
	{ "json", no_argument, NULL, OPTION_JSON },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ 0 },
};

static int refuse(char **error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(char **error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	*error = text_vformat(format, args);
	va_end(args);
	return -EINVAL;
}

static void take_option(struct options *options, int letter)
{
	switch (letter) {
	case OPTION_GUEST:
		options->guest = optarg;
		break;
	case OPTION_JSON:
		options->json = true;
		break;
	case OPTION_HELP:
		options->command = CTL_HELP;
		break;
	case 'p':
		options->at_once = true;
		break;
	case 'n':
		options->no_push = true;
		break;
	case 'm':
		options->follow = true;
		break;
	case 'd':
		options->detach = true;
		break;
	}
}

/* One of getopt's that this subcommand has, too. */
static bool has_option(const struct subcommand *subcommand, int letter)
{
	return letter == OPTION_HELP || strchr(subcommand->flags, letter);
}

/* How the option that getopt just gave, or did not know, was written. */
static char *spelling(int letter, const char *word)
{
	if (letter == OPTION_GUEST)
		return text_copy("--guest");
	if (letter == OPTION_JSON)
		return text_copy("--json");
	if (letter == '?' && (!optopt || !strncmp(word, "--", 2)))
		return text_copy(word);
	return text_format("-%c", letter == '?' ? optopt : letter);
}

static int take_options(struct options *options, const struct subcommand *subcommand, int argc,
			char **argv, char **error)
{
	int letter;

	opterr = 0;
	optind = 0;		/* glibc: begin anew */
	while ((letter = getopt_long(argc, argv, ":hpnmd", long_options, NULL)) != -1) {
		const char *word = argv[optind - 1];
		char *option;

		if (letter == ':')
			return refuse(error, "%s: %s wants an argument, nothing follows it",
				      subcommand->name, word);
		if (letter == '?' || !has_option(subcommand, letter)) {
			option = spelling(letter, word);
			refuse(error, "%s: option %s, wanted: umemctl %s", subcommand->name,
			       option, subcommand->usage);
			free(option);
			return -EINVAL;
		}
		take_option(options, letter);
	}
	return 0;
}

static int take_pages(const char *what, const char *text, int64_t *pages, char **error)
{
	char *end;

	errno = 0;
	*pages = strtoll(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || *pages > PAGES_MAX)
		return refuse(error, "migrate: %s is \"%s\", wanted a number of pages", what, text);
	return 0;
}

static int take_uri(struct options *options, const char *name, const char *text, char **error)
{
	char why[URI_ERROR_MAX];
	struct uri uri;

	if (uri_parse(&uri, text, why, sizeof(why)))
		return refuse(error, "%s: %s", name, why);
	if (!uri_names_peer(&uri))
		return refuse(error, "%s: URI is \"%s\", wanted " URI_WANTED, name, text);
	options->uri = text;
	return 0;
}

static int take_migrate(struct options *options, int nr, char **arguments, char **error)
{
	int err;

	if (options->no_push && !options->at_once)
		return refuse(error, "migrate: -n was given without -p, wanted migrate -p -n URI: pre-copy sends what nobody asked for");
	if (!nr)
		return refuse(error, "migrate: there is no URI, wanted " URI_WANTED);
	err = take_uri(options, "migrate", arguments[0], error);
	if (!err && nr > 1)
		err = take_pages("FORWARD", arguments[1], &options->forward, error);
	if (!err && nr > 2)
		err = take_pages("BACKWARD", arguments[2], &options->backward, error);
	return err;
}

static int take_set(struct options *options, int nr, char **arguments, char **error)
{
	if (nr != 2)
		return refuse(error, "set: %d arguments, wanted lost-source wait|poison", nr);
	if (strcmp(arguments[0], "lost-source"))
		return refuse(error, "set: parameter is \"%s\", wanted lost-source", arguments[0]);
	options->value = arguments[1];
	if (strcmp(options->value, "wait") && strcmp(options->value, "poison"))
		return refuse(error, "set: lost-source is \"%s\", wanted wait or poison",
			      options->value);
	return 0;
}

static int parse_subcommand(struct options *options, const struct subcommand *subcommand,
			    int argc, char **argv, char **error)
{
	int err;

	options->command = subcommand->command;
	err = take_options(options, subcommand, argc, argv, error);
	if (err || options->command == CTL_HELP)
		return err;
	if (argc - optind > subcommand->arguments)
		return refuse(error, "%s: \"%s\" follows the last argument, wanted at most %d",
			      subcommand->name, argv[optind + subcommand->arguments],
			      subcommand->arguments);
	if (subcommand->command == CTL_MIGRATE)
		return take_migrate(options, argc - optind, argv + optind, error);
	if (subcommand->command == CTL_RECOVER && argc > optind)
		return take_uri(options, "recover", argv[optind], error);
	if (subcommand->command == CTL_RESTART_PAGER &&
	    (argc == optind || strcmp(argv[optind], "restart")))
		return refuse(error, "pager: \"%s\" is what to do, wanted restart",
			      argc == optind ? "" : argv[optind]);
	if ((subcommand->command == CTL_SHOW || subcommand->command == CTL_STAT) && argc > optind)
		options->region = argv[optind];
	if (subcommand->command == CTL_SET)
		return take_set(options, argc - optind, argv + optind, error);
	return 0;
}

static char *subcommand_names(void)
{
	struct text names = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++)
		text_add(&names, "%s%s", i ? ", " : "", subcommands[i].name);
	return text_take(&names);
}

int options_parse(struct options *options, int argc, char **argv, char **error)
{
	char *names;
	int err;

	*options = (struct options){ .forward = -1, .backward = -1 };
	*error = NULL;
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		options->command = CTL_HELP;
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--version")) {
		options->command = CTL_VERSION;
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(subcommands); i++) {
		if (!strcmp(argv[1], subcommands[i].name))
			return parse_subcommand(options, &subcommands[i], argc - 1, argv + 1,
						error);
	}
	names = subcommand_names();
	err = refuse(error, "command is \"%s\", wanted one of: %s; see umemctl --help",
		     argc > 1 ? argv[1] : "", names);
	free(names);
	return err;
}

char *options_help(void)
{
	struct text text = { 0 };

	text_add(&text, "usage: umemctl COMMAND [OPTIONS...]\n\n"
		 "Gives migrate commands to a running umem-qemu through its control socket, and tells\n"
		 "what the kernel knows of regions: one's own, or all if one has CAP_SYS_ADMIN.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(subcommands); i++) {
		if (subcommands[i].help)
			text_add(&text, "  %s\n        %s\n", subcommands[i].usage,
				 subcommands[i].help);
	}
	text_add(&text, "\n"
"  --guest GUEST  which one: its process id, its -name, or the path of its control\n"
"                 socket (has a /). May be left out if there is exactly one.\n"
"  REGION         which one: its id or its name. All, if it is left out\n"
"  -p             the guest moves at once, all of its memory follows on demand. Without it\n"
"                 memory is copied first, while the guest runs, until what is left would take\n"
"                 no longer than QEMU's downtime-limit, or start-postcopy\n"
"  -n             send only pages that are asked for and their prefault\n"
"  -m             the background goes on from where the guest last asked\n"
"  -d             return once the migration has begun\n"
"  FORWARD        pages after each requested page that are sent with it\n"
"  BACKWARD       pages before it\n"
"  --json         JSON, with units in the names of its values: one object; for show and stat\n"
"                 without REGION an array of them, for events one a line\n"
"  --help, --version\n"
"\n"
"Whoever interrupts a waiting umemctl leaves the migration going; umemctl cancel ends it.\n"
"\n"
"Exit status: 0 it was done, for migrate without -d: all of the guest's memory has\n"
"arrived; 1 it failed; 2 the command line is wrong.\n");
	return text_take(&text);
}
