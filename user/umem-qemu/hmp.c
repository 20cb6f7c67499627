// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/hmp.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define WORDS_MAX	16

struct words {
	char text[1024];
	char *word[WORDS_MAX];
	size_t nr;
};

static void fail(struct hmp_command *command, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void fail(struct hmp_command *command, const char *format, ...)
{
	va_list args;

	command->kind = HMP_ERROR;
	va_start(args, format);
	vsnprintf(command->error, sizeof(command->error), format, args);
	va_end(args);
}

/* Words between blanks; one in double quotes may hold blanks. False: too long, or too many. */
static bool split(struct words *words, const char *line)
{
	char *c = words->text;

	words->nr = 0;
	if (strlen(line) >= sizeof(words->text))
		return false;
	strcpy(words->text, line);
	for (;;) {
		char end = ' ';

		while (isspace((unsigned char)*c))
			c++;
		if (!*c)
			return true;
		if (words->nr == WORDS_MAX)
			return false;
		if (*c == '"')
			end = *c++;
		words->word[words->nr++] = c;
		while (*c && (end == '"' ? *c != '"' : !isspace((unsigned char)*c)))
			c++;
		if (*c)
			*c++ = '\0';
	}
}

static bool has_flag(const struct words *words, const char *flag)
{
	for (size_t i = 1; i < words->nr && words->word[i][0] == '-'; i++) {
		if (!strcmp(words->word[i], flag))
			return true;
	}
	return false;
}

static bool parse_number(const char *text, unsigned long max, unsigned long *value)
{
	char *end;

	errno = 0;
	*value = strtoul(text, &end, 10);
	return isdigit((unsigned char)*text) && !*end && !errno && *value <= max;
}

bool hmp_take_uri(struct hmp_command *command, const char *name, const char *text)
{
	char error[URI_ERROR_MAX];
	struct uri uri;

	if (uri_parse(&uri, text, error, sizeof(error))) {
		fail(command, "%s: %s", name, error);
		return false;
	}
	if (!uri_names_peer(&uri)) {
		fail(command, "%s: URI is \"%s\", wanted " URI_WANTED, name, text);
		return false;
	}
	strcpy(command->uri, text);
	return true;
}

static bool take_prefault(struct hmp_command *command, const char *what, const char *text,
			  uint32_t *pages)
{
	unsigned long value;

	if (!parse_number(text, HMP_PREFAULT_MAX, &value)) {
		fail(command, "migrate: %s is \"%s\", wanted 0 to %u pages", what, text,
		     HMP_PREFAULT_MAX);
		return false;
	}
	*pages = (uint32_t)value;
	return true;
}

void hmp_init_migrate(struct hmp_command *command)
{
	*command = (struct hmp_command){
		.kind = HMP_MIGRATE,
		.word = "migrate",
		.forward = HMP_PREFAULT_DEFAULT,
		.backward = HMP_PREFAULT_DEFAULT,
	};
}

static void take_migrate(struct hmp_command *command, const struct words *words)
{
	size_t i;

	for (i = 1; i < words->nr && words->word[i][0] == '-'; i++) {
		const char *flag = words->word[i];

		if (!strcmp(flag, "-d"))
			command->detach = true;
		else if (!strcmp(flag, "-n"))
			command->no_push = true;
		else if (!strcmp(flag, "-m"))
			command->follow = true;
		else if (strcmp(flag, "-p"))
			return fail(command, "migrate: flag \"%s\", %s are possible", flag,
				    command->precopy ? "with capability postcopy-ram only -d and -m" :
				    "with -p only -d, -n and -m");
	}
	if (i == words->nr)
		return fail(command, "migrate: there is no URI, wanted migrate %sURI [forward [backward]] with " URI_WANTED,
			    command->precopy ? "" : "-p ");
	if (!hmp_take_uri(command, "migrate", words->word[i++]))
		return;
	command->ours = command->precopy && (command->follow || i < words->nr);
	if (i < words->nr &&
	    !take_prefault(command, "forward", words->word[i++], &command->forward))
		return;
	if (i < words->nr &&
	    !take_prefault(command, "backward", words->word[i++], &command->backward))
		return;
	if (i < words->nr)
		return fail(command, "migrate: \"%s\" follows the last argument, wanted migrate %sURI [forward [backward]]",
			    words->word[i], command->precopy ? "" : "-p ");
}

/* After GO, at the source: QEMU's name of migrate_recover there. */
static void take_resume(struct hmp_command *command, const struct words *words)
{
	size_t i;

	for (i = 1; i < words->nr && words->word[i][0] == '-'; i++) {
		if (strcmp(words->word[i], "-r") && strcmp(words->word[i], "-d"))
			return fail(command, "migrate: flag \"%s\", with -r only -d is possible",
				    words->word[i]);
	}
	if (words->nr != i + 1)
		return fail(command, "migrate: %zu arguments, wanted migrate -r URI with " URI_WANTED,
			    words->nr - i);
	hmp_take_uri(command, "migrate", words->word[i]);
}

static void take_recover(struct hmp_command *command, const struct words *words)
{
	if (words->nr > 2)
		return fail(command, "migrate_recover: %zu arguments, wanted migrate_recover [URI] with " URI_WANTED,
			    words->nr - 1);
	if (words->nr == 2)
		hmp_take_uri(command, "migrate_recover", words->word[1]);
}

/* Of a migration of QEMU's own the line is QEMU's, whatever umem thinks of it. */
static void parse_recover(struct hmp_command *command, const struct words *words, bool incoming)
{
	(void)incoming;
	if (!strcmp(words->word[0], "migrate"))
		take_resume(command, words);
	else
		take_recover(command, words);
	command->kind = HMP_RECOVER;
}

static void parse_migrate(struct hmp_command *command, const struct words *words, bool incoming)
{
	if (has_flag(words, "-r"))
		return parse_recover(command, words, incoming);
	hmp_init_migrate(command);
	command->precopy = !has_flag(words, "-p");
	if (command->precopy && has_flag(words, "-n"))
		return fail(command, "migrate: -n was given without -p, wanted migrate -p -n URI: pre-copy sends what nobody asked for");
	take_migrate(command, words);
	if (command->precopy)
		command->kind = HMP_MIGRATE_EITHER;
}

static void parse_incoming(struct hmp_command *command, const struct words *words, bool incoming)
{
	command->kind = HMP_GUARDED;
	if (!incoming)
		return;
	if (words->nr != 2)
		return fail(command, "migrate_incoming: %zu arguments, wanted migrate_incoming " URI_WANTED,
			    words->nr - 1);
	if (hmp_take_uri(command, "migrate_incoming", words->word[1]))
		command->kind = HMP_INCOMING;
}

static void parse_info(struct hmp_command *command, const struct words *words, bool incoming)
{
	(void)incoming;
	if (words->nr == 2 && !strcmp(words->word[1], "migrate"))
		command->kind = HMP_INFO_MIGRATE;
	else if (words->nr == 2 && !strcmp(words->word[1], "migrate_parameters"))
		command->kind = HMP_INFO_PARAMETERS;
}

/*
 * QEMU takes sizes up to 2^64 and shows them in its JSON, which few can read: with
 * one of 2^63 or more nobody could ask for its parameters any more.
 */
static bool too_large(const char *text, double unit)
{
	static const char suffixes[] = "bkmgtpe";
	const char *suffix;
	char *end;
	double value = strtod(text, &end);

	suffix = *end ? strchr(suffixes, tolower((unsigned char)*end)) : NULL;
	if (suffix)
		unit = (double)(1ULL << 10 * (suffix - suffixes));
	return value * unit >= 0x1p63;
}

static void take_channels(struct hmp_command *command, const char *text)
{
	unsigned long channels;

	if (!parse_number(text, HMP_URGENT_CHANNELS_MAX, &channels) || !channels)
		return fail(command, "migrate_set_parameter: " HMP_URGENT_CHANNELS " is \"%s\", wanted 1 to %u",
			    text, HMP_URGENT_CHANNELS_MAX);
	command->kind = HMP_CHANNELS;
	command->channels = (unsigned int)channels;
}

bool hmp_take_lost_source(const char *text, bool *poison)
{
	*poison = !strcmp(text, "poison");
	return *poison || !strcmp(text, "wait");
}

static void take_lost_source(struct hmp_command *command, const char *text)
{
	if (!hmp_take_lost_source(text, &command->on))
		return fail(command, "migrate_set_parameter: " HMP_LOST_SOURCE " is \"%s\", wanted wait or poison",
			    text);
	command->kind = HMP_LOST_SOURCE_IS;
}

static void take_paused_limit(struct hmp_command *command, const char *text)
{
	unsigned long seconds;

	if (!parse_number(text, HMP_PAUSED_LIMIT_MAX, &seconds))
		return fail(command, "migrate_set_parameter: " HMP_PAUSED_LIMIT " is \"%s\", wanted 0 to %u seconds",
			    text, HMP_PAUSED_LIMIT_MAX);
	command->kind = HMP_PAUSED_LIMIT_IS;
	command->seconds = (unsigned int)seconds;
}

static void parse_parameter(struct hmp_command *command, const struct words *words, bool incoming)
{
	static const struct {
		const char *name;
		double unit;	/* of a plain number, in bytes; 0: no size */
	} parameters[] = {
		{ "max-bandwidth", 1 << 20 },
		{ "max-postcopy-bandwidth", 1 },
		{ "downtime-limit", 0 },
		{ "multifd-channels", 0 },
	};

	(void)incoming;
	if (words->nr != 3)
		return;
	if (!strcmp(words->word[1], HMP_URGENT_CHANNELS))
		return take_channels(command, words->word[2]);
	if (!strcmp(words->word[1], HMP_LOST_SOURCE))
		return take_lost_source(command, words->word[2]);
	if (!strcmp(words->word[1], HMP_PAUSED_LIMIT))
		return take_paused_limit(command, words->word[2]);
	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		if (strcmp(words->word[1], parameters[i].name))
			continue;
		if (parameters[i].unit > 0 && too_large(words->word[2], parameters[i].unit))
			return fail(command, "migrate_set_parameter: %s is \"%s\", wanted less than 8E bytes a second",
				    words->word[1], words->word[2]);
		command->kind = HMP_PARAMETER;
	}
}

