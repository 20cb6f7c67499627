// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics of a region: counters and a histogram of waits, a set on each processor,
 * and a list of the threads that waited.
 */
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>

#include "trace.h"
#include "umem.h"

static unsigned int max_threads = 4096;
module_param(max_threads, uint, 0644);
MODULE_PARM_DESC(max_threads, "how many threads that waited a region lists (default 4096)");

#define UMEM_THREADS_BITS	8

/* The threads that hash here */
struct umem_thread_bucket {
	spinlock_t lock;	/* protects @threads */
	struct hlist_head threads;
};

#define umem_for_each_thread_bucket(region, bucket)			\
	for (bucket = (region)->threads;				\
	     bucket < (region)->threads + (1 << UMEM_THREADS_BITS); bucket++)

/* How often a thread was listed or forgotten, in any region */
static atomic_t umem_thread_changes;

/**
 * umem_threads_changes - how often the lists of threads have changed
 *
 * Return: that, of all regions, summed up.
 */
unsigned int umem_threads_changes(void)
{
	return atomic_read(&umem_thread_changes);
}

/**
 * umem_stats_create - give a new region its statistics
 * @region: the region
 *
 * Return: 0 or -ENOMEM; umem_stats_destroy() undoes either.
 */
int umem_stats_create(struct umem_region *region)
{
	struct umem_thread_bucket *bucket;

	/* ENOMEM says it all; per-CPU memory would say it with a stack trace. */
	region->stats = alloc_percpu_gfp(struct umem_stats, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	region->threads = kcalloc(1 << UMEM_THREADS_BITS, sizeof(*region->threads),
				  GFP_KERNEL_ACCOUNT);
	if (!region->stats || !region->threads)
		return -ENOMEM;
	region->threads_swept = jiffies - HZ;
	mutex_init(&region->sweep_lock);
	umem_for_each_thread_bucket(region, bucket) {
		spin_lock_init(&bucket->lock);
		INIT_HLIST_HEAD(&bucket->threads);
	}
	return 0;
}

static void umem_thread_free(struct umem_thread *thread)
{
	umem_request_free(thread->spare);
	put_pid(thread->pid);
	kfree(thread);
}

/**
 * umem_stats_destroy - undo umem_stats_create()
 * @region: which is gone, and so is everybody who waited
 */
void umem_stats_destroy(struct umem_region *region)
{
	struct umem_thread_bucket *bucket;
	struct umem_thread *thread;
	struct hlist_node *next;

	free_percpu(region->stats);
	if (!region->threads)
		return;
	umem_for_each_thread_bucket(region, bucket) {
		hlist_for_each_entry_safe(thread, next, &bucket->threads, node)
			umem_thread_free(thread);
	}
	kfree(region->threads);
}

/**
 * umem_stats_sum - the statistics of all processors
 * @region: the region
 * @sum: where to
 *
 * They go on meanwhile: what is counted together may be seen apart.
 */
void umem_stats_sum(const struct umem_region *region, struct umem_stats *sum)
{
	int cpu, i;

	memset(sum, 0, sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct umem_stats *stats = per_cpu_ptr(region->stats, cpu);

		for (i = 0; i < UMEM_NR_COUNTERS; i++)
			sum->counters[i] += READ_ONCE(stats->counters[i]);
		for (i = 0; i < UMEM_NR_LATENCIES; i++)
			sum->latencies[i] += READ_ONCE(stats->latencies[i]);
		sum->waits += READ_ONCE(stats->waits);
		sum->wait_ns += READ_ONCE(stats->wait_ns);
	}
}

static bool umem_thread_has_ended(const struct umem_thread *thread)
{
	bool ended;

	rcu_read_lock();
	ended = !pid_task(thread->pid, PIDTYPE_PID);
	rcu_read_unlock();
	return ended;
}

static void umem_bucket_forget_ended(struct umem_region *region, struct umem_thread_bucket *bucket)
{
	struct umem_thread *thread;
	struct hlist_node *next;

	lockdep_assert_held(&bucket->lock);
	hlist_for_each_entry_safe(thread, next, &bucket->threads, node) {
		if (!umem_thread_has_ended(thread))
			continue;
		hlist_del(&thread->node);
		umem_thread_free(thread);
		atomic_dec(&region->nr_threads);
		atomic_inc(&umem_thread_changes);
	}
}

/* At most once a second, for they may all be alive. */
static bool umem_threads_swept_lately(const struct umem_region *region)
{
	return time_before(jiffies, READ_ONCE(region->threads_swept) + HZ);
}

static void umem_threads_sweep(struct umem_region *region)
{
	struct umem_thread_bucket *bucket;

	if (umem_threads_swept_lately(region))
		return;
	/* Whoever comes meanwhile waits for the room that this makes. */
	mutex_lock(&region->sweep_lock);
	if (!umem_threads_swept_lately(region)) {
		umem_for_each_thread_bucket(region, bucket) {
			spin_lock(&bucket->lock);
			umem_bucket_forget_ended(region, bucket);
			spin_unlock(&bucket->lock);
		}
		WRITE_ONCE(region->threads_swept, jiffies);
	}
	mutex_unlock(&region->sweep_lock);
}

/* Take a place in the list. */
static bool umem_threads_reserve(struct umem_region *region)
{
	int nr = atomic_read(&region->nr_threads);

	do {
		if (nr >= READ_ONCE(max_threads))
			return false;
	} while (!atomic_try_cmpxchg(&region->nr_threads, &nr, nr + 1));
	return true;
}

/* List the current thread, unless there are too many or no memory. */
static struct umem_thread *umem_thread_add(struct umem_region *region,
					   struct umem_thread_bucket *bucket)
{
	struct umem_thread *thread;

	if (!umem_threads_reserve(region)) {
		umem_threads_sweep(region);
		if (!umem_threads_reserve(region))
			return NULL;
	}
	thread = kzalloc(sizeof(*thread), GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN);
	if (!thread) {
		atomic_dec(&region->nr_threads);
		return NULL;
	}
	thread->pid = get_task_pid(current, PIDTYPE_PID);
	spin_lock(&bucket->lock);
	umem_bucket_forget_ended(region, bucket);
	hlist_add_head(&thread->node, &bucket->threads);
	atomic_inc(&umem_thread_changes);
	spin_unlock(&bucket->lock);
	return thread;
}

/* The current thread's, which stays as long as the thread does; NULL if it is not listed. */
static struct umem_thread *umem_thread_find(struct umem_thread_bucket *bucket)
{
	struct pid *pid = task_pid(current);
	struct umem_thread *thread;

	spin_lock(&bucket->lock);
	hlist_for_each_entry(thread, &bucket->threads, node)
		if (thread->pid == pid)
			break;
	spin_unlock(&bucket->lock);
	return thread;
}

/**
 * umem_threads_walk - look at the threads that are listed
 * @region: the region
 * @pos: where to begin, all zero the first time; set to where to go on
 * @show: called for each that has not ended, under a spinlock
 * @arg: for @show
 *
 * Return: 0 at the end, or what @show returned if that was not 0.
 */
int umem_threads_walk(struct umem_region *region, struct umem_thread_pos *pos,
		      int (*show)(const struct umem_thread *thread, void *arg), void *arg)
{
	struct umem_thread_bucket *bucket;
	struct umem_thread *thread;
	unsigned int i;
	int err = 0;

	for (; pos->bucket < 1 << UMEM_THREADS_BITS; pos->bucket++, pos->skip = 0) {
		bucket = &region->threads[pos->bucket];
		i = 0;
		spin_lock(&bucket->lock);
		hlist_for_each_entry(thread, &bucket->threads, node) {
			if (i++ < pos->skip || umem_thread_has_ended(thread))
				continue;
			err = show(thread, arg);
			if (err)
				break;
			pos->skip = i;
		}
		spin_unlock(&bucket->lock);
		if (err)
			return err;
	}
	return 0;
}

/* Of the current thread */
static struct umem_thread_bucket *umem_thread_bucket(struct umem_region *region)
{
	return &region->threads[hash_ptr(task_pid(current), UMEM_THREADS_BITS)];
}

/**
 * umem_wait_prepare - the current thread has found a page missing
 * @region: the region
 * @wait: whose @index is the page; the rest is set
 *
 * Does not sleep.
 */
void umem_wait_prepare(struct umem_region *region, struct umem_wait *wait)
{
	wait->since = ktime_get_ns();
	wait->thread = umem_thread_find(umem_thread_bucket(region));
}

/**
 * umem_wait_begin - the current thread is going to wait
 * @region: the region
 * @wait: from umem_wait_prepare()
 */
void umem_wait_begin(struct umem_region *region, struct umem_wait *wait)
{
	if (!wait->thread)
		wait->thread = umem_thread_add(region, umem_thread_bucket(region));
	/* Nobody else writes these; others may see them from different moments. */
	if (wait->thread) {
		WRITE_ONCE(wait->thread->index, wait->index);
		WRITE_ONCE(wait->thread->since, wait->since);
	}
}

/**
 * umem_wait_end - the current thread waits no longer
 * @region: the region
 * @wait: from umem_wait_begin()
 * @answered: it was the page that ended it
 */
void umem_wait_end(struct umem_region *region, const struct umem_wait *wait, bool answered)
{
	struct umem_thread *thread = wait->thread;
	u64 ns = ktime_get_ns() - wait->since;

	this_cpu_inc(region->stats->waits);
	this_cpu_add(region->stats->wait_ns, ns);
	if (answered)
		this_cpu_inc(region->stats->latencies[min(ilog2(ns | 1), UMEM_NR_LATENCIES - 1)]);
	if (thread) {
		WRITE_ONCE(thread->waits, thread->waits + 1);
		WRITE_ONCE(thread->wait_ns, thread->wait_ns + ns);
		WRITE_ONCE(thread->longest_ns, max(thread->longest_ns, ns));
		WRITE_ONCE(thread->since, 0);
	}
	trace_umem_resume(region, wait->index, answered, ns);
}
