// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>

#include "common/util.h"

#define MIB	(1ULL << 20)
#define WORDS_MAX	64
#define QMP_WORDS	" -chardev socket,id=umem-qmp,fd=9 -mon chardev=umem-qmp,mode=control"

static char line_copy[2048];
static char *words[WORDS_MAX];

/* Words between blanks; none of these tests has a blank in a word. */
static int split(const char *line)
{
	char *rest = line_copy;
	int nr = 0;

	snprintf(line_copy, sizeof(line_copy), "umem-qemu %s", line);
	while ((words[nr] = strsep(&rest, " "))) {
		if (*words[nr])
			nr++;
	}
	return nr;
}

static void parse(struct options *options, const char *line)
{
	char *error;
	int argc = split(line);

	if (options_parse(options, argc, words, &error))
		fail_msg("\"%s\" was refused: %s", line, error);
	assert_null(error);
}

/* What QEMU would get, with regions at descriptors 20, 21... and QMP at 9. */
static void assert_qemu_gets(const char *line, const char *want)
{
	int fds[OPTIONS_REGIONS_MAX];
	struct options options;
	char got[4096] = "";
	char **argv;

	for (int i = 0; i < OPTIONS_REGIONS_MAX; i++)
		fds[i] = 20 + i;
	parse(&options, line);
	argv = options_qemu_argv(&options, "qemu", fds, 9, false);
	for (size_t i = 1; argv[i]; i++) {
		strcat(got, i > 1 ? " " : "");
		strcat(got, argv[i]);
	}
	options_free_argv(argv);
	options_destroy(&options);

	assert_true(strlen(got) >= strlen(QMP_WORDS));
	assert_string_equal(got + strlen(got) - strlen(QMP_WORDS), QMP_WORDS);
	got[strlen(got) - strlen(QMP_WORDS)] = '\0';
	assert_string_equal(got, want);
}

static void test_qemu_may_listen_for_qmp(void **state)
{
	const int fds[] = { 20 };
	struct options options;
	char **argv;
	size_t nr = 0;

	(void)state;
	parse(&options, "-m 64");
	argv = options_qemu_argv(&options, "qemu", fds, 9, true);
	while (argv[nr])
		nr++;
	assert_string_equal(argv[nr - 3], "socket,id=umem-qmp,fd=9,server=on,wait=off");
	options_free_argv(argv);
	options_destroy(&options);
}

static void assert_refused(const char *line, const char *got, const char *wanted)
{
	struct options options;
	char *error;
	int argc = split(line);

	assert_int_equal(options_parse(&options, argc, words, &error), -EINVAL);
	assert_non_null(error);
	if (!strstr(error, got))
		fail_msg("\"%s\": \"%s\" does not say \"%s\"", line, error, got);
	if (!strstr(error, wanted))
		fail_msg("\"%s\": \"%s\" does not say \"%s\"", line, error, wanted);
	free(error);
	options_destroy(&options);
}

#define MAIN_OBJECT(size) \
	"-object memory-backend-file,id=pc.ram,size=" size ",share=on,align=2097152,mem-path=/proc/self/fd/20 " \
	"-machine memory-backend=pc.ram"

