// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Command lines of umemd: what is understood is complete and within the limits.
 *
 * Input: words, each of which ends with a newline.
 */
#include "fuzz.h"

#include "umemd/options.h"

#define WORDS_MAX	300

static void check_options(const struct options *options)
{
	must(options->control_fd >= 0 && options->state_fd >= 0 && options->uri_text[0]);
	must(uri_names_peer(&options->uri));
	must(options->nr_regions && options->nr_regions <= REGIONS_MAX);
	must(options->policy.forward <= PREFAULT_MAX && options->policy.backward <= PREFAULT_MAX);
	must(options->connect_timeout && options->connect_timeout <= 3600);
	must(options->policy.push || !options->precopy);
	for (uint32_t i = 0; i < options->nr_regions; i++) {
		const struct hello_region *region = &options->regions[i];

		must(region_name_valid(region->name, strnlen(region->name, REGION_NAME_MAX)));
		must(region->length && region->length % PAGE_BYTES == 0);
		must(options->region_fds[i] >= 0);
		for (uint32_t j = 0; j < i; j++)
			must(strcmp(region->name, options->regions[j].name));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct options options;
	struct input input = { data, size };
	char *argv[WORDS_MAX + 1] = { (char *)"umemd" }, error[OPTIONS_ERROR_MAX] = "";
	char *text = input_string(&input), *rest = text;
	int argc = 1;

	while (argc < WORDS_MAX && (argv[argc] = strsep(&rest, "\n")))
		argc++;
	argv[argc] = NULL;
	switch (options_parse(&options, argc, argv, error)) {
	case OPTIONS_RUN:
		check_options(&options);
		break;
	case OPTIONS_WRONG:
		must(error[0] && strlen(error) < sizeof(error));
		break;
	default:
		break;
	}
	free(text);
	return 0;
}
