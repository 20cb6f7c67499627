// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/options.h"

#include <stdio.h>
#include <string.h>

#include "umemd/tests/cmocka_first.h"

static struct options options;
static char error[OPTIONS_ERROR_MAX];

static enum options_result parse(const char *line)
{
	static char copy[4096];
	char *arguments[64], *rest = NULL;
	int count = 0;

	strcpy(copy, line);
	arguments[count++] = (char *)"umemd";
	for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		arguments[count++] = word;
	arguments[count] = NULL;
	error[0] = '\0';
	return options_parse(&options, count, arguments, error);
}

static void expect_wrong(const char *line, const char *part)
{
	assert_int_equal(parse(line), OPTIONS_WRONG);
	if (!strstr(error, part))
		fail_msg("\"%s\" says \"%s\", wanted \"%s\" in it", line, error, part);
}

#define SOURCE "source --control-fd=3 --state-fd=4 --uri=tcp:host:4444 --region=ram0:5:8192 "
#define DESTINATION "destination --control-fd=3 --state-fd=4 --uri=tcp:0:0 --region=ram0:5:8192 "

static void test_source(void **state)
{
	(void)state;
	assert_int_equal(parse(SOURCE "--region=pc.bios:6:4096"), OPTIONS_RUN);
	assert_int_equal(options.role, ROLE_SOURCE);
	assert_int_equal(options.control_fd, 3);
	assert_int_equal(options.state_fd, 4);
	assert_string_equal(options.uri_text, "tcp:host:4444");
	assert_string_equal(options.uri.host, "host");
	assert_int_equal(options.uri.port, 4444);
	assert_int_equal(options.nr_regions, 2);
	assert_string_equal(options.regions[0].name, "ram0");
	assert_int_equal(options.region_fds[0], 5);
	assert_int_equal(options.regions[0].length, 8192);
	assert_string_equal(options.regions[1].name, "pc.bios");
	assert_true(options.policy.push && options.checksum && !options.policy.follow);
	assert_int_equal(options.policy.forward, 0);
	assert_int_equal(options.policy.backward, 0);
	assert_int_equal(options.connect_timeout, 10);
	assert_false(options.verbose);

	assert_int_equal(parse(SOURCE "--forward=32 --backward 7 --no-push --follow --no-checksum --connect-timeout=3600 --verbose"),
			 OPTIONS_RUN);
	assert_int_equal(options.policy.forward, 32);
	assert_int_equal(options.policy.backward, 7);
	assert_true(!options.policy.push && !options.checksum && options.policy.follow);
	assert_int_equal(options.connect_timeout, 3600);
	assert_true(options.verbose);

	assert_false(options.precopy);
	assert_int_equal(parse(SOURCE "--precopy"), OPTIONS_RUN);
	assert_true(options.precopy && options.policy.push);
}

static void test_going_on(void **state)
{
#define GOES_ON "source --control-fd=3 --uri=tcp:host:4444 --region=ram0:5:8192 --resume=8 "
	(void)state;
	assert_int_equal(parse(GOES_ON), OPTIONS_RUN);
	assert_int_equal(options.resume_fd, 8);
	assert_int_equal(options.state_fd, -1);
	expect_wrong(GOES_ON "--state-fd=4", "--resume and --state-fd");
	expect_wrong(GOES_ON "--precopy", "--resume and --precopy");
	expect_wrong(GOES_ON "--listen-fd=4", "--listen-fd is for the destination only");
	expect_wrong(GOES_ON "--resume=x", "--resume is \"x\", wanted a number");
}

static void test_destination(void **state)
{
	(void)state;
	assert_int_equal(parse(DESTINATION), OPTIONS_RUN);
	assert_int_equal(options.role, ROLE_DESTINATION);
	assert_true(options.preallocate);
	assert_false(options.touch);
	assert_int_equal(options.listen_fd, -1);
	assert_int_equal(options.resume_fd, -1);
	assert_int_equal(parse(DESTINATION "--listen-fd=9"), OPTIONS_RUN);
	assert_int_equal(options.listen_fd, 9);
	assert_int_equal(parse(DESTINATION "--no-prealloc --touch"), OPTIONS_RUN);
	assert_false(options.preallocate);
	assert_true(options.touch);
}

