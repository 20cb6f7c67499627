// SPDX-License-Identifier: GPL-2.0-only
/*
 * The generic netlink family: Documentation/netlink/specs/umem.yaml says what it
 * tells, and uapi/linux/umem_netlink.h is made from that.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>
#include <linux/umem_netlink.h>
#include <linux/user_namespace.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "compat/genl.h"
#include "umem.h"

enum umem_mcgrp {
	UMEM_NLGRP_REGIONS,
	UMEM_NLGRP_DISCARDS,
};

static const struct genl_multicast_group umem_mcgrps[] = {
	[UMEM_NLGRP_REGIONS] = { UMEM_MCGRP_REGIONS, UMEM_MCGRP_FLAGS },
	[UMEM_NLGRP_DISCARDS] = { UMEM_MCGRP_DISCARDS, UMEM_MCGRP_FLAGS },
};

static struct genl_family umem_family;

/*
 * The rights of a socket are those it was opened with: a program that is made to use a
 * socket of somebody else tells him nothing that he may not see himself. Sockets that
 * send, receive or listen have a file.
 */
static bool umem_may_see(const struct sock *sk, const struct umem_region *region)
{
	const struct file *file = sk->sk_socket->file;

	return uid_eq(file->f_cred->euid, region->uid) ||
	       file_ns_capable(file, &init_user_ns, CAP_SYS_ADMIN);
}

static u32 umem_pid_here(struct pid *pid)
{
	return pid_nr_ns(pid, task_active_pid_ns(current));
}

static u64 umem_missing_bytes(const struct umem_region *region)
{
	return (u64)umem_region_nr_fillable(region) << PAGE_SHIFT;
}

static u64 umem_poisoned_bytes(const struct umem_region *region)
{
	return (u64)atomic_long_read(&region->nr_poisoned) << PAGE_SHIFT;
}

/* ---- what is told of one region; each returns 0 or -EMSGSIZE ---- */

static int umem_put_region(struct sk_buff *skb, struct umem_region *region, struct sock *sk)
{
	if (nla_put_u32(skb, UMEM_A_REGION_ID, region->id) ||
	    nla_put_string(skb, UMEM_A_REGION_NAME, region->name) ||
	    nla_put_u32(skb, UMEM_A_REGION_UID,
			from_kuid_munged(sk_user_ns(sk), region->uid)) ||
	    nla_put_u32(skb, UMEM_A_REGION_PID, umem_pid_here(region->pid)) ||
	    nla_put_uint(skb, UMEM_A_REGION_LENGTH, (u64)region->nr_pages << PAGE_SHIFT) ||
	    nla_put_uint(skb, UMEM_A_REGION_MISSING, umem_missing_bytes(region)) ||
	    nla_put_uint(skb, UMEM_A_REGION_POISONED, umem_poisoned_bytes(region)) ||
	    nla_put_u32(skb, UMEM_A_REGION_WAITERS, atomic_read(&region->nr_waiters)))
		return -EMSGSIZE;
	if (READ_ONCE(region->pager) && nla_put_flag(skb, UMEM_A_REGION_PAGER))
		return -EMSGSIZE;
	if (rcu_access_pointer(region->dirty) && nla_put_flag(skb, UMEM_A_REGION_TRACKED))
		return -EMSGSIZE;
	return 0;
}

/* Attributes count from 1. */
static_assert((int)UMEM_NR_COUNTERS == (int)UMEM_A_COUNTERS_MAX,
	      "each counter has an attribute in umem.yaml, in the same order");
static_assert((int)UMEM_HUGE_FALLBACKS + 1 == (int)UMEM_A_COUNTERS_HUGE_FALLBACKS);

