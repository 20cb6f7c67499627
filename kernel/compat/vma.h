/* SPDX-License-Identifier: GPL-2.0-only */
/* Mappings, their locks and faults in them */
#ifndef _UMEM_COMPAT_VMA_H
#define _UMEM_COMPAT_VMA_H

#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>

/* 6.3 made vm_flags read-only outside these helpers */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
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

/*
 * Before 6.6 who collapses pages of a file maps the large folio without another look at the
 * mapping's flags. Meanwhile it has a reference to the mapping's file.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static inline bool umem_may_be_collapsing(struct file *file, long mappings)
{
	return file_count(file) > mappings;
}
#else
static inline bool umem_may_be_collapsing(struct file *file, long mappings)
{
	return false;
}
#endif

#endif /* _UMEM_COMPAT_VMA_H */