static void test_help_and_version(void **state)
{
	(void)state;
	assert_int_equal(parse("--help"), OPTIONS_HELP);
	assert_int_equal(parse("--version"), OPTIONS_VERSION);
	assert_int_equal(parse("source --help"), OPTIONS_HELP);
	assert_int_equal(parse("destination --version"), OPTIONS_VERSION);
}

static void test_roles(void **state)
{
	(void)state;
	expect_wrong("", "wanted \"source\" or \"destination\"");
	expect_wrong("sauce", "the role is \"sauce\", wanted \"source\" or \"destination\"");
	expect_wrong(SOURCE "--no-prealloc", "--no-prealloc is for the destination only");
	expect_wrong(SOURCE "--touch", "--touch is for the destination only");
	expect_wrong(DESTINATION "--forward=1", "--forward is for the source only");
	expect_wrong(DESTINATION "--no-push", "--no-push is for the source only");
	expect_wrong(DESTINATION "--precopy", "--precopy is for the source only");
	expect_wrong(SOURCE "--precopy --no-push", "--no-push does not: wanted one of them");
	expect_wrong(DESTINATION "--connect-timeout=1", "for the source only");
}

static void test_what_is_missing_is_named(void **state)
{
	(void)state;
	expect_wrong("source", "--control-fd is missing");
	expect_wrong("source --control-fd=3", "--state-fd is missing");
	expect_wrong("source --control-fd=3 --state-fd=4", "--uri is missing");
	expect_wrong("source --control-fd=3 --state-fd=4 --uri=tcp:a:1", "--region is missing");
	expect_wrong("source --uri", "--uri needs a value");
}

static void test_numbers(void **state)
{
	(void)state;
	expect_wrong(SOURCE "--forward=-1", "--forward is \"-1\", wanted a number from 0 to 4294967296");
	expect_wrong(SOURCE "--forward=4294967297", "--forward is \"4294967297\"");
	expect_wrong(SOURCE "--forward=99999999999999999999999", "--forward is");
	expect_wrong(SOURCE "--backward=x", "--backward is \"x\"");
	expect_wrong(SOURCE "--backward=1x", "--backward is \"1x\"");
	expect_wrong(SOURCE "--backward=", "--backward is \"\"");
	expect_wrong(SOURCE "--max-bulk-bandwidth=9223372036854775808",
		     "--max-bulk-bandwidth is \"9223372036854775808\", wanted a number from 0 to 9223372036854775807");
	assert_int_equal(parse(SOURCE "--max-bulk-bandwidth=123456"), OPTIONS_RUN);
	assert_int_equal(options.max_bulk_bandwidth, 123456);
	assert_int_equal(parse(SOURCE), OPTIONS_RUN);
	assert_int_equal(options.max_bulk_bandwidth, 0);
	expect_wrong(SOURCE "--compress=zlib", "--compress is \"zlib\", wanted none or zstd");
	expect_wrong(SOURCE "--compress", "--compress needs a value");
	assert_int_equal(parse(SOURCE "--compress=zstd"), OPTIONS_RUN);
	assert_true(options.compress);
	assert_int_equal(parse(SOURCE "--compress=zstd --compress=none"), OPTIONS_RUN);
	assert_false(options.compress);
	expect_wrong(SOURCE "--connect-timeout=0", "--connect-timeout is \"0\", wanted a number from 1 to 3600");
	expect_wrong(SOURCE "--control-fd=2147483648", "--control-fd is \"2147483648\"");
}

static void test_regions(void **state)
{
	char line[REGIONS_MAX * 32 + 64] = SOURCE;

	(void)state;
	expect_wrong(SOURCE "--region=ram1", "--region is \"ram1\", wanted NAME:FD:LENGTH");
	expect_wrong(SOURCE "--region=ram1:5", "wanted NAME:FD:LENGTH");
	expect_wrong(SOURCE "--region=:5:4096", "the name is not 1 to 63 printable characters");
	expect_wrong(SOURCE "--region=\x01:5:4096", "the name is not");
	expect_wrong(SOURCE "--region=0123456789012345678901234567890123456789012345678901234567890123:5:4096",
		     "the name is not 1 to 63");
	expect_wrong(SOURCE "--region=ram1:x:4096", "the descriptor is \"x\", wanted a number");
	expect_wrong(SOURCE "--region=ram1::4096", "the descriptor is \"\"");
	expect_wrong(SOURCE "--region=ram1:5:4097", "the length is \"4097\", wanted a positive multiple of 4096");
	expect_wrong(SOURCE "--region=ram1:5:0", "the length is \"0\"");
	expect_wrong(SOURCE "--region=ram1:5:4096:7", "the length is \"4096:7\"");
	expect_wrong(SOURCE "--region=ram1:5:9223372036854775808", "the length is \"9223372036854775808\"");
	expect_wrong(SOURCE "--region=ram0:6:4096", "--region \"ram0\" is there twice");

	for (int i = 0; i < 40; i++) {
		char region[32];

		snprintf(region, sizeof(region), "--region=x%d:5:4096 ", i);
		strcat(line, region);
	}
	assert_int_equal(parse(line), OPTIONS_RUN);
	assert_int_equal(options.nr_regions, 41);
}

