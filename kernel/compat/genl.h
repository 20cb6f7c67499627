/* SPDX-License-Identifier: GPL-2.0-only */
/* What older kernels lack for generic netlink. */
#ifndef _UMEM_COMPAT_GENL_H
#define _UMEM_COMPAT_GENL_H

#include <linux/version.h>
#include <net/genetlink.h>

/* 6.7 has numbers that are as long as they need to be */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
static inline int nla_put_uint(struct sk_buff *skb, int attrtype, u64 value)
{
	if (value == (u32)value)
		return nla_put_u32(skb, attrtype, value);
	return nla_put(skb, attrtype, sizeof(value), &value);
}
#endif

/*
 * 6.8 lets a family choose the listeners of each message. Before, all who have joined the
 * group get it, so only those may join who may see everything. Joining takes the right to
 * in the network namespace: messages go to the initial one alone, where it is the real one.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define UMEM_MCGRP_FLAGS	GENL_MCAST_CAP_SYS_ADMIN

typedef int (*netlink_filter_fn)(struct sock *dsk, struct sk_buff *skb, void *data);

static inline int
genlmsg_multicast_netns_filtered(const struct genl_family *family, struct net *net,
				 struct sk_buff *skb, u32 portid, unsigned int group,
				 gfp_t flags, netlink_filter_fn filter, void *filter_data)
{
	if (net_eq(net, &init_net))
		return genlmsg_multicast_netns(family, net, skb, portid, group, flags);
	nlmsg_free(skb);
	return 0;
}
#else
#define UMEM_MCGRP_FLAGS	0
#endif

#endif /* _UMEM_COMPAT_GENL_H */
