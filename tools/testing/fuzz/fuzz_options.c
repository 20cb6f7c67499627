// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Command lines of umem-qemu, files of -readconfig, and QEMU's option arguments: what
 * is understood has regions of good lengths and names, and makes a command line for QEMU.
 *
 * Input: which of them (1), then the text; words of a command line end with a newline.
 */
#include "fuzz.h"

#include "common/util.h"
#include "umem-qemu/keyval.h"
#include "umem-qemu/options.h"

#define WORDS_MAX	48

static void check_options(const struct options *options)
{
	int fds[OPTIONS_REGIONS_MAX] = { 0 };
	char **argv;

	must(options->nr_regions <= OPTIONS_REGIONS_MAX);
	must(options->nr_monitors <= OPTIONS_MONITORS_MAX);
	must(options->nr_configs <= OPTIONS_CONFIGS_MAX);
	for (size_t i = 0; i < options->nr_regions; i++) {
		must(options->regions[i].name[0] && options->regions[i].length);
		for (size_t j = 0; j < i; j++)
			must(strcmp(options->regions[i].name, options->regions[j].name));
	}
	for (size_t i = 0; i < options->nr_monitors; i++)
		must(options->monitors[i].path || options->monitors[i].kind == MONITOR_STDIO);
	if (options->help || options->version)
		return;
	argv = options_qemu_argv(options, "qemu", fds, 3, options->nr_regions & 1);
	must(argv && argv[0]);
	options_free_argv(argv);
}

static void check_command_line(char *text)
{
	char *argv[WORDS_MAX + 1] = { (char *)"umem-qemu" }, *rest = text, *error = NULL;
	struct options options;
	int argc = 1;

	while (argc < WORDS_MAX && (argv[argc] = strsep(&rest, "\n")))
		argc++;
	argv[argc] = NULL;
	if (options_parse(&options, argc, argv, &error))
		must(error && error[0]);
	else
		check_options(&options);
	free(error);
	options_destroy(&options);
}

static void check_config(char *text)
{
	char *error = NULL;

	if (options_check_config("config", text, &error))
		must(error && error[0]);
	free(error);
}

/* As it came, or at least meaning the same. Empty parts need not be kept. */
static void check_keyval(char *text)
{
	struct keyval keyval, again;
	char *error = NULL, *other = NULL, *formatted;
	const char *value;

	if (keyval_parse(&keyval, text, "size", &error)) {
		must(error && error[0]);
		free(error);
		keyval_destroy(&keyval);
		return;
	}
	formatted = keyval_format(&keyval);
	must(!keyval_parse(&again, formatted, "size", &other));
	must(again.nr == keyval.nr || *text == ',');
	for (size_t i = 0; i < keyval.nr && again.nr == keyval.nr; i++) {
		must(!strcmp(again.pairs[i].key, keyval.pairs[i].key));
		must(!again.pairs[i].value == !keyval.pairs[i].value);
		must(!again.pairs[i].value ||
		     !strcmp(again.pairs[i].value, keyval.pairs[i].value));
	}
	keyval_set(&keyval, "id", "a,b=c");
	value = keyval_get(&keyval, "id");
	must(value && !strcmp(value, "a,b=c"));
	keyval_set_bool(&keyval, "share", true);
	value = keyval_get(&keyval, "share");
	must(value && keyval_parse_bool(value) == 1);
	keyval_remove(&keyval, "share");
	must(!keyval_get(&keyval, "share"));
	free(formatted);
	keyval_destroy(&keyval);
	keyval_destroy(&again);
}

static void check_size(char *text)
{
	uint64_t size;

	keyval_parse_bool(text);
	if (!keyval_parse_size(text, 1, &size) && strspn(text, "0123456789") == strlen(text))
		must(size == strtoull(text, NULL, 10));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const checks[])(char *text) = {
		check_command_line, check_config, check_keyval, check_size,
	};
	struct input input = { data, size };
	uint8_t which = input_u8(&input);
	char *text = input_string(&input);

	json_object_seed(1);
	checks[which % ARRAY_SIZE(checks)](text);
	free(text);
	return 0;
}
