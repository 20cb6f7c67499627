// SPDX-License-Identifier: GPL-2.0-or-later
#include <signal.h>
#include <stdio.h>

#include "common/log.h"
#include "umemd/destination.h"
#include "umemd/options.h"
#include "umemd/source.h"

int main(int argc, char **argv)
{
	static struct options options;
	char error[OPTIONS_ERROR_MAX];

	log_init("umemd", LOG_LEVEL_INFO);
	switch (options_parse(&options, argc, argv, error)) {
	case OPTIONS_HELP:
		fputs(options_help, stdout);
		return 0;
	case OPTIONS_VERSION:
		printf("umemd %s, protocol %d to %d\n", UMEM_VERSION, PROTOCOL_MIN_VERSION,
		       PROTOCOL_VERSION);
		return 0;
	case OPTIONS_WRONG:
		log_error("%s", error);
		return 2;
	case OPTIONS_RUN:
		break;
	}
	signal(SIGPIPE, SIG_IGN);
	/* ^C at a terminal is for the launcher, which decides what it means. */
	signal(SIGINT, SIG_IGN);

	if (options.role == ROLE_SOURCE) {
		log_init("umemd source", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
		return source_run(&options);
	}
	log_init("umemd destination", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
	return destination_run(&options);
}
