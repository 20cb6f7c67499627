// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/headroom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"
#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

#define MIB	(1ULL << 20)

static char folder[64];

static int setup(void **state)
{
	char path[96];

	(void)state;
	strcpy(folder, "/tmp/umem-test-headroom-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/vm", folder);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/vm/one", folder);
	return mkdir(path, 0700);
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(folder);
	return 0;
}

static void put(const char *name, const char *text)
{
	folder_write(folder, name, text, strlen(text));
}

static uint64_t headroom(void)
{
	char meminfo[96], cgroup[96];
	struct headroom headroom;
	uint64_t bytes;

	snprintf(meminfo, sizeof(meminfo), "%s/meminfo", folder);
	snprintf(cgroup, sizeof(cgroup), "%s/cgroup", folder);
	headroom_open(&headroom, meminfo, cgroup, folder);
	bytes = headroom_bytes(&headroom);
	headroom_close(&headroom);
	return bytes;
}

static void test_nothing_known_is_no_limit(void **state)
{
	(void)state;
	assert_true(headroom() == UINT64_MAX);
	put("meminfo", "MemTotal: 5 kB\n");
	put("cgroup", "1:name=systemd:/x\n");
	assert_true(headroom() == UINT64_MAX);
}

static void test_host_has_what_is_available_and_swap(void **state)
{
	(void)state;
	put("meminfo", "MemTotal:  9999999 kB\nMemFree: 1 kB\nMemAvailable:   10240 kB\nSwapFree:  2048 kB\n");
	assert_int_equal(headroom(), 12 * MIB);
}

static void test_the_tightest_group_counts(void **state)
{
	(void)state;
	put("meminfo", "MemAvailable: 1048576 kB\nSwapFree: 2048 kB\n");
	put("cgroup", "0::/vm/one\n");
	put("vm/one/memory.max", "max\n");
	put("vm/one/memory.current", "5000\n");
	put("vm/memory.max", "104857600\n");
	put("vm/memory.current", "94371840\n");
	assert_int_equal(headroom(), 12 * MIB);		/* 10 of memory, 2 of swap */
	put("vm/memory.swap.max", "1048576\n");
	put("vm/memory.swap.current", "0\n");
	assert_int_equal(headroom(), 11 * MIB);
	put("vm/memory.stat", "anon 7\nworkingset_active_file 9\ninactive_file 1048576\nactive_file 2097152\n");
	assert_int_equal(headroom(), 14 * MIB);
	put("vm/one/memory.max", "4096\n");
	put("vm/one/memory.swap.max", "0\n");
	assert_int_equal(headroom(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_known_is_no_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_has_what_is_available_and_swap, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_the_tightest_group_counts, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
