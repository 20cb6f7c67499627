/* SPDX-License-Identifier: GPL-2.0-only */
/* Files and what is done to them */
#ifndef _UMEM_COMPAT_FILE_H
#define _UMEM_COMPAT_FILE_H

#include <linux/fs.h>

/* 6.17 lets a file have mmap_prepare instead of mmap */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
static inline int vfs_mmap(struct file *file, struct vm_area_struct *vma)
{
	return call_mmap(file, vma);
}
#endif

#endif /* _UMEM_COMPAT_FILE_H */
