/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints. What happens to a missing page, in this order:
 *
 * umem_fault	a thread found it missing
 * umem_request	the first of them had it asked for
 * umem_deliver	the pager has read that
 * umem_publish	the page is present
 * umem_wake	those who wait are told
 * umem_resume	each of them runs again
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM umem

#if !defined(_UMEM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _UMEM_TRACE_H

#include <linux/tracepoint.h>

#include "umem.h"

DECLARE_EVENT_CLASS(umem_page,
	TP_PROTO(const struct umem_region *region, pgoff_t index),
	TP_ARGS(region, index),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, offset)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->offset = (u64)index << PAGE_SHIFT;
	),
	TP_printk("region=%u offset=0x%llx", __entry->region, __entry->offset)
);

DEFINE_EVENT(umem_page, umem_request,
	TP_PROTO(const struct umem_region *region, pgoff_t index),
	TP_ARGS(region, index));

DEFINE_EVENT(umem_page, umem_deliver,
	TP_PROTO(const struct umem_region *region, pgoff_t index),
	TP_ARGS(region, index));

DEFINE_EVENT(umem_page, umem_wake,
	TP_PROTO(const struct umem_region *region, pgoff_t index),
	TP_ARGS(region, index));

TRACE_EVENT(umem_fault,
	TP_PROTO(const struct umem_region *region, pgoff_t index, bool waits),
	TP_ARGS(region, index, waits),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, offset)
		__field(bool, waits)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->offset = (u64)index << PAGE_SHIFT;
		__entry->waits = waits;
	),
	TP_printk("region=%u offset=0x%llx waits=%d", __entry->region, __entry->offset,
		  __entry->waits)
);

TRACE_EVENT(umem_resume,
	TP_PROTO(const struct umem_region *region, pgoff_t index, bool answered, u64 wait_ns),
	TP_ARGS(region, index, answered, wait_ns),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, offset)
		__field(bool, answered)
		__field(u64, wait_ns)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->offset = (u64)index << PAGE_SHIFT;
		__entry->answered = answered;
		__entry->wait_ns = wait_ns;
	),
	TP_printk("region=%u offset=0x%llx answered=%d wait_ns=%llu", __entry->region,
		  __entry->offset, __entry->answered, __entry->wait_ns)
);

DECLARE_EVENT_CLASS(umem_range,
	TP_PROTO(const struct umem_region *region, pgoff_t start, pgoff_t end),
	TP_ARGS(region, start, end),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, offset)
		__field(u64, length)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->offset = (u64)start << PAGE_SHIFT;
		__entry->length = (u64)(end - start) << PAGE_SHIFT;
	),
	TP_printk("region=%u offset=0x%llx length=0x%llx", __entry->region, __entry->offset,
		  __entry->length)
);

DEFINE_EVENT(umem_range, umem_publish,
	TP_PROTO(const struct umem_region *region, pgoff_t start, pgoff_t end),
	TP_ARGS(region, start, end));

DEFINE_EVENT(umem_range, umem_poison,
	TP_PROTO(const struct umem_region *region, pgoff_t start, pgoff_t end),
	TP_ARGS(region, start, end));

DEFINE_EVENT(umem_range, umem_discard,
	TP_PROTO(const struct umem_region *region, pgoff_t start, pgoff_t end),
	TP_ARGS(region, start, end));

DECLARE_EVENT_CLASS(umem_pager,
	TP_PROTO(const struct umem_region *region),
	TP_ARGS(region),
	TP_STRUCT__entry(
		__field(u32, region)
		__field(u64, missing)
		__field(bool, sigbus)
	),
	TP_fast_assign(
		__entry->region = region->id;
		__entry->missing = (u64)umem_region_nr_fillable(region) << PAGE_SHIFT;
		__entry->sigbus = region->sigbus;
	),
	TP_printk("region=%u missing=0x%llx sigbus=%d", __entry->region, __entry->missing,
		  __entry->sigbus)
);

DEFINE_EVENT(umem_pager, umem_pager_attach,
	TP_PROTO(const struct umem_region *region),
	TP_ARGS(region));

DEFINE_EVENT(umem_pager, umem_pager_detach,
	TP_PROTO(const struct umem_region *region),
	TP_ARGS(region));

#endif /* _UMEM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