static void test_main_memory_becomes_a_region_of_every_form_of_m(void **state)
{
	static const struct {
		const char *line;
		uint64_t length;
	} forms[] = {
		{ "", 128 * MIB },
		{ "-m 64", 64 * MIB },
		{ "-m 64M", 64 * MIB },
		{ "--m 1G", 1024 * MIB },
		{ "-m 1.5G", 1536 * MIB },
		{ "-m size=96M", 96 * MIB },
		{ "-m 96M,slots=2,maxmem=1G", 96 * MIB },
		{ "-m slots=2,maxmem=1G,size=96M", 96 * MIB },
		{ "-m slots=2,maxmem=1G", 128 * MIB },
		{ "-m 64 -m 32", 32 * MIB },
		{ "-m 0", 128 * MIB },
		{ "-m 5000b", 8192 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		struct options options;

		parse(&options, forms[i].line);
		assert_int_equal(options.nr_regions, 1);
		assert_string_equal(options.regions[0].name, "pc.ram");
		assert_int_equal(options.regions[0].length, forms[i].length);
		options_destroy(&options);
	}
}

static void test_main_memory_is_named_as_the_machine_names_it(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-M microvm,acpi=off -m 64");
	assert_string_equal(options.regions[0].name, "microvm.ram");
	options_destroy(&options);
	parse(&options, "-machine none -m 64");
	assert_string_equal(options.regions[0].name, "ram");
	options_destroy(&options);
	parse(&options, "-machine none");
	assert_int_equal(options.nr_regions, 0);
	options_destroy(&options);
}

static void test_qemu_gets_main_memory_as_a_shared_file(void **state)
{
	(void)state;
	assert_qemu_gets("-m 64 -nodefaults", "-m 64 -nodefaults " MAIN_OBJECT("67108864"));
}

static void test_other_options_pass_unchanged(void **state)
{
	(void)state;
	assert_qemu_gets("-name -m -append -object -cpu host -snapshot disk.img -s -device e1000,mac=x",
			 "-name -m -append -object -cpu host -snapshot disk.img -s -device e1000,mac=x "
			 MAIN_OBJECT("134217728"));
	assert_qemu_gets("-object secret,id=s,data=memory-backend-ram -S",
			 "-object secret,id=s,data=memory-backend-ram "
			 MAIN_OBJECT("134217728") " -S");
}

static void test_backends_become_regions_and_keep_their_properties(void **state)
{
	(void)state;
	assert_qemu_gets("-machine q35,memory-backend=m0 -object memory-backend-ram,id=m0,size=64M,prealloc=on,policy=bind,host-nodes=0",
			 "-machine q35,memory-backend=m0 -object memory-backend-file,id=m0,size=64M,prealloc=on,policy=bind,host-nodes=0,share=on,align=2097152,mem-path=/proc/self/fd/20");
	assert_qemu_gets("-M memory-backend=m0 -object qom-type=memory-backend-memfd,id=m0,size=64M,hugetlb=off,seal=off,share=on",
			 "-M memory-backend=m0 -object qom-type=memory-backend-file,id=m0,size=64M,share=on,align=2097152,mem-path=/proc/self/fd/20");
	assert_qemu_gets("-M memory-backend=m0 -object memory-backend-file,id=m0,size=64M,mem-path=/dev/umem,share=on",
			 "-M memory-backend=m0 -object memory-backend-file,id=m0,size=64M,share=on,align=2097152,mem-path=/proc/self/fd/20");
}

static void test_json_backend_stays_json(void **state)
{
	(void)state;
	assert_qemu_gets("-M memory-backend=m0 -object {\"qom-type\":\"memory-backend-ram\",\"id\":\"m0\",\"size\":67108864,\"merge\":false}",
			 "-M memory-backend=m0 -object {\"qom-type\":\"memory-backend-file\",\"id\":\"m0\",\"size\":67108864,\"merge\":false,\"share\":true,\"align\":2097152,\"mem-path\":\"/proc/self/fd/20\"}");
}

static void test_each_backend_is_a_region_of_its_own_beside_main_memory(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-m 64,slots=1,maxmem=1G -object memory-backend-ram,id=dimm0,size=32M -device pc-dimm,memdev=dimm0");
	assert_int_equal(options.nr_regions, 2);
	assert_string_equal(options.regions[0].name, "dimm0");
	assert_int_equal(options.regions[0].length, 32 * MIB);
	assert_string_equal(options.regions[1].name, "pc.ram");
	assert_int_equal(options.regions[1].length, 64 * MIB);
	options_destroy(&options);
}

static void test_numa_memory_has_no_main_region_beside_it(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-m 64 -object memory-backend-ram,id=n0,size=64M -numa node,memdev=n0");
	assert_int_equal(options.nr_regions, 1);
	assert_string_equal(options.regions[0].name, "n0");
	options_destroy(&options);
}

static void test_memory_that_cannot_be_shared_is_refused_with_both_values(void **state)
{
	static const struct {
		const char *line, *got, *wanted;
	} cases[] = {
		{ "-object memory-backend-ram,id=m,size=64M,share=off", "share is \"off\"", "share=on" },
		{ "-object memory-backend-memfd,id=m,size=64M,hugetlb=on", "hugetlb is \"on\"", "hugetlb=off" },
		{ "-object memory-backend-memfd,id=m,size=64M,hugetlbsize=2M", "hugetlbsize is \"2M\"", "wants none" },
		{ "-object memory-backend-file,id=m,size=64M,mem-path=/dev/shm/x", "\"/dev/shm/x\"", "mem-path=/dev/umem" },
		{ "-object memory-backend-file,id=m,size=64M", "no mem-path", "mem-path=/dev/umem" },
		{ "-object memory-backend-file,id=m,size=64M,mem-path=/dev/umem,pmem=on", "pmem is \"on\"", "pmem=off" },
		{ "-object memory-backend-file,id=m,size=64M,mem-path=/dev/umem,readonly=on", "readonly is \"on\"", "readonly=off" },
		{ "-object memory-backend-epc,id=m,size=64M", "memory-backend-epc", "memory-backend-ram" },
		{ "-object {\"qom-type\":\"memory-backend-ram\",\"id\":\"m\",\"size\":4096,\"share\":false}", "share is \"off\"", "share=on" },
		{ "-mem-path /dev/hugepages", "-mem-path /dev/hugepages", "/dev/umem" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused(cases[i].line, cases[i].got, cases[i].wanted);
}

static void test_bad_sizes_and_names_are_refused(void **state)
{
	static const struct {
		const char *line, *got, *wanted;
	} cases[] = {
		{ "-m 64MB", "\"64MB\"", "MiB" },
		{ "-m -1", "\"-1\"", "MiB" },
		{ "-m 16E", "\"16E\"", "MiB" },
		{ "-m 9000000000000", "at most", "bytes" },
		{ "-object memory-backend-ram,id=m", "no size", "size=1G" },
		{ "-object memory-backend-ram,id=m,size=5000", "5000", "multiple of 4096" },
		{ "-object memory-backend-ram,id=m,size=0", "0 bytes", "multiple of 4096" },
		{ "-object memory-backend-ram,id=m,size=x", "\"x\"", "number of bytes" },
		{ "-object memory-backend-ram,size=64M", "id is \"\"", "a letter" },
		{ "-object memory-backend-ram,id=a:b,size=64M", "\"a:b\"", "a letter" },
		{ "-object memory-backend-ram,id=m,size=64M -object memory-backend-ram,id=m,size=64M", "\"m\"", "its own" },
		{ "-object memory-backend-ram,id=pc.ram,size=64M", "\"pc.ram\"", "its own" },
		{ "-object {\"qom-type\":", "{\"qom-type\":", "JSON" },
		{ "-m", "-m", "argument" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_refused(cases[i].line, cases[i].got, cases[i].wanted);
}

static void test_too_many_regions_are_refused(void **state)
{
	char *argv[2 * OPTIONS_REGIONS_MAX + 3] = { "umem-qemu" };
	char text[OPTIONS_REGIONS_MAX + 1][64];
	struct options options;
	char *error;
	int argc = 1;

	(void)state;
	for (int i = 0; i <= OPTIONS_REGIONS_MAX; i++) {
		snprintf(text[i], sizeof(text[i]), "memory-backend-ram,id=m%d,size=4096", i);
		argv[argc++] = "-object";
		argv[argc++] = text[i];
	}
	assert_int_equal(options_parse(&options, argc, argv, &error), -EINVAL);
	assert_non_null(strstr(error, "m64"));
	assert_non_null(strstr(error, "at most 64"));
	free(error);
	options_destroy(&options);
}

static void test_postcopy_takes_incoming_and_starts_qemu_waiting(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-postcopy -incoming tcp:0:4444 -postcopy-flags 1");
	assert_true(options.postcopy);
	assert_string_equal(options.incoming, "tcp:0:4444");
	assert_int_equal(options.postcopy_flags, OPTIONS_FLAG_TOUCH);
	assert_false(options.paused);
	options_destroy(&options);
	assert_qemu_gets("-postcopy -incoming tcp:0:4444 -m 64",
			 "-m 64 " MAIN_OBJECT("67108864") " -incoming defer -S");
	assert_qemu_gets("-S -incoming tcp:0:1 -postcopy -incoming defer -m 64",
			 "-m 64 " MAIN_OBJECT("67108864") " -incoming defer -S");
}

static void test_incoming_without_postcopy_is_qemus(void **state)
{
	(void)state;
	assert_qemu_gets("-incoming exec:cat -m 64",
			 "-m 64 " MAIN_OBJECT("67108864") " -incoming exec:cat");
}

static void test_postcopy_in_conflict_is_refused(void **state)
{
	(void)state;
	assert_refused("-postcopy", "without -incoming", "-incoming URI with tcp:HOST:PORT");
	assert_refused("-postcopy -incoming rdma:h:1", "\"rdma\"", "unix:PATH");
	assert_refused("-postcopy -incoming tcp:4444", "\"tcp:4444\"", "tcp:HOST:PORT");
	assert_refused("-postcopy -incoming rdma:h:1", "\"rdma:h:1\"", "tcp");
	assert_refused("-postcopy -incoming tcp:0:1 -postcopy-flags 2", "\"2\"", "0, or 1");
	assert_refused("-postcopy -incoming tcp:0:1 -postcopy-flags -1", "\"-1\"", "0, or 1");
	assert_refused("-postcopy -incoming tcp:0:1 -postcopy-flags x", "\"x\"", "0, or 1");
	assert_refused("-postcopy-flags 1", "without -postcopy", "-postcopy -incoming");
	assert_refused("-daemonize", "-daemonize", "in the background");
}

static void test_monitors_of_ours_are_taken_from_qemu(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-monitor stdio -monitor unix:/run/m,server=on,wait=off -monitor unix:/run/n,server,nowait -monitor unix:/run/w,server");
	assert_int_equal(options.nr_monitors, 4);
	assert_int_equal(options.monitors[0].kind, MONITOR_STDIO);
	assert_int_equal(options.monitors[1].kind, MONITOR_UNIX);
	assert_string_equal(options.monitors[1].path, "/run/m");
	assert_false(options.monitors[1].wait);
	assert_string_equal(options.monitors[2].path, "/run/n");
	assert_false(options.monitors[2].wait);
	assert_true(options.monitors[3].wait);
	options_destroy(&options);
	assert_qemu_gets("-m 64 -monitor stdio",
			 "-m 64 " MAIN_OBJECT("67108864") " -monitor none");
}

static void test_other_monitors_are_left_to_qemu(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-monitor telnet::5555,server");
	assert_int_equal(options.nr_monitors, 0);
	assert_string_equal(options.foreign_monitor, "telnet::5555,server");
	options_destroy(&options);
	assert_qemu_gets("-m 64 -monitor none", "-m 64 -monitor none " MAIN_OBJECT("67108864"));
}

static void test_bad_monitors_are_refused(void **state)
{
	(void)state;
	assert_refused("-monitor unix:", "no path", "unix:PATH");
	assert_refused("-monitor unix:/run/m", "server is \"off\"", "server=on");
	assert_refused("-monitor unix:/run/m,server=on,wait=2", "\"2\"", "on or off");
	assert_refused("-monitor stdio -monitor stdio", "twice", "one standard input");
}

static void test_two_users_of_stdin_are_refused_with_both_named(void **state)
{
	(void)state;
	assert_refused("-monitor stdio -serial stdio", "-serial stdio", "-monitor stdio");
	assert_refused("-serial mon:stdio -monitor stdio", "-serial mon:stdio", "-monitor stdio");
	assert_refused("-monitor stdio -nographic", "-nographic", "-serial none");
	assert_refused("-monitor stdio -qmp stdio", "-qmp stdio", "-monitor stdio");
	assert_refused("-monitor stdio -chardev stdio,id=c", "-chardev stdio,id=c", "-monitor stdio");
	assert_refused("-monitor stdio -display curses", "-display curses", "-monitor stdio");
}

static void test_one_user_of_stdin_is_enough(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-monitor stdio -nographic -serial none");
	assert_null(options.stdio_user);
	options_destroy(&options);
	parse(&options, "-monitor stdio -nographic -nodefaults");
	options_destroy(&options);
	parse(&options, "-nographic -monitor unix:/m,server=on,wait=off");
	assert_non_null(options.stdio_user);
	options_destroy(&options);
}

static void test_qmp_id_of_ours_is_refused_to_others(void **state)
{
	(void)state;
	assert_refused("-chardev null,id=umem-qmp", "\"umem-qmp\"", "another");
}

static void test_only_a_demand_for_kvm_counts(void **state)
{
	static const struct {
		const char *line, *demand;
	} cases[] = {
		{ "-enable-kvm", "-enable-kvm" },
		{ "-accel kvm", "-accel kvm" },
		{ "-accel kvm,dirty-ring-size=0", "-accel kvm,dirty-ring-size=0" },
		{ "-machine q35,accel=kvm", "-machine q35,accel=kvm" },
		{ "-M accel=kvm:tcg", NULL },
		{ "-accel kvm -accel tcg", NULL },
		{ "-accel tcg", NULL },
		{ "-M q35", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct options options;

		parse(&options, cases[i].line);
		if (cases[i].demand)
			assert_string_equal(options.kvm, cases[i].demand);
		else
			assert_null(options.kvm);
		options_destroy(&options);
	}
}

static void test_own_options_do_not_reach_qemu(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "--qemu /q --umemd /u -m 64");
	assert_string_equal(options.qemu, "/q");
	assert_string_equal(options.umemd, "/u");
	options_destroy(&options);
	assert_qemu_gets("--qemu /q --umemd /u -m 64", "-m 64 " MAIN_OBJECT("67108864"));
}

static void test_memory_in_a_config_file_is_refused_with_its_line(void **state)
{
	static const char good[] = "[machine]\n  type = \"q35\"\n[object \"s\"]\n  qom-type = \"secret\"\n"
				   "  data = \"memory-backend-ram\"\n[device]\n  size = \"1\"\n";
	static const char *const bad[] = {
		"# x\n[memory]\n  size = \"1G\"\n",
		"\n[object \"m0\"]\n\tqom-type = \"memory-backend-ram\"",
		"\n[machine]\n  memory-backend = \"m0\"\n",
	};
	struct options options;
	char *error = NULL;

	(void)state;
	assert_int_equal(options_check_config("f", good, &error), 0);
	assert_null(error);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(options_check_config("f", bad[i], &error), -EINVAL);
		assert_non_null(strstr(error, "-readconfig f: line 3"));
		assert_non_null(strstr(error, "command line"));
		free(error);
	}
	parse(&options, "-readconfig f");
	assert_int_equal(options.nr_configs, 1);
	assert_string_equal(options.configs[0], "f");
	options_destroy(&options);
	assert_qemu_gets("-readconfig f -m 64", "-readconfig f -m 64 " MAIN_OBJECT("67108864"));
}

static void test_help_version_and_lists_are_seen(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "--help");
	assert_true(options.help);
	options_destroy(&options);
	parse(&options, "-version");
	assert_true(options.version);
	options_destroy(&options);
	parse(&options, "-device e1000,help");
	assert_true(options.lists);
	assert_int_equal(options.nr_regions, 0);
	options_destroy(&options);
	parse(&options, "-append help");
	assert_false(options.lists);
	options_destroy(&options);
	assert_non_null(strstr(options_help(), "migrate [-d] [-p [-n]]"));
}

static void test_control_socket_and_name_are_understood(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "-m 64");
	assert_null(options.control);
	assert_null(options.name);
	assert_false(options.no_control);
	options_destroy(&options);
	parse(&options, "-control /run/x.sock -name guest=web,debug-threads=on");
	assert_string_equal(options.control, "/run/x.sock");
	assert_string_equal(options.name, "web");
	options_destroy(&options);
	parse(&options, "-control /run/x.sock -control none -name db");
	assert_true(options.no_control);
	assert_null(options.control);
	assert_string_equal(options.name, "db");
	options_destroy(&options);
	assert_qemu_gets("-m 64 -control none -name db", "-m 64 -name db " MAIN_OBJECT("67108864"));
}

static void test_a_control_path_too_long_for_a_socket_is_refused(void **state)
{
	char path[120], *argv[] = { "umem-qemu", "-control", path, NULL };
	struct options options;
	char *error = NULL;

	(void)state;
	memset(path, 'x', 108);
	path[108] = '\0';
	assert_int_equal(options_parse(&options, 3, argv, &error), -EINVAL);
	assert_non_null(strstr(error, "-control is \"xxx"));
	assert_non_null(strstr(error, "108 characters, wanted none, or a path of 1 to 107"));
	free(error);
	options_destroy(&options);
}

static void test_adopt_is_for_a_qemu_that_runs(void **state)
{
	struct options options;

	(void)state;
	parse(&options, "--adopt web -monitor stdio --umemd /x -control /y");
	assert_string_equal(options.adopt, "web");
	assert_int_equal(options.nr_regions, 0);
	assert_int_equal(options.nr_monitors, 1);
	options_destroy(&options);
	assert_refused("--adopt web -m 64", "\"-m\"", "only -monitor, -control and --umemd");
	assert_refused("--adopt web -object memory-backend-ram,id=a,size=64M", "--adopt web", "only -monitor");
	assert_refused("-vnc :1 --adopt web", "\"-vnc\"", "only -monitor, -control and --umemd");
	assert_refused("--adopt web -postcopy -incoming tcp:0:1", "-postcopy", "to be started");
	assert_refused("--adopt web -name x", "-name", "to be started");
	assert_refused("--adopt", "-adopt", "wants an argument");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_main_memory_becomes_a_region_of_every_form_of_m),
		cmocka_unit_test(test_qemu_may_listen_for_qmp),
		cmocka_unit_test(test_adopt_is_for_a_qemu_that_runs),
		cmocka_unit_test(test_main_memory_is_named_as_the_machine_names_it),
		cmocka_unit_test(test_qemu_gets_main_memory_as_a_shared_file),
		cmocka_unit_test(test_other_options_pass_unchanged),
		cmocka_unit_test(test_backends_become_regions_and_keep_their_properties),
		cmocka_unit_test(test_json_backend_stays_json),
		cmocka_unit_test(test_each_backend_is_a_region_of_its_own_beside_main_memory),
		cmocka_unit_test(test_numa_memory_has_no_main_region_beside_it),
		cmocka_unit_test(test_memory_that_cannot_be_shared_is_refused_with_both_values),
		cmocka_unit_test(test_bad_sizes_and_names_are_refused),
		cmocka_unit_test(test_too_many_regions_are_refused),
		cmocka_unit_test(test_postcopy_takes_incoming_and_starts_qemu_waiting),
		cmocka_unit_test(test_incoming_without_postcopy_is_qemus),
		cmocka_unit_test(test_postcopy_in_conflict_is_refused),
		cmocka_unit_test(test_monitors_of_ours_are_taken_from_qemu),
		cmocka_unit_test(test_other_monitors_are_left_to_qemu),
		cmocka_unit_test(test_bad_monitors_are_refused),
		cmocka_unit_test(test_two_users_of_stdin_are_refused_with_both_named),
		cmocka_unit_test(test_one_user_of_stdin_is_enough),
		cmocka_unit_test(test_qmp_id_of_ours_is_refused_to_others),
		cmocka_unit_test(test_only_a_demand_for_kvm_counts),
		cmocka_unit_test(test_own_options_do_not_reach_qemu),
		cmocka_unit_test(test_memory_in_a_config_file_is_refused_with_its_line),
		cmocka_unit_test(test_control_socket_and_name_are_understood),
		cmocka_unit_test(test_a_control_path_too_long_for_a_socket_is_refused),
		cmocka_unit_test(test_help_version_and_lists_are_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