static void test_uris(void **state)
{
	(void)state;
	assert_int_equal(parse(SOURCE "--uri=unix:/run/x"), OPTIONS_RUN);
	assert_int_equal(options.uri.kind, URI_UNIX);
	assert_string_equal(options.uri_text, "unix:/run/x");
	assert_int_equal(parse(DESTINATION "--uri=unix:x"), OPTIONS_RUN);
	expect_wrong(SOURCE "--uri=defer", "--uri is \"defer\", wanted tcp:HOST:PORT, unix:PATH, fd:NUMBER or exec:COMMAND");
	expect_wrong(SOURCE "--uri=tcp:host", "no port");
	expect_wrong(SOURCE "--uri=tcp:host:0", "wanted a port from 1 to 65535 to connect to");
}

static void test_tls(void **state)
{
	(void)state;
	assert_int_equal(parse(SOURCE), OPTIONS_RUN);
	assert_int_equal(options.tls.kind, CREDENTIALS_NONE);
	assert_int_equal(parse(SOURCE "--tls-x509=/etc/pki/qemu --tls-hostname=b --tls-no-verify --tls-priority=NORMAL:-VERS-TLS1.2"),
			 OPTIONS_RUN);
	assert_int_equal(options.tls.kind, CREDENTIALS_X509);
	assert_string_equal(options.tls.folder, "/etc/pki/qemu");
	assert_string_equal(options.tls.hostname, "b");
	assert_string_equal(options.tls.priority, "NORMAL:-VERS-TLS1.2");
	assert_true(options.tls.no_verify);
	assert_int_equal(parse(SOURCE "--tls-psk=/p --tls-username=u"), OPTIONS_RUN);
	assert_int_equal(options.tls.kind, CREDENTIALS_PSK);
	assert_string_equal(options.tls.username, "u");
	assert_int_equal(parse(DESTINATION "--tls-psk=/p"), OPTIONS_RUN);
	assert_int_equal(parse(DESTINATION "--tls-x509=/p --tls-no-verify"), OPTIONS_RUN);

	expect_wrong(SOURCE "--tls-psk=/p --tls-x509=/p", "--tls-x509 comes after another --tls-x509 or --tls-psk, wanted one");
	expect_wrong(SOURCE "--tls-x509=", "--tls-x509 is empty, wanted a folder of credentials");
	expect_wrong(SOURCE "--tls-priority=NORMAL", "--tls-priority is there without");
	expect_wrong(SOURCE "--tls-hostname=b", "--tls-hostname is there without --tls-x509");
	expect_wrong(SOURCE "--tls-psk=/p --tls-no-verify", "--tls-no-verify is there without --tls-x509");
	expect_wrong(SOURCE "--tls-x509=/p --tls-username=u", "--tls-username is there without --tls-psk");
	expect_wrong(DESTINATION "--tls-psk=/p --tls-username=u", "--tls-username is for the source only");
	expect_wrong(DESTINATION "--tls-x509=/p --tls-hostname=b", "--tls-hostname is for the source only");
}

static void test_unknown(void **state)
{
	(void)state;
	expect_wrong(SOURCE "--frobnicate", "option --frobnicate is unknown");
	expect_wrong(SOURCE "--no-push=1", "has a value it does not take");
	expect_wrong(SOURCE "surplus", "argument \"surplus\" is not wanted");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_source),
		cmocka_unit_test(test_destination),
		cmocka_unit_test(test_going_on),
		cmocka_unit_test(test_help_and_version),
		cmocka_unit_test(test_roles),
		cmocka_unit_test(test_what_is_missing_is_named),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_uris),
		cmocka_unit_test(test_tls),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
