// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/progress.h"

#include "common/util.h"
#include "umemd/codec.h"

void progress_start(struct progress *progress, uint64_t now)
{
	progress->started_ns = now;
	progress->last_ns = now;
	progress->last_bytes = progress->bytes[0] + progress->bytes[1] + progress->bytes[2];
}

int progress_due(const struct progress *progress, uint64_t now)
{
	return progress->started_ns && now - progress->last_ns >= PROGRESS_PERIOD_NS;
}

static json_t *microseconds(const struct histogram *histogram, unsigned int percent)
{
	uint64_t ns = histogram_percentile(histogram, percent);

	return json_integer((json_int_t)((ns + NSEC_PER_USEC / 2) / NSEC_PER_USEC));
}

json_t *progress_event(struct progress *progress, const char *state, const char *done_key,
		       uint64_t now)
{
	uint64_t bytes = progress->bytes[0] + progress->bytes[1] + progress->bytes[2];
	uint64_t elapsed = now - progress->last_ns;

	/* A last event right after another says nothing new of the rate. */
	if (elapsed >= PROGRESS_PERIOD_NS / 2) {
		progress->rate = (uint64_t)((double)(bytes - progress->last_bytes) *
					    (double)NSEC_PER_SEC / (double)elapsed);
		progress->last_ns = now;
		progress->last_bytes = bytes;
	}
	return json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:o,s:I,s:I}",
		"event", "progress",
		"state", state,
		"pages_total", (json_int_t)progress->pages_total,
		done_key, (json_int_t)progress->pages_done,
		"bytes_total", (json_int_t)(progress->pages_total * PAGE_BYTES),
		"urgent_bytes", (json_int_t)progress->bytes[CHANNEL_URGENT],
		"bulk_bytes", (json_int_t)progress->bytes[CHANNEL_BULK],
		"control_bytes", (json_int_t)progress->bytes[CHANNEL_CONTROL],
		"requests", (json_int_t)progress->requests,
		"zero_pages", (json_int_t)progress->zero_pages,
		"compressed_pages", (json_int_t)progress->compressed_pages,
		"saved_bytes", (json_int_t)progress->saved_bytes,
		"round", (json_int_t)progress->round,
		"dirty_pages", (json_int_t)progress->dirty_pages,
		"expected_downtime_ms", (json_int_t)progress->expected_downtime_ms,
		"precopy_bytes", (json_int_t)progress->precopy_bytes,
		"duplicates", (json_int_t)progress->duplicates,
		"checksum_errors", (json_int_t)progress->checksum_errors,
		"faults", (json_int_t)progress->faults,
		"fault_p50_us", microseconds(&progress->latencies, 50),
		"fault_p90_us", microseconds(&progress->latencies, 90),
		"fault_p99_us", microseconds(&progress->latencies, 99),
		"fault_max_us", microseconds(&progress->latencies, 100),
		"elapsed_ms", (json_int_t)((now - progress->started_ns) / NSEC_PER_MSEC),
		"rate_bytes", (json_int_t)progress->rate);
}