static int umem_put_counters(struct sk_buff *skb, const struct umem_stats *stats)
{
	struct nlattr *nest = nla_nest_start(skb, UMEM_A_STATS_COUNTERS);
	int i;

	if (!nest)
		return -EMSGSIZE;
	for (i = 0; i < UMEM_NR_COUNTERS; i++)
		if (nla_put_uint(skb, i + 1, stats->counters[i]))
			return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int umem_put_latency(struct sk_buff *skb, int i, u64 waits)
{
	struct nlattr *nest = nla_nest_start(skb, UMEM_A_STATS_LATENCY);

	if (!nest || nla_put_uint(skb, UMEM_A_LATENCY_FROM, i ? BIT_ULL(i) : 0) ||
	    (i + 1 < UMEM_NR_LATENCIES &&
	     nla_put_uint(skb, UMEM_A_LATENCY_BELOW, BIT_ULL(i + 1))) ||
	    nla_put_uint(skb, UMEM_A_LATENCY_WAITS, waits))
		return -EMSGSIZE;
	nla_nest_end(skb, nest);
	return 0;
}

static int umem_put_stats(struct sk_buff *skb, struct umem_region *region, struct sock *sk)
{
	struct umem_stats stats;
	int i, err;

	umem_stats_sum(region, &stats);
	if (nla_put_u32(skb, UMEM_A_STATS_REGION_ID, region->id) ||
	    nla_put_string(skb, UMEM_A_STATS_REGION_NAME, region->name) ||
	    umem_put_counters(skb, &stats) ||
	    nla_put_uint(skb, UMEM_A_STATS_WAITS, stats.waits) ||
	    nla_put_uint(skb, UMEM_A_STATS_WAIT_TIME, stats.wait_ns))
		return -EMSGSIZE;
	for (i = 0; i < UMEM_NR_LATENCIES; i++) {
		err = stats.latencies[i] ? umem_put_latency(skb, i, stats.latencies[i]) : 0;
		if (err)
			return err;
	}
	return 0;
}

static int umem_put_comm(struct sk_buff *skb, struct pid *pid)
{
	char comm[TASK_COMM_LEN] = "";
	struct task_struct *task;

	rcu_read_lock();
	task = pid_task(pid, PIDTYPE_PID);
	if (task)
		get_task_comm(comm, task);
	rcu_read_unlock();
	return nla_put_string(skb, UMEM_A_THREAD_COMM, comm);
}

static int umem_put_thread(struct sk_buff *skb, struct umem_region *region,
			   const struct umem_thread *thread)
{
	u64 since = READ_ONCE(thread->since);

	if (nla_put_u32(skb, UMEM_A_THREAD_REGION_ID, region->id) ||
	    nla_put_u32(skb, UMEM_A_THREAD_TID, umem_pid_here(thread->pid)) ||
	    umem_put_comm(skb, thread->pid) ||
	    nla_put_uint(skb, UMEM_A_THREAD_WAITS, READ_ONCE(thread->waits)) ||
	    nla_put_uint(skb, UMEM_A_THREAD_WAIT_TIME, READ_ONCE(thread->wait_ns)) ||
	    nla_put_uint(skb, UMEM_A_THREAD_LONGEST, READ_ONCE(thread->longest_ns)))
		return -EMSGSIZE;
	if (since && (nla_put_uint(skb, UMEM_A_THREAD_SINCE, since) ||
		      nla_put_uint(skb, UMEM_A_THREAD_OFFSET,
				   (u64)READ_ONCE(thread->index) << PAGE_SHIFT)))
		return -EMSGSIZE;
	return 0;
}

/* ---- requests ---- */

static int umem_put_one(struct sk_buff *skb, struct umem_region *region, struct sock *sk, u8 cmd)
{
	return cmd == UMEM_CMD_REGION_GET ? umem_put_region(skb, region, sk) :
					    umem_put_stats(skb, region, sk);
}

/* A region that the socket may see, with a reference; -ENOENT or -EPERM. */
static struct umem_region *umem_region_get_for(const struct sock *sk, u32 id)
{
	struct umem_region *region = umem_region_find(id);

	if (!region)
		return ERR_PTR(-ENOENT);
	if (umem_may_see(sk, region))
		return region;
	umem_region_put(region);
	return ERR_PTR(-EPERM);
}

/* The first attribute of each request is the region's id. */
#define UMEM_A_ID	1
static_assert(UMEM_A_ID == (int)UMEM_A_REGION_ID);
static_assert(UMEM_A_ID == (int)UMEM_A_STATS_REGION_ID);
static_assert(UMEM_A_ID == (int)UMEM_A_THREAD_REGION_ID);

static const struct nla_policy umem_id_policy[] = {
	[UMEM_A_ID] = NLA_POLICY_MIN(NLA_U32, 1),
};

static int umem_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct sock *sk = NETLINK_CB(skb).sk;
	u8 cmd = info->genlhdr->cmd;
	struct umem_region *region;
	struct sk_buff *reply;
	int err = -ENOMEM;
	void *header;

	if (GENL_REQ_ATTR_CHECK(info, UMEM_A_ID))
		return -EINVAL;
	region = umem_region_get_for(sk, nla_get_u32(info->attrs[UMEM_A_ID]));
	if (IS_ERR(region)) {
		NL_SET_BAD_ATTR(info->extack, info->attrs[UMEM_A_ID]);
		return PTR_ERR(region);
	}
	reply = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	if (!reply)
		goto put;
	header = genlmsg_put_reply(reply, info, &umem_family, 0, cmd);
	err = header ? umem_put_one(reply, region, sk, cmd) : -EMSGSIZE;
	if (err) {
		nlmsg_free(reply);
		goto put;
	}
	genlmsg_end(reply, header);
	err = genlmsg_reply(reply, info);
put:
	umem_region_put(region);
	return err;
}

/* ---- dumps ---- */

