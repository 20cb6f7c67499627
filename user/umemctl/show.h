/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands that tell what there is: guests and regions. Each returns the exit status. */
#ifndef UMEMCTL_SHOW_H
#define UMEMCTL_SHOW_H

#include "umemctl/options.h"

int show_list(const struct options *options);
int show_regions(const struct options *options);
int show_stats(const struct options *options);
int show_events(const struct options *options);

#endif
