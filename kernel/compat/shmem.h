/* SPDX-License-Identifier: GPL-2.0-only */
/* shmem, which backs the regions */
#ifndef _UMEM_COMPAT_SHMEM_H
#define _UMEM_COMPAT_SHMEM_H

#include <linux/mm.h>

/* 7.0 takes the flags of a new file as a vma_flags_t, made of numbers of bits */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define VMA_NORESERVE_BIT	VM_NORESERVE
#define mk_vma_flags(flag)	(flag)
#endif

#endif /* _UMEM_COMPAT_SHMEM_H */
