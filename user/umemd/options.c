// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

const char options_help[] =
"umemd moves the memory of a guest to another host while the guest runs there.\n"
"It is started by umem-qemu, with every descriptor it needs already open. Before it\n"
"speaks to the other side it gives up all rights that it can do without: see\n"
"\"Privileges\" in Documentation/operations.rst.\n"
"\n"
"  umemd source OPTIONS        the guest is here: send its pages\n"
"  umemd destination OPTIONS   the guest comes here: bring its pages\n"
"  umemd --help | --version\n"
"\n"
"  --control-fd=N          commands in and events out, JSON objects, one a line\n"
"  --state-fd=N            the guest's device state: read by the source,\n"
"                          written by the destination\n"
"  --uri=URI               where to connect to, or to listen:\n"
"                          " URI_WANTED "\n"
"  --region=NAME:FD:LENGTH a region of the guest; once for each\n"
"  --resume=N              go on with the session of a umemd that has ended: read from\n"
"                          there what it told of it, in place of --state-fd\n"
"  --tls-x509=FOLDER       encrypt all of it, with the certificates in there; files\n"
"                          and checks are those of QEMU's tls-creds-x509\n"
"  --tls-psk=FOLDER        encrypt all of it, with the keys in FOLDER/keys.psk\n"
"  --tls-no-verify         with --tls-x509: take any certificate, or none\n"
"  --tls-priority=STRING   what to agree on, as gnutls writes it (NORMAL); never less\n"
"                          than TLS 1.2\n"
"  --verbose               tell more on standard error\n"
"\n"
"source only:\n"
"  --forward=N             pages sent along after each requested one (0)\n"
"  --backward=N            pages sent along before each requested one (0)\n"
"  --no-push               send only what is asked for\n"
"  --follow                push on from behind the last requested page\n"
"  --precopy               send memory while the guest still runs, in rounds, until\n"
"                          it is stopped\n"
"  --max-bulk-bandwidth=N  bytes a second to send at most of what nobody asked for;\n"
"                          0 is no limit (0)\n"
"  --compress=none|zstd    of pages nobody asked for, send those compressed that get\n"
"                          smaller (none)\n"
"  --no-checksum           send pages without checksums\n"
"  --tls-hostname=NAME     with --tls-x509: whom the destination's certificate has to\n"
"                          name (the host of --uri)\n"
"  --tls-username=NAME     with --tls-psk: whose key to use (" CREDENTIALS_USER ")\n"
"  --connect-timeout=N     seconds to wait for the destination (10)\n"
"\n"
"destination only:\n"
"  --listen-fd=N           a socket that listens already at URI\n"
"  --no-prealloc           do not take the memory before the guest moves\n"
"  --touch                 touch each page, once it is there, in the other children\n"
"                          of the launcher that map it when this one is started, so\n"
"                          that it is no fault there any more\n"
"\n"
"Exit status: 0 done, 1 failed, 2 wrong use.\n";

enum option_key {
	KEY_HELP = 1,
	KEY_VERSION,
	KEY_VERBOSE,
	KEY_CONTROL_FD,
	KEY_STATE_FD,
	KEY_RESUME,
	KEY_URI,
	KEY_REGION,
	KEY_TLS_X509,
	KEY_TLS_PSK,
	KEY_TLS_NO_VERIFY,
	KEY_TLS_PRIORITY,
	KEY_FORWARD,
	KEY_BACKWARD,
	KEY_NO_PUSH,
	KEY_FOLLOW,
	KEY_PRECOPY,
	KEY_MAX_BULK_BANDWIDTH,
	KEY_COMPRESS,
	KEY_NO_CHECKSUM,
	KEY_TLS_HOSTNAME,
	KEY_TLS_USERNAME,
	KEY_CONNECT_TIMEOUT,
	KEY_LISTEN_FD,
	KEY_NO_PREALLOC,
	KEY_TOUCH,
};