/**
 * struct umem_dump - where a dump is, in netlink_callback.ctx
 * @id: the region to begin with or to go on with
 * @only: and no other one; 0 if all are dumped
 * @threads: where in that region
 */
struct umem_dump {
	u32 id;
	u32 only;
	struct umem_thread_pos threads;
};

static struct umem_dump *umem_dump_of(struct netlink_callback *cb)
{
	BUILD_BUG_ON(sizeof(struct umem_dump) > sizeof(cb->ctx));
	return (struct umem_dump *)cb->ctx;
}

static u8 umem_dump_cmd(const struct netlink_callback *cb)
{
	return ((struct genlmsghdr *)nlmsg_data(cb->nlh))->cmd;
}

static int umem_dump_start(struct netlink_callback *cb)
{
	struct umem_dump *dump = umem_dump_of(cb);
	struct nlattr *attrs[UMEM_A_ID + 1];
	struct umem_region *region;
	int err;

	*dump = (struct umem_dump){};
	err = genlmsg_parse(cb->nlh, &umem_family, attrs, UMEM_A_ID, umem_id_policy, cb->extack);
	if (err || !attrs[UMEM_A_ID])
		return err;
	dump->only = nla_get_u32(attrs[UMEM_A_ID]);
	dump->id = dump->only;
	region = umem_region_get_for(NETLINK_CB(cb->skb).sk, dump->only);
	if (IS_ERR(region))
		return PTR_ERR(region);
	umem_region_put(region);
	return 0;
}

static void *umem_dump_put_header(struct sk_buff *skb, struct netlink_callback *cb)
{
	void *header = genlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				   &umem_family, NLM_F_MULTI, umem_dump_cmd(cb));

	if (header)
		genl_dump_check_consistent(cb, header);
	return header;
}

static int umem_dump_end(struct sk_buff *skb, void *header, int err)
{
	if (err)
		genlmsg_cancel(skb, header);
	else
		genlmsg_end(skb, header);
	return err;
}

static int umem_dump_region(struct sk_buff *skb, struct netlink_callback *cb,
			    struct umem_region *region)
{
	void *header = umem_dump_put_header(skb, cb);

	if (!header)
		return -EMSGSIZE;
	return umem_dump_end(skb, header, umem_put_one(skb, region, NETLINK_CB(cb->skb).sk,
						       umem_dump_cmd(cb)));
}

struct umem_thread_dump {
	struct sk_buff *skb;
	struct netlink_callback *cb;
	struct umem_region *region;
};

static int umem_dump_thread(const struct umem_thread *thread, void *arg)
{
	struct umem_thread_dump *dump = arg;
	void *header = umem_dump_put_header(dump->skb, dump->cb);

	if (!header)
		return -EMSGSIZE;
	return umem_dump_end(dump->skb, header, umem_put_thread(dump->skb, dump->region, thread));
}

static int umem_dump_threads(struct sk_buff *skb, struct netlink_callback *cb,
			     struct umem_region *region)
{
	struct umem_thread_dump dump = { skb, cb, region };

	return umem_threads_walk(region, &umem_dump_of(cb)->threads, umem_dump_thread, &dump);
}

/*
 * The next region of a dump, with a reference, or NULL. A dump that goes on in a region
 * that has gone meanwhile begins with the next one.
 */
static struct umem_region *umem_dump_next(struct netlink_callback *cb)
{
	struct umem_dump *dump = umem_dump_of(cb);
	struct umem_region *region;
	unsigned int changes;

	region = umem_region_get_from(dump->id, &changes);
	/* Both only grow: their sum is another number whenever one of them is. */
	cb->seq = changes;
	if (umem_dump_cmd(cb) == UMEM_CMD_THREAD_GET)
		cb->seq += umem_threads_changes();
	if (region && dump->only && region->id != dump->only) {
		umem_region_put(region);
		return NULL;
	}
	if (region && region->id != dump->id) {
		dump->id = region->id;
		dump->threads = (struct umem_thread_pos){};
	}
	return region;
}

static int umem_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct umem_dump *dump = umem_dump_of(cb);
	struct umem_region *region;
	int err = 0;

	while (!err && (region = umem_dump_next(cb))) {
		if (umem_may_see(NETLINK_CB(cb->skb).sk, region))
			err = umem_dump_cmd(cb) == UMEM_CMD_THREAD_GET ?
				umem_dump_threads(skb, cb, region) :
				umem_dump_region(skb, cb, region);
		if (!err) {
			dump->id++;
			dump->threads = (struct umem_thread_pos){};
		}
		umem_region_put(region);
		cond_resched();
	}
	/* Whoever has read what there is asks for the rest. */
	return skb->len ?: err;
}

/* ---- notifications ---- */

struct umem_event_to {
	const struct umem_region *region;
	const struct net *net;
};

