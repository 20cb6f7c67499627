/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UMEMD_SOURCE_H
#define UMEMD_SOURCE_H

#include "umemd/options.h"

/* Return: the exit status. */
int source_run(const struct options *options);

#endif