static void parse_capability(struct hmp_command *command, const struct words *words, bool incoming)
{
	(void)incoming;
	if (words->nr != 3 || strcmp(words->word[1], "postcopy-ram"))
		return;
	command->on = !strcmp(words->word[2], "on");
	if (command->on || !strcmp(words->word[2], "off"))
		command->kind = HMP_POSTCOPY_RAM;
}

static void parse_cpu(struct hmp_command *command, const struct words *words, bool incoming)
{
	unsigned long cpu;

	(void)incoming;
	if (words->nr == 2 && parse_number(words->word[1], INT_MAX, &cpu)) {
		command->kind = HMP_CPU;
		command->cpu = (int)cpu;
	}
}

static void parse_help(struct hmp_command *command, const struct words *words, bool incoming)
{
	static const char *const topics[] = {
		"migrate", "migrate_cancel", "migrate_start_postcopy", "migrate_set_parameter",
		"migrate_set_capability", "migrate_pause", "migrate_recover", "migrate_give_up",
	};

	(void)incoming;
	if (words->nr == 1)
		command->kind = HMP_HELP;
	for (size_t i = 0; words->nr == 2 && i < ARRAY_SIZE(topics); i++) {
		if (!strcmp(words->word[1], topics[i]))
			command->kind = HMP_HELP_MIGRATE;
	}
}