static const struct option long_options[] = {
	{ "help", no_argument, NULL, KEY_HELP },
	{ "version", no_argument, NULL, KEY_VERSION },
	{ "verbose", no_argument, NULL, KEY_VERBOSE },
	{ "control-fd", required_argument, NULL, KEY_CONTROL_FD },
	{ "state-fd", required_argument, NULL, KEY_STATE_FD },
	{ "resume", required_argument, NULL, KEY_RESUME },
	{ "uri", required_argument, NULL, KEY_URI },
	{ "region", required_argument, NULL, KEY_REGION },
	{ "tls-x509", required_argument, NULL, KEY_TLS_X509 },
	{ "tls-psk", required_argument, NULL, KEY_TLS_PSK },
	{ "tls-no-verify", no_argument, NULL, KEY_TLS_NO_VERIFY },
	{ "tls-priority", required_argument, NULL, KEY_TLS_PRIORITY },
	{ "tls-hostname", required_argument, NULL, KEY_TLS_HOSTNAME },
	{ "tls-username", required_argument, NULL, KEY_TLS_USERNAME },
	{ "forward", required_argument, NULL, KEY_FORWARD },
	{ "backward", required_argument, NULL, KEY_BACKWARD },
	{ "no-push", no_argument, NULL, KEY_NO_PUSH },
	{ "follow", no_argument, NULL, KEY_FOLLOW },
	{ "precopy", no_argument, NULL, KEY_PRECOPY },
	{ "max-bulk-bandwidth", required_argument, NULL, KEY_MAX_BULK_BANDWIDTH },
	{ "compress", required_argument, NULL, KEY_COMPRESS },
	{ "no-checksum", no_argument, NULL, KEY_NO_CHECKSUM },
	{ "connect-timeout", required_argument, NULL, KEY_CONNECT_TIMEOUT },
	{ "listen-fd", required_argument, NULL, KEY_LISTEN_FD },
	{ "no-prealloc", no_argument, NULL, KEY_NO_PREALLOC },
	{ "touch", no_argument, NULL, KEY_TOUCH },
	{ NULL, 0, NULL, 0 },
};

static enum options_result __attribute__((format(printf, 2, 3)))
misuse(char *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, OPTIONS_ERROR_MAX, format, args);
	va_end(args);
	return OPTIONS_WRONG;
}

/* Digits only, at most @limit. */
static int parse_number(const char *text, uint64_t limit, uint64_t *value)
{
	unsigned long long number;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno || *end || number > limit)
		return -ERANGE;
	*value = number;
	return 0;
}

static enum options_result take_number(const char *option, const char *text, uint64_t low,
				       uint64_t high, uint64_t *value, char *error)
{
	if (parse_number(text, high, value) || *value < low)
		return misuse(error, "--%s is \"%s\", wanted a number from %llu to %llu", option,
			      text, (unsigned long long)low, (unsigned long long)high);
	return OPTIONS_RUN;
}

static enum options_result take_region(struct options *options, const char *text, char *error)
{
	const char *fd_text = strchr(text, ':');
	const char *length_text = fd_text ? strchr(fd_text + 1, ':') : NULL;
	struct hello_region *region;
	char digits[16];
	uint64_t fd;

	if (!length_text)
		return misuse(error, "--region is \"%s\", wanted NAME:FD:LENGTH", text);
	if (options->nr_regions == REGIONS_MAX)
		return misuse(error, "--region is there more than %d times", REGIONS_MAX);
	region = &options->regions[options->nr_regions];

	if (!region_name_valid(text, (size_t)(fd_text - text)))
		return misuse(error, "--region \"%s\": the name is not 1 to %d printable characters",
			      text, REGION_NAME_MAX - 1);
	memset(region->name, 0, sizeof(region->name));
	memcpy(region->name, text, (size_t)(fd_text - text));

