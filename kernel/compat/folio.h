/* SPDX-License-Identifier: GPL-2.0-only */
/* Folios, and what becomes of broken ones */
#ifndef _UMEM_COMPAT_FOLIO_H
#define _UMEM_COMPAT_FOLIO_H

#include <linux/mm.h>

/* 6.8 gave it a folio */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
static inline int generic_error_remove_folio(struct address_space *mapping, struct folio *folio)
{
	return generic_error_remove_page(mapping, &folio->page);
}
#endif

#endif /* _UMEM_COMPAT_FOLIO_H */
