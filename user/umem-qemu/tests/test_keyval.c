// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/keyval.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"

static struct keyval parse(const char *text, const char *implied)
{
	struct keyval keyval;
	char *error = NULL;

	assert_int_equal(keyval_parse(&keyval, text, implied, &error), 0);
	assert_null(error);
	return keyval;
}

static void assert_formats(const struct keyval *keyval, const char *want)
{
	char *text = keyval_format(keyval);

	assert_string_equal(text, want);
	free(text);
}

static void test_unchanged_text_comes_back_as_it_was(void **state)
{
	static const char *const texts[] = {
		"memory-backend-ram,id=m0,size=1G", "a=b", "q35,accel=kvm:tcg", "x=", "server,nowait",
		"path=/a,,b,c=d,,,,e", "id=m,host-nodes=0,host-nodes=1",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct keyval keyval = parse(texts[i], "type");

		assert_formats(&keyval, texts[i]);
		keyval_destroy(&keyval);
	}
}

static void test_double_comma_is_one_comma_of_the_value(void **state)
{
	struct keyval keyval = parse("file,path=/a,,b,,,size=1", "type");

	(void)state;
	assert_string_equal(keyval_get(&keyval, "path"), "/a,b,");
	assert_string_equal(keyval_get(&keyval, "size"), "1");
	keyval_destroy(&keyval);
}

static void test_last_of_several_counts(void **state)
{
	struct keyval keyval = parse("share=off,share=on", NULL);

	(void)state;
	assert_string_equal(keyval_get(&keyval, "share"), "on");
	keyval_destroy(&keyval);
}

static void test_bare_key_is_on_and_no_key_is_off(void **state)
{
	struct keyval keyval = parse("unix,server,nowait", "kind");

	(void)state;
	assert_string_equal(keyval_get(&keyval, "kind"), "unix");
	assert_string_equal(keyval_get(&keyval, "server"), "on");
	assert_string_equal(keyval_get(&keyval, "wait"), "off");
	assert_null(keyval_get(&keyval, "other"));
	keyval_destroy(&keyval);
}

static void test_set_and_remove_change_only_what_they_name(void **state)
{
	struct keyval keyval = parse("memory-backend-memfd,id=m0,seal=on,size=1G,noshare", "qom-type");

	(void)state;
	keyval_set(&keyval, "qom-type", "memory-backend-file");
	keyval_remove(&keyval, "seal");
	keyval_set_bool(&keyval, "share", true);
	keyval_set(&keyval, "mem-path", "/a,b");
	keyval_set_number(&keyval, "align", 2097152);
	assert_formats(&keyval, "memory-backend-file,id=m0,size=1G,share=on,mem-path=/a,,b,align=2097152");
	keyval_destroy(&keyval);
}

static void test_json_form_keeps_its_types(void **state)
{
	struct keyval keyval = parse("{\"qom-type\":\"x\",\"size\":1024,\"share\":false}", "qom-type");

	(void)state;
	assert_string_equal(keyval_get(&keyval, "qom-type"), "x");
	assert_string_equal(keyval_get(&keyval, "size"), "1024");
	assert_string_equal(keyval_get(&keyval, "share"), "off");
	keyval_set_bool(&keyval, "share", true);
	keyval_set(&keyval, "mem-path", "/p");
	keyval_set_number(&keyval, "align", 4096);
	assert_formats(&keyval, "{\"qom-type\":\"x\",\"size\":1024,\"share\":true,\"mem-path\":\"/p\",\"align\":4096}");
	keyval_destroy(&keyval);
}

static void test_what_is_set_counts_even_after_a_no(void **state)
{
	struct keyval keyval = parse("ram,align=4k,noalign,x=1", "qom-type");

	(void)state;
	assert_string_equal(keyval_get(&keyval, "align"), "off");
	keyval_set(&keyval, "align", "2M");
	assert_string_equal(keyval_get(&keyval, "align"), "2M");
	assert_formats(&keyval, "ram,align=4k,align=2M,x=1");
	keyval_destroy(&keyval);
}

static void test_broken_json_is_refused_with_what_came(void **state)
{
	struct keyval keyval;
	char *error = NULL;

	(void)state;
	assert_int_equal(keyval_parse(&keyval, "{\"a\":", "t", &error), -EINVAL);
	assert_non_null(strstr(error, "{\"a\":"));
	free(error);
	keyval_destroy(&keyval);
}

static void test_sizes_are_read_as_qemu_reads_them(void **state)
{
	static const struct {
		const char *text;
		uint64_t unit, want;
	} good[] = {
		{ "256", 1, 256 },
		{ "256", 1 << 20, 256ULL << 20 },
		{ "256M", 1, 256ULL << 20 },
		{ "1g", 1 << 20, 1ULL << 30 },
		{ "1.5G", 1, 3ULL << 29 },
		{ "0.25k", 1, 256 },
		{ "4096b", 1 << 20, 4096 },
		{ "2T", 1, 2ULL << 40 },
		{ "0", 1, 0 },
	};
	static const char *const bad[] = {
		"", "x", "-1", "1MB", "M", "99999999999999999999", "17E", "1 G", "+1",
	};
	uint64_t size;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(keyval_parse_size(good[i].text, good[i].unit, &size), 0);
		assert_int_equal(size, good[i].want);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(keyval_parse_size(bad[i], 1, &size), -EINVAL);
}

static void test_booleans_are_qemus_words_only(void **state)
{
	(void)state;
	assert_int_equal(keyval_parse_bool("on"), 1);
	assert_int_equal(keyval_parse_bool("yes"), 1);
	assert_int_equal(keyval_parse_bool("true"), 1);
	assert_int_equal(keyval_parse_bool("off"), 0);
	assert_int_equal(keyval_parse_bool("n"), 0);
	assert_int_equal(keyval_parse_bool("1"), -EINVAL);
	assert_int_equal(keyval_parse_bool(""), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unchanged_text_comes_back_as_it_was),
		cmocka_unit_test(test_double_comma_is_one_comma_of_the_value),
		cmocka_unit_test(test_last_of_several_counts),
		cmocka_unit_test(test_bare_key_is_on_and_no_key_is_off),
		cmocka_unit_test(test_set_and_remove_change_only_what_they_name),
		cmocka_unit_test(test_json_form_keeps_its_types),
		cmocka_unit_test(test_what_is_set_counts_even_after_a_no),
		cmocka_unit_test(test_broken_json_is_refused_with_what_came),
		cmocka_unit_test(test_sizes_are_read_as_qemu_reads_them),
		cmocka_unit_test(test_booleans_are_qemus_words_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