	snprintf(digits, sizeof(digits), "%.*s", (int)(length_text - fd_text - 1), fd_text + 1);
	if (parse_number(digits, INT_MAX, &fd))
		return misuse(error, "--region \"%s\": the descriptor is \"%s\", wanted a number",
			      text, digits);
	if (parse_number(length_text + 1, INT64_MAX, &region->length) || !region->length ||
	    region->length % PAGE_BYTES)
		return misuse(error, "--region \"%s\": the length is \"%s\", wanted a positive multiple of %d",
			      text, length_text + 1, PAGE_BYTES);
	for (uint32_t i = 0; i < options->nr_regions; i++) {
		if (!strcmp(options->regions[i].name, region->name))
			return misuse(error, "--region \"%s\" is there twice", region->name);
	}
	options->region_fds[options->nr_regions++] = (int)fd;
	return OPTIONS_RUN;
}

static enum options_result take_uri(struct options *options, const char *text, char *error)
{
	if (uri_parse(&options->uri, text, error, OPTIONS_ERROR_MAX))
		return OPTIONS_WRONG;
	if (!uri_names_peer(&options->uri))
		return misuse(error, "--uri is \"%s\", wanted " URI_WANTED, text);
	if (options->uri.kind == URI_TCP && options->role == ROLE_SOURCE && !options->uri.port)
		return misuse(error, "--uri is \"%s\", wanted a port from 1 to 65535 to connect to",
			      text);
	strcpy(options->uri_text, text);
	return OPTIONS_RUN;
}

static enum options_result take_folder(struct options *options, enum credentials_kind kind,
				       const char *name, const char *text, char *error)
{
	if (options->tls.kind)
		return misuse(error, "--%s comes after another --tls-x509 or --tls-psk, wanted one of them", name);
	if (!*text)
		return misuse(error, "--%s is empty, wanted a folder of credentials", name);
	options->tls.kind = kind;
	options->tls.folder = text;
	return OPTIONS_RUN;
}

static enum options_result take(struct options *options, enum option_key key, const char *name,
				const char *text, char *error)
{
	enum options_result result = OPTIONS_RUN;
	uint64_t value = 0;

	if (key >= KEY_FORWARD && key <= KEY_CONNECT_TIMEOUT && options->role != ROLE_SOURCE)
		return misuse(error, "--%s is for the source only", name);
	if (key >= KEY_LISTEN_FD && options->role != ROLE_DESTINATION)
		return misuse(error, "--%s is for the destination only", name);

	switch (key) {
	case KEY_HELP:
		return OPTIONS_HELP;
	case KEY_VERSION:
		return OPTIONS_VERSION;
	case KEY_VERBOSE:
		options->verbose = true;
		break;
	case KEY_CONTROL_FD:
		result = take_number(name, text, 0, INT_MAX, &value, error);
		options->control_fd = (int)value;
		break;
	case KEY_STATE_FD:
		result = take_number(name, text, 0, INT_MAX, &value, error);
		options->state_fd = (int)value;
		break;
	case KEY_RESUME:
		result = take_number(name, text, 0, INT_MAX, &value, error);
		options->resume_fd = (int)value;
		break;
	case KEY_URI:
		return take_uri(options, text, error);
	case KEY_REGION:
		return take_region(options, text, error);
	case KEY_TLS_X509:
		return take_folder(options, CREDENTIALS_X509, name, text, error);
	case KEY_TLS_PSK:
		return take_folder(options, CREDENTIALS_PSK, name, text, error);
	case KEY_TLS_NO_VERIFY:
		options->tls.no_verify = true;
		break;
	case KEY_TLS_PRIORITY:
		options->tls.priority = text;
		break;
	case KEY_TLS_HOSTNAME:
		options->tls.hostname = text;
		break;
	case KEY_TLS_USERNAME:
		options->tls.username = text;
		break;
	case KEY_FORWARD:
		return take_number(name, text, 0, PREFAULT_MAX, &options->policy.forward, error);
	case KEY_BACKWARD:
		return take_number(name, text, 0, PREFAULT_MAX, &options->policy.backward, error);
	case KEY_NO_PUSH:
		options->policy.push = false;
		break;
	case KEY_FOLLOW:
		options->policy.follow = true;
		break;
	case KEY_PRECOPY:
		options->precopy = true;
		break;
	case KEY_MAX_BULK_BANDWIDTH:
		return take_number(name, text, 0, INT64_MAX, &options->max_bulk_bandwidth, error);
	case KEY_COMPRESS:
		options->compress = !strcmp(text, "zstd");
		if (!options->compress && strcmp(text, "none"))
			return misuse(error, "--compress is \"%s\", wanted none or zstd", text);
		break;
	case KEY_NO_CHECKSUM:
		options->checksum = false;
		break;
	case KEY_CONNECT_TIMEOUT:
		result = take_number(name, text, 1, 3600, &value, error);
		options->connect_timeout = (unsigned int)value;
		break;
	case KEY_LISTEN_FD:
		result = take_number(name, text, 0, INT_MAX, &value, error);
		options->listen_fd = (int)value;
		break;
	case KEY_NO_PREALLOC:
		options->preallocate = false;
		break;
	case KEY_TOUCH:
		options->touch = true;
		break;
	}
	return result;
}

