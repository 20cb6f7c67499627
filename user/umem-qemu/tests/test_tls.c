// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/text.h"

static json_t *tls;

static void given(const char *json)
{
	tls = json_loads(json, 0, NULL);
	assert_non_null(tls);
}

static void is_good(const char *json, bool source, const char *arguments)
{
	char *argv[TLS_ARGUMENTS_MAX], *why;
	struct text text = { 0 };
	size_t nr;

	given(json);
	why = tls_check(tls, source);
	if (why)
		fail_msg("%s", why);
	nr = tls_arguments(tls, source, argv);
	assert_true(nr <= TLS_ARGUMENTS_MAX);
	for (size_t i = 0; i < nr; i++) {
		text_add(&text, "%s%s", i ? " " : "", argv[i]);
		free(argv[i]);
	}
	assert_string_equal(text.data, arguments);
	text_free(&text);
	json_decref(tls);
}

static void is_refused(const char *json, bool source, const char *part)
{
	char *why;

	given(json);
	why = tls_check(tls, source);
	assert_non_null(why);
	if (!strstr(why, part))
		fail_msg("\"%s\", wanted \"%s\"", why, part);
	free(why);
	json_decref(tls);
}

#define X509 "\"id\":\"tls0\",\"type\":\"tls-creds-x509\",\"dir\":\"/p\""
#define PSK "\"id\":\"tls0\",\"type\":\"tls-creds-psk\",\"dir\":\"/p\""

static void test_parameters_say_whether_there_is_tls(void **state)
{
	(void)state;
	given("{\"tls-creds\":\"\",\"tls-hostname\":\"b\"}");
	assert_null(tls_begin(tls));
	json_decref(tls);
	assert_null(tls_begin(NULL));
	given("{\"tls-creds\":\"tls0\",\"tls-hostname\":\"b\"}");
	assert_string_equal(tls_creds(tls), "tls0");
	json_t *begun = tls_begin(tls);

	assert_string_equal(json_string_value(json_object_get(begun, "id")), "tls0");
	assert_string_equal(json_string_value(json_object_get(begun, "hostname")), "b");
	json_decref(begun);
	json_decref(tls);
}

static void test_umemd_gets_what_qemu_has(void **state)
{
	(void)state;
	is_good("{" X509 ",\"endpoint\":\"client\",\"verify-peer\":true,\"hostname\":\"b\",\"priority\":\"NORMAL\",\"passwordid\":\"\"}",
		true, "--tls-x509=/p --tls-priority=NORMAL --tls-hostname=b");
	is_good("{" X509 ",\"endpoint\":\"client\",\"verify-peer\":false,\"hostname\":\"b\",\"priority\":\"NORMAL\"}",
		true, "--tls-x509=/p --tls-priority=NORMAL --tls-no-verify --tls-hostname=b");
	is_good("{" X509 ",\"endpoint\":\"server\",\"verify-peer\":false,\"hostname\":\"b\",\"priority\":\"\"}",
		false, "--tls-x509=/p --tls-no-verify");
	is_good("{" PSK ",\"endpoint\":\"client\",\"verify-peer\":false,\"hostname\":\"b\",\"username\":\"u\"}",
		true, "--tls-psk=/p --tls-username=u");
	is_good("{" PSK ",\"endpoint\":\"client\",\"username\":\"\"}", true, "--tls-psk=/p");
	is_good("{" PSK ",\"endpoint\":\"server\",\"username\":\"u\"}", false, "--tls-psk=/p");
}

static void test_what_umem_cannot_do_is_refused(void **state)
{
	(void)state;
	is_refused("{\"id\":\"tls0\",\"type\":\"secret\"}", true,
		   "tls-creds is \"tls0\", a secret, wanted a tls-creds-x509 or a tls-creds-psk");
	is_refused("{" X509 ",\"endpoint\":\"client\"}", false,
		   "of endpoint=client, wanted one of endpoint=server where a guest comes");
	is_refused("{\"id\":\"tls0\",\"type\":\"tls-creds-psk\",\"dir\":\"\",\"endpoint\":\"client\"}",
		   true, "has no dir, wanted the folder of its files");
	is_refused("{" X509 ",\"endpoint\":\"client\",\"passwordid\":\"sec0\"}", true,
		   "whose key has a password (passwordid=sec0), wanted a key without");
	is_refused("{" X509 ",\"endpoint\":\"server\",\"authz\":\"rules\"}", false,
		   "tls-authz is \"rules\", which umem does not look at, wanted it empty");
	is_good("{" X509 ",\"endpoint\":\"client\",\"authz\":\"rules\"}", true, "--tls-x509=/p");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parameters_say_whether_there_is_tls),
		cmocka_unit_test(test_umemd_gets_what_qemu_has),
		cmocka_unit_test(test_what_umem_cannot_do_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