static const struct {
	const char *word;
	enum hmp_kind kind;
	void (*parse)(struct hmp_command *command, const struct words *words, bool incoming);
} commands[] = {
	{ "migrate", HMP_MIGRATE, parse_migrate },
	{ "migrate_incoming", HMP_INCOMING, parse_incoming },
	{ "migrate_start_postcopy", HMP_START_POSTCOPY, NULL },
	{ "migrate_cancel", HMP_CANCEL, NULL },
	{ "migrate_pause", HMP_PAUSE, NULL },
	{ "migrate_recover", HMP_PASS, parse_recover },
	{ "migrate_give_up", HMP_GIVE_UP, NULL },
	{ "info", HMP_PASS, parse_info },
	{ "help", HMP_PASS, parse_help },
	{ "?", HMP_PASS, parse_help },
	{ "cpu", HMP_PASS, parse_cpu },
	{ "migrate_set_parameter", HMP_PASS, parse_parameter },
	{ "migrate_set_capability", HMP_PASS, parse_capability },
	{ "cont", HMP_CONT, NULL },
	{ "c", HMP_CONT, NULL },
	{ "stop", HMP_STOP, NULL },
	{ "s", HMP_STOP, NULL },
	{ "system_reset", HMP_GUARDED, NULL },
	{ "system_wakeup", HMP_GUARDED, NULL },
	{ "loadvm", HMP_GUARDED, NULL },
	{ "savevm", HMP_GUARDED, NULL },
	{ "migrate_continue", HMP_GUARDED, NULL },
	{ "gdbserver", HMP_GUARDED, NULL },
};