/* An option that would mean nothing may be a way to have meant more. */
static enum options_result check_tls(const struct credentials_setup *tls, char *error)
{
	if (tls->priority && !tls->kind)
		return misuse(error, "--tls-priority is there without --tls-x509 or --tls-psk, wanted one of them");
	if ((tls->no_verify || tls->hostname) && tls->kind != CREDENTIALS_X509)
		return misuse(error, "--tls-%s is there without --tls-x509, wanted that",
			      tls->hostname ? "hostname" : "no-verify");
	if (tls->username && tls->kind != CREDENTIALS_PSK)
		return misuse(error, "--tls-username is there without --tls-psk, wanted that");
	return OPTIONS_RUN;
}

static enum options_result check_complete(const struct options *options, char *error)
{
	if (options->control_fd < 0)
		return misuse(error, "--control-fd is missing");
	if (options->state_fd < 0 && options->resume_fd < 0)
		return misuse(error, "--state-fd is missing");
	if (options->state_fd >= 0 && options->resume_fd >= 0)
		return misuse(error, "--resume and --state-fd are both there, wanted one: what goes on has its device state");
	if (options->resume_fd >= 0 && options->precopy)
		return misuse(error, "--resume and --precopy are both there: what goes on has left pre-copy behind");
	if (!options->uri_text[0])
		return misuse(error, "--uri is missing");
	if (!options->nr_regions)
		return misuse(error, "--region is missing");
	if (options->precopy && !options->policy.push)
		return misuse(error, "--precopy sends what nobody asked for, --no-push does not: wanted one of them");
	return check_tls(&options->tls, error);
}

enum options_result options_parse(struct options *options, int argc, char **argv, char *error)
{
	enum options_result result;
	int key, index = 0;

	memset(options, 0, sizeof(*options));
	options->control_fd = options->state_fd = -1;
	options->resume_fd = options->listen_fd = -1;
	options->policy.push = true;
	options->checksum = true;
	options->preallocate = true;
	options->connect_timeout = 10;

	if (argc < 2)
		return misuse(error, "wanted \"source\" or \"destination\"; see umemd --help");
	if (!strcmp(argv[1], "--help"))
		return OPTIONS_HELP;
	if (!strcmp(argv[1], "--version"))
		return OPTIONS_VERSION;
	if (!strcmp(argv[1], "source"))
		options->role = ROLE_SOURCE;
	else if (!strcmp(argv[1], "destination"))
		options->role = ROLE_DESTINATION;
	else
		return misuse(error, "the role is \"%s\", wanted \"source\" or \"destination\"",
			      argv[1]);

	optind = 0;	/* start over, whatever was parsed before */
	opterr = 0;
	while ((key = getopt_long(argc - 1, argv + 1, ":", long_options, &index)) != -1) {
		if (key == ':')
			return misuse(error, "%s needs a value", argv[optind]);
		if (key == '?')
			return misuse(error, "option %s is unknown or has a value it does not take",
				      argv[optind]);
		result = take(options, (enum option_key)key, long_options[index].name, optarg,
			      error);
		if (result != OPTIONS_RUN)
			return result;
	}
	if (optind < argc - 1)
		return misuse(error, "argument \"%s\" is not wanted", argv[1 + optind]);
	return check_complete(options, error);
}
