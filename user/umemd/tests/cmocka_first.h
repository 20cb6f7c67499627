/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What cmocka.h wants included before it. */
#ifndef UMEMD_TESTS_CMOCKA_FIRST_H
#define UMEMD_TESTS_CMOCKA_FIRST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#endif
