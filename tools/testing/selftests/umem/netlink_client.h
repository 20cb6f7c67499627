/* SPDX-License-Identifier: GPL-2.0-only */
/* As much of netlink as it takes to talk to the family umem. */
#ifndef _NETLINK_CLIENT_H
#define _NETLINK_CLIENT_H

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/umem_netlink.h>
#include <sys/socket.h>

#include "umem_selftest.h"

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

#define NL_BUFFER	8192

/**
 * struct client - a netlink socket
 * @fd: its descriptor
 * @seq: of the last request
 * @family: number of the family umem
 * @regions: number of its group "regions"
 * @discards: number of its group "discards"
 * @buffer: what was received last
 * @interrupted: a message of the last dump said that something came or went
 * @left: bytes of it that were not looked at
 * @next: the first of those
 */
struct client {
	int fd;
	uint32_t seq;
	uint16_t family;
	uint32_t regions;
	uint32_t discards;
	bool interrupted;
	char buffer[NL_BUFFER] __attribute__((aligned(8)));
	int left;
	struct nlmsghdr *next;
};

/* Attributes, in a message or in another attribute */
struct attrs {
	const char *data;
	int length;
};

static inline struct attrs msg_attrs(const struct nlmsghdr *msg)
{
	int header = NLMSG_HDRLEN + GENL_HDRLEN;

	return (struct attrs){ (const char *)msg + header, (int)msg->nlmsg_len - header };
}

static inline struct attrs attr_attrs(const struct nlattr *attr)
{
	return (struct attrs){ (const char *)attr + NLA_HDRLEN, attr->nla_len - NLA_HDRLEN };
}

static inline uint8_t msg_cmd(const struct nlmsghdr *msg)
{
	return ((const struct genlmsghdr *)NLMSG_DATA(msg))->cmd;
}

/* The next attribute, or NULL; @attrs shrinks. */
static inline const struct nlattr *next_attr(struct attrs *attrs)
{
	const struct nlattr *attr = (const struct nlattr *)attrs->data;
	int size;

	if (attrs->length < NLA_HDRLEN)
		return NULL;
	CHECK(attr->nla_len >= NLA_HDRLEN && attr->nla_len <= attrs->length, "broken attribute");
	size = NLA_ALIGN(attr->nla_len);
	attrs->data += size;
	attrs->length -= size;
	return attr;
}

static inline const struct nlattr *find_attr(struct attrs attrs, int type)
{
	const struct nlattr *attr;

	while ((attr = next_attr(&attrs)))
		if ((attr->nla_type & NLA_TYPE_MASK) == type)
			return attr;
	return NULL;
}

static inline bool has_attr(struct attrs attrs, int type)
{
	return find_attr(attrs, type);
}

/* A number, of whatever length, which must be there */
static inline uint64_t attr_uint(struct attrs attrs, int type)
{
	const struct nlattr *attr = find_attr(attrs, type);
	uint64_t value = 0;

	CHECK(attr, "no attribute %d", type);
	CHECK(attr->nla_len == NLA_HDRLEN + 4 || attr->nla_len == NLA_HDRLEN + 8 ||
	      attr->nla_len == NLA_HDRLEN + 2, "attribute %d has %d bytes", type, attr->nla_len);
	memcpy(&value, (const char *)attr + NLA_HDRLEN, attr->nla_len - NLA_HDRLEN);
	return value;
}

static inline const char *attr_string(struct attrs attrs, int type)
{
	const struct nlattr *attr = find_attr(attrs, type);

	CHECK(attr, "no attribute %d", type);
	return (const char *)attr + NLA_HDRLEN;
}

/* Send a request with one attribute; none if @length is 0. Returns whether it was sent. */
static inline bool nl_send(struct client *nl, uint16_t family, uint8_t cmd, uint16_t flags,
			   uint16_t attr_type, const void *attr, int length)
{
	struct {
		struct nlmsghdr msg;
		struct genlmsghdr genl;
		struct nlattr attr;
		char data[64];
	} request = {
		.msg = { NLMSG_HDRLEN + GENL_HDRLEN, family, NLM_F_REQUEST | flags, ++nl->seq, 0 },
		.genl = { .cmd = cmd, .version = 1 },
		.attr = { NLA_HDRLEN + length, attr_type },
	};

	if (length) {
		memcpy(request.data, attr, length);
		request.msg.nlmsg_len += NLA_HDRLEN + NLA_ALIGN(length);
	}
	nl->left = 0;
	nl->interrupted = false;
	return send(nl->fd, &request, request.msg.nlmsg_len, 0) == request.msg.nlmsg_len;
}