void hmp_parse(struct hmp_command *command, const char *line, bool incoming)
{
	struct words words;

	*command = (struct hmp_command){ .kind = HMP_PASS };
	if (!split(&words, line) && !words.nr)
		return;		/* too long for any command of ours */
	if (!words.nr) {
		command->kind = HMP_EMPTY;
		return;
	}
	snprintf(command->word, sizeof(command->word), "%s", words.word[0]);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(words.word[0], commands[i].word))
			continue;
		command->kind = commands[i].kind;
		if (commands[i].parse) {
			command->kind = HMP_PASS;
			commands[i].parse(command, &words, incoming);
		}
		return;
	}
}

const char *hmp_help(void)
{
	return
"migrate [-d] [-p [-n]] [-m] uri [forward [backward]] -- move the guest to the umem-qemu at uri\n"
"\t\t\t (" URI_WANTED "), using -d to not wait\n"
"\t\t\t for completion. Without -p this is QEMU's, unless capability postcopy-ram is on:\n"
"\t\t\t then memory is copied while the guest runs here, until little enough is left or\n"
"\t\t\t migrate_start_postcopy; the guest moves, and the rest follows on demand\n"
"\t\t\t -p to move the guest at once, all of its memory follows on demand\n"
"\t\t\t -n to send only pages that are asked for and their prefault\n"
"\t\t\t -m to let the background go on from where the guest last asked\n"
"\t\t\t forward, backward: pages after and before each requested page sent with it (8 8)\n"
"migrate_start_postcopy  -- no more pre-copy: the guest moves now, whatever is left\n"
"migrate_cancel  -- before the hand-over: give the migration up, the guest stays\n"
"migrate_pause  -- after the hand-over: nothing is sent or brought until migrate_recover\n"
"migrate_recover [uri]  -- paused: connect, or listen, again; from now on at uri if it is given\n"
"migrate -r uri  -- the same, at the source\n"
"migrate_give_up  -- where the guest has come to, state paused: its source is lost for good.\n"
"\t\t\t Pages that have not arrived are poisoned: the guest gets a machine check where\n"
"\t\t\t it touches one, and goes on everywhere else\n"
"migrate_set_capability postcopy-ram on|off -- whether migrate without -p is umem's\n"
"migrate_set_parameter, of umem's migrations, also while one runs:\n"
"\t\t\t max-bandwidth bytes -- sent a second, at most, before the guest moves (0: no limit)\n"
"\t\t\t max-postcopy-bandwidth bytes -- after that, of pages nobody asked for (0: no limit)\n"
"\t\t\t downtime-limit ms -- pre-copy is over once what is left takes no longer\n"
"\t\t\t multifd-channels n -- connections for pages nobody asked for, 1 to 16\n"
"\t\t\t urgent-channels n -- connections for pages that are asked for, 1 to 16; not QEMU's\n"
"\t\t\t paused-limit seconds -- where the guest has come to: how long it waits for its source\n"
"\t\t\t before event PAUSED-LIMIT (0: for ever); not QEMU's\n"
"\t\t\t lost-source wait|poison -- where the guest comes to: what is done when its source\n"
"\t\t\t has been waited for as long as is allowed; not QEMU's\n"
"\t\t\t multifd-compression none|zstd -- for the next: pages nobody asked for are compressed\n"
"\t\t\t one by one\n"
"info migrate  -- how umem's migration stands\n";
}