/*
 * Whether a listener is not told. A socket that hears of all network namespaces would
 * be told once for each.
 */
static int umem_event_skips(struct sock *sk, struct sk_buff *skb, void *data)
{
	const struct umem_event_to *to = data;

	return !net_eq(sock_net(sk), to->net) || !umem_may_see(sk, to->region);
}

static int umem_put_event(struct sk_buff *skb, struct umem_region *region,
			  const struct umem_span *span)
{
	if (nla_put_u32(skb, UMEM_A_EVENT_REGION_ID, region->id) ||
	    nla_put_string(skb, UMEM_A_EVENT_REGION_NAME, region->name) ||
	    nla_put_uint(skb, UMEM_A_EVENT_TIME, ktime_get_ns()) ||
	    nla_put_uint(skb, UMEM_A_EVENT_LENGTH, (u64)region->nr_pages << PAGE_SHIFT) ||
	    nla_put_uint(skb, UMEM_A_EVENT_MISSING, umem_missing_bytes(region)) ||
	    nla_put_uint(skb, UMEM_A_EVENT_POISONED, umem_poisoned_bytes(region)))
		return -EMSGSIZE;
	if (span && (nla_put_uint(skb, UMEM_A_EVENT_OFFSET, (u64)span->start << PAGE_SHIFT) ||
		     nla_put_uint(skb, UMEM_A_EVENT_SIZE,
				  (u64)(span->end - span->start) << PAGE_SHIFT)))
		return -EMSGSIZE;
	return 0;
}

static struct sk_buff *umem_event_new(struct umem_region *region, u8 cmd,
				      const struct umem_span *span)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_NOWAIT | __GFP_NOWARN);
	void *header = skb ? genlmsg_put(skb, 0, 0, &umem_family, 0, cmd) : NULL;

	if (!header || umem_put_event(skb, region, span)) {
		nlmsg_free(skb);
		return NULL;
	}
	genlmsg_end(skb, header);
	return skb;
}

static void umem_notify_net(struct net *net, struct umem_region *region, u8 cmd,
			    const struct umem_span *span, unsigned int group)
{
	struct umem_event_to to = { region, net };
	struct sk_buff *skb = umem_event_new(region, cmd, span);

	/* They learn that they missed something, as they do when their own queue is full. */
	if (!skb)
		genl_set_err(&umem_family, net, 0, group, -ENOBUFS);
	else
		genlmsg_multicast_netns_filtered(&umem_family, net, skb, 0, group, GFP_NOWAIT,
						 umem_event_skips, &to);
}

/**
 * umem_notify - tell who listens what happened
 * @region: where
 * @cmd: the notification
 * @span: what part of the region, or NULL
 *
 * Does not sleep; costs a look at each network namespace while nobody listens.
 */
void umem_notify(struct umem_region *region, u8 cmd, const struct umem_span *span)
{
	unsigned int group = cmd == UMEM_CMD_DISCARD_NTF ? UMEM_NLGRP_DISCARDS : UMEM_NLGRP_REGIONS;
	struct net *net;

	rcu_read_lock();
	for_each_net_rcu(net)
		if (genl_has_listeners(&umem_family, net, group))
			umem_notify_net(net, region, cmd, span, group);
	rcu_read_unlock();
}

#define UMEM_DUMP_OP(_cmd, _doit) {		\
	.cmd = _cmd,				\
	.doit = _doit,				\
	.start = umem_dump_start,		\
	.dumpit = umem_dumpit,			\
	.policy = umem_id_policy,		\
	.maxattr = UMEM_A_ID,			\
}

static const struct genl_ops umem_genl_ops[] = {
	UMEM_DUMP_OP(UMEM_CMD_REGION_GET, umem_get_doit),
	UMEM_DUMP_OP(UMEM_CMD_STATS_GET, umem_get_doit),
	UMEM_DUMP_OP(UMEM_CMD_THREAD_GET, NULL),
};

static struct genl_family umem_family = {
	.name		= UMEM_FAMILY_NAME,
	.version	= UMEM_FAMILY_VERSION,
	.netnsok	= true,
	.parallel_ops	= true,
	.module		= THIS_MODULE,
	.ops		= umem_genl_ops,
	.n_ops		= ARRAY_SIZE(umem_genl_ops),
	.mcgrps		= umem_mcgrps,
	.n_mcgrps	= ARRAY_SIZE(umem_mcgrps),
};

/**
 * umem_netlink_init - register the family
 *
 * Return: 0 or a negative errno.
 */
int umem_netlink_init(void)
{
	return genl_register_family(&umem_family);
}

/**
 * umem_netlink_exit - unregister the family
 */
void umem_netlink_exit(void)
{
	genl_unregister_family(&umem_family);
}

MODULE_ALIAS_GENL_FAMILY(UMEM_FAMILY_NAME);
