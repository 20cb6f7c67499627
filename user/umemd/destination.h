/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef UMEMD_DESTINATION_H
#define UMEMD_DESTINATION_H

#include "umemd/options.h"

/* Return: the exit status. */
int destination_run(const struct options *options);

#endif
