// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/uri.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

static char error[URI_ERROR_MAX];

static void expect_tcp(const char *text, const char *host, unsigned int port)
{
	struct uri uri;

	assert_int_equal(uri_parse(&uri, text, error, sizeof(error)), 0);
	assert_int_equal(uri.kind, URI_TCP);
	assert_string_equal(uri.host, host);
	assert_int_equal(uri.port, port);
}

static void expect_refused(const char *text, const char *part)
{
	struct uri uri;

	error[0] = '\0';
	assert_int_equal(uri_parse(&uri, text, error, sizeof(error)), -EINVAL);
	if (!strstr(error, part))
		fail_msg("\"%s\" says \"%s\", wanted \"%s\" in it", text, error, part);
}

static void test_tcp(void **state)
{
	(void)state;
	expect_tcp("tcp:host:4444", "host", 4444);
	expect_tcp("tcp:10.77.0.2:0", "10.77.0.2", 0);
	expect_tcp("tcp:0:65535", "0", 65535);
	expect_tcp("tcp::4444", "", 4444);
	expect_tcp("tcp:[::1]:4444", "::1", 4444);
	expect_tcp("tcp:[fe80::1%eth0]:1", "fe80::1%eth0", 1);
}

static void test_bad_ports(void **state)
{
	(void)state;
	expect_refused("tcp:host:", "port is \"\"");
	expect_refused("tcp:host:65536", "port is \"65536\", wanted 0 to 65535");
	expect_refused("tcp:host:-1", "port is \"-1\"");
	expect_refused("tcp:host:+1", "port is \"+1\"");
	expect_refused("tcp:host: 1", "port is \" 1\"");
	expect_refused("tcp:host:44x", "port is \"44x\"");
	expect_refused("tcp:host:000000000000001", "port is");
	expect_refused("tcp:host", "no port");
	expect_refused("tcp:", "no port");
}

static void test_bad_hosts(void **state)
{
	char text[400], longest[256];

	(void)state;
	expect_refused("tcp:::1:4444", "needs brackets");
	expect_refused("tcp:[::1:4444", "wanted tcp:[ADDRESS]:PORT");
	expect_refused("tcp:[::1]4444", "wanted tcp:[ADDRESS]:PORT");
	expect_refused("tcp:[]:4444", "no address");

	memset(text, 'a', sizeof(text));
	memcpy(text, "tcp:", 4);
	strcpy(text + 4 + 256, ":1");
	expect_refused(text, "the host has 256 characters, at most 255");
	strcpy(text + 4 + 255, ":1");
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	expect_tcp(text, longest, 1);
}

static void test_other_schemes(void **state)
{
	struct uri uri;

	(void)state;
	assert_int_equal(uri_parse(&uri, "unix:/run/a:b", error, sizeof(error)), 0);
	assert_int_equal(uri.kind, URI_UNIX);
	assert_string_equal(uri.rest, "/run/a:b");
	assert_int_equal(uri_parse(&uri, "fd:7", error, sizeof(error)), 0);
	assert_int_equal(uri.kind, URI_FD);
	assert_int_equal(uri.fd, 7);
	assert_int_equal(uri_parse(&uri, "exec:cat > x", error, sizeof(error)), 0);
	assert_int_equal(uri.kind, URI_EXEC);
	assert_int_equal(uri_parse(&uri, "defer", error, sizeof(error)), 0);
	assert_int_equal(uri.kind, URI_DEFER);
	expect_refused("unix:", "nothing after the colon");
	expect_refused("exec:", "nothing after the colon");
}

static void test_long_paths_are_refused_with_both_lengths(void **state)
{
	char text[200] = "unix:";
	struct uri uri;

	(void)state;
	memset(text + 5, 'p', URI_PATH_MAX);
	assert_int_equal(uri_parse(&uri, text, error, sizeof(error)), 0);
	text[5 + URI_PATH_MAX] = 'p';
	expect_refused(text, "the path has 108 characters, at most 107 are possible");
}

static void test_bad_descriptors(void **state)
{
	(void)state;
	expect_refused("fd:", "nothing after the colon");
	expect_refused("fd:name", "descriptor is \"name\", wanted 0 to 65535");
	expect_refused("fd:-1", "descriptor is \"-1\"");
	expect_refused("fd:65536", "descriptor is \"65536\"");
}

static void test_unknown_or_malformed(void **state)
{
	char text[URI_TEXT_MAX + 1];

	(void)state;
	expect_refused("", "no scheme");
	expect_refused("host", "no scheme");
	expect_refused("rdma:host:1", "scheme \"rdma\" is unknown; wanted tcp:HOST:PORT");
	expect_refused("tc:host:1", "scheme \"tc\" is unknown");
	expect_refused("tcpp:host:1", "scheme \"tcpp\" is unknown");
	expect_refused(":host:1", "scheme \"\" is unknown");
	expect_refused("tcp:ho\nst:1", "control character 0x0a at position 6");

	memset(text, 'x', sizeof(text));
	text[URI_TEXT_MAX] = '\0';
	expect_refused(text, "URI has 512 characters, at most 511");
}

static void test_format_brackets_only_where_needed(void **state)
{
	char text[64];

	(void)state;
	uri_format_tcp(text, sizeof(text), "0.0.0.0", 4444);
	assert_string_equal(text, "tcp:0.0.0.0:4444");
	uri_format_tcp(text, sizeof(text), "::", 1);
	assert_string_equal(text, "tcp:[::]:1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_bad_ports),
		cmocka_unit_test(test_bad_hosts),
		cmocka_unit_test(test_other_schemes),
		cmocka_unit_test(test_long_paths_are_refused_with_both_lengths),
		cmocka_unit_test(test_bad_descriptors),
		cmocka_unit_test(test_unknown_or_malformed),
		cmocka_unit_test(test_format_brackets_only_where_needed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
