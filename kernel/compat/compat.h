/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only place that knows kernel versions: the rest of the module is written
 * for today's kernel, and what an older one lacks is supplied here, a header
 * for each subject. Included ahead of every source file by the build.
 */
#ifndef _UMEM_COMPAT_H
#define _UMEM_COMPAT_H

#include <linux/version.h>

#include "file.h"
#include "folio.h"
#include "shmem.h"
#include "vma.h"

#endif /* _UMEM_COMPAT_H */
