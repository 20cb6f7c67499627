// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/checksum.h"

#include "umemd/codec.h"
#include "umemd/tests/cmocka_first.h"

/* Examples of Documentation/protocol.rst, of a page whose byte n is n % 256. */
#define PROTOCOL_EXAMPLE_PAGE	0xeb4b7c3707879151ULL
#define PROTOCOL_EXAMPLE_PLACED	0x989e7231884c35d5ULL
#define PROTOCOL_EXAMPLE_ZERO	0x4a64d1538a046f11ULL

static void test_checksums_cover_contents_and_place(void **state)
{
	uint8_t page[PAGE_BYTES] = { 0 };
	uint64_t sum = page_checksum(page, 1, 4096);

	(void)state;
	assert_true(page_checksum(page, 1, 4096) == sum);
	assert_true(page_checksum(page, 1, 8192) != sum);
	assert_true(page_checksum(page, 2, 4096) != sum);
	assert_true(page_checksum(NULL, 1, 4096) != sum);
	assert_true(page_checksum(NULL, 1, 4096) != page_checksum(NULL, 1, 8192));
	for (size_t bit = 0; bit < PAGE_BYTES * 8; bit += 509) {
		page[bit / 8] ^= 1 << bit % 8;
		assert_true(page_checksum(page, 1, 4096) != sum);
		page[bit / 8] ^= 1 << bit % 8;
	}
}

/* Numbers of Documentation/protocol.rst, for those who write the other side. */
static void test_checksums_are_those_of_the_specification(void **state)
{
	uint8_t page[PAGE_BYTES];

	(void)state;
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = (uint8_t)i;
	if (page_checksum(page, 0, 0) != PROTOCOL_EXAMPLE_PAGE ||
	    page_checksum(page, 2, 0x12345000) != PROTOCOL_EXAMPLE_PLACED ||
	    page_checksum(NULL, 0, 0x1000) != PROTOCOL_EXAMPLE_ZERO)
		fail_msg("%016llx %016llx %016llx",
			 (unsigned long long)page_checksum(page, 0, 0),
			 (unsigned long long)page_checksum(page, 2, 0x12345000),
			 (unsigned long long)page_checksum(NULL, 0, 0x1000));
}

/* Which of them is taken depends on the processor. */
static void test_each_way_gives_the_same(void **state)
{
	uint8_t page[PAGE_BYTES];

	(void)state;
	for (size_t i = 0; i < PAGE_BYTES; i++)
		page[i] = (uint8_t)(i * i >> 3);
	for (uint64_t seed = 0; seed < 1ULL << 60; seed = seed * 5 + 4096) {
		assert_true(checksum_scalar(page, PAGE_BYTES, seed) ==
			    checksum_vector(page, PAGE_BYTES, seed));
		assert_true(checksum_scalar(NULL, 0, seed) == checksum_vector(NULL, 0, seed));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checksums_cover_contents_and_place),
		cmocka_unit_test(test_checksums_are_those_of_the_specification),
		cmocka_unit_test(test_each_way_gives_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