static inline void nl_request(struct client *nl, uint16_t family, uint8_t cmd, uint16_t flags,
			      uint16_t attr_type, const void *attr, int length)
{
	CHECK(nl_send(nl, family, cmd, flags, attr_type, attr, length), "send: %s",
	      strerror(errno));
}

static inline void nl_request_id(struct client *nl, uint8_t cmd, uint16_t flags, uint32_t id)
{
	nl_request(nl, nl->family, cmd, flags, 1, &id, sizeof(id));
}

static inline void nl_dump(struct client *nl, uint8_t cmd)
{
	nl_request(nl, nl->family, cmd, NLM_F_DUMP, 0, NULL, 0);
}

/*
 * The next message. Returns NULL at the end of a dump, or with an errno other than 0 if
 * the kernel answered that.
 */
static inline struct nlmsghdr *nl_receive(struct client *nl)
{
	struct nlmsghdr *msg;

	errno = 0;
	if (!nl->left) {
		nl->left = recv(nl->fd, nl->buffer, sizeof(nl->buffer), 0);
		nl->next = (struct nlmsghdr *)nl->buffer;
		if (nl->left < 0) {
			nl->left = 0;
			return NULL;
		}
	}
	msg = nl->next;
	CHECK(NLMSG_OK(msg, (unsigned int)nl->left), "broken message");
	nl->next = NLMSG_NEXT(msg, nl->left);
	nl->interrupted |= msg->nlmsg_flags & NLM_F_DUMP_INTR;
	if (msg->nlmsg_type == NLMSG_ERROR || msg->nlmsg_type == NLMSG_DONE)
		errno = -*(int *)NLMSG_DATA(msg);
	return msg->nlmsg_type == NLMSG_ERROR || msg->nlmsg_type == NLMSG_DONE ? NULL : msg;
}

/* The answer to a request for one region, which must come. */
static inline struct attrs nl_get(struct client *nl, uint8_t cmd, uint32_t id)
{
	struct nlmsghdr *msg;

	nl_request_id(nl, cmd, 0, id);
	msg = nl_receive(nl);
	CHECK(msg, "command %d of region %u: %s", cmd, id, strerror(errno));
	CHECK_EQ(msg_cmd(msg), cmd);
	CHECK_EQ(msg->nlmsg_seq, nl->seq);
	return msg_attrs(msg);
}

/* The errno that the kernel answers, 0 if it answers none. */
static inline int nl_error(struct client *nl)
{
	while (nl_receive(nl))
		;
	return errno;
}

static inline uint32_t find_group(struct attrs groups, const char *name)
{
	const struct nlattr *group;

	while ((group = next_attr(&groups)))
		if (!strcmp(attr_string(attr_attrs(group), CTRL_ATTR_MCAST_GRP_NAME), name))
			return attr_uint(attr_attrs(group), CTRL_ATTR_MCAST_GRP_ID);
	CHECK(false, "the family has no group %s", name);
}

static inline struct client *nl_open(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	struct client *nl = calloc(1, sizeof(*nl));
	const struct nlattr *groups;
	struct nlmsghdr *msg;

	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	CHECK(nl->fd >= 0, "socket: %s", strerror(errno));
	CHECK(!bind(nl->fd, (struct sockaddr *)&address, sizeof(address)), "bind");
	nl_request(nl, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, CTRL_ATTR_FAMILY_NAME,
		   UMEM_FAMILY_NAME, sizeof(UMEM_FAMILY_NAME));
	msg = nl_receive(nl);
	CHECK(msg, "no family umem: %s", strerror(errno));
	nl->family = attr_uint(msg_attrs(msg), CTRL_ATTR_FAMILY_ID);
	groups = find_attr(msg_attrs(msg), CTRL_ATTR_MCAST_GROUPS);
	CHECK(groups, "the family has no groups");
	nl->regions = find_group(attr_attrs(groups), UMEM_MCGRP_REGIONS);
	nl->discards = find_group(attr_attrs(groups), UMEM_MCGRP_DISCARDS);
	/* That was not all: its success is acknowledged or not. */
	nl->left = 0;
	return nl;
}

static inline void nl_close(struct client *nl)
{
	close(nl->fd);
	free(nl);
}

static inline int nl_join(struct client *nl, uint32_t group)
{
	return setsockopt(nl->fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group));
}

#endif /* _NETLINK_CLIENT_H */
