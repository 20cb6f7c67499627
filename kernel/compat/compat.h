/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The only place that knows kernel versions: the rest of the module is written
 * for today's kernel, and what an older one lacks is supplied here. Included
 * ahead of every source file by the build.
 */
#ifndef _UMEM_COMPAT_H
#define _UMEM_COMPAT_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/version.h>

/* 6.3 made vm_flags read-only outside these helpers */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

/* 6.4 handles faults under a lock of the VMA, 6.6 allows drivers to drop it */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
static inline void vma_start_write(struct vm_area_struct *vma) { }
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static inline void release_fault_lock(struct vm_fault *vmf)
{
	mmap_read_unlock(vmf->vma->vm_mm);
}
#endif

/* 6.8 renamed address_space::private_data */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define i_private_data private_data
#endif

/* 6.8 gave it a folio */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
static inline int generic_error_remove_folio(struct address_space *mapping, struct folio *folio)
{
	return generic_error_remove_page(mapping, &folio->page);
}
#endif

/* 6.17 lets a file have mmap_prepare instead of mmap */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 17, 0)
static inline int vfs_mmap(struct file *file, struct vm_area_struct *vma)
{
	return call_mmap(file, vma);
}
#endif

#endif /* _UMEM_COMPAT_H */
