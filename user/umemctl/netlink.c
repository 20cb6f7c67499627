// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemctl/netlink.h"

#include <errno.h>
#include <linux/umem_netlink.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <string.h>

#include "common/log.h"
#include "common/text.h"
#include "common/util.h"
#include "umemctl/attributes.h"

#define ATTEMPTS	10
#define LISTEN_BYTES	(1 << 20)	/* a guest's balloon tells much in little time */

int netlink_open(struct netlink *netlink, char **error)
{
	int err;

	*error = NULL;
	netlink->socket = memory_or_exit(nl_socket_alloc());
	err = genl_connect(netlink->socket);
	if (err) {
		*error = text_format("generic netlink: %s", nl_geterror(err));
	} else {
		netlink->family = genl_ctrl_resolve(netlink->socket, UMEM_FAMILY_NAME);
		if (netlink->family >= 0)
			return 0;
		if (netlink->family != -NLE_OBJ_NOTFOUND)
			*error = text_format("generic netlink family " UMEM_FAMILY_NAME ": %s",
					     nl_geterror(netlink->family));
	}
	nl_socket_free(netlink->socket);
	return -1;
}

void netlink_close(struct netlink *netlink)
{
	nl_socket_free(netlink->socket);
}

/* ---- dumps ---- */

static int take_answer(struct nl_msg *message, void *context)
{
	json_t *answer = attributes_json(nlmsg_hdr(message));

	if (answer)
		json_array_append_new(context, answer);
	return NL_OK;
}

static int request(struct netlink *netlink, int command, uint32_t id)
{
	struct nl_msg *message = memory_or_exit(nlmsg_alloc());
	int err;

	genlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, netlink->family, 0, NLM_F_DUMP, command,
		    UMEM_FAMILY_VERSION);
	/* The first attribute of each command is the region's id. */
	if (id)
		nla_put_u32(message, UMEM_A_REGION_ID, id);
	err = nl_send_auto(netlink->socket, message);
	nlmsg_free(message);
	return err;
}

/* 0, or an error of libnl, -NLE_DUMP_INTR with all of @answers */
static int dump_once(struct netlink *netlink, int command, uint32_t id, json_t *answers)
{
	int err = request(netlink, command, id);

	if (err < 0)
		return err;
	nl_socket_modify_cb(netlink->socket, NL_CB_VALID, NL_CB_CUSTOM, take_answer, answers);
	return nl_recvmsgs_default(netlink->socket);
}

json_t *netlink_dump(struct netlink *netlink, int command, uint32_t id, char **error)
{
	json_t *answers = json_array();
	int err = -NLE_DUMP_INTR;

	*error = NULL;
	for (int i = 0; i < ATTEMPTS && err == -NLE_DUMP_INTR; i++) {
		json_array_clear(answers);
		err = dump_once(netlink, command, id, answers);
	}
	if (err == -NLE_DUMP_INTR) {
		log_warning("regions or threads came and went while they were told, each of %d times: some that are new or gone may be missing or there",
			    ATTEMPTS);
	} else if (err < 0) {
		*error = text_format("%s%.0u: %s", id ? "region " : "regions", id, nl_geterror(err));
		json_decref(answers);
		return NULL;
	}
	return answers;
}

/* ---- events ---- */

struct listener {
	void (*take)(json_t *event, void *context);
	void *context;
};

static int take_event(struct nl_msg *message, void *context)
{
	const struct listener *listener = context;
	json_t *event = attributes_json(nlmsg_hdr(message));

	if (event)
		listener->take(event, listener->context);
	json_decref(event);
	return NL_OK;
}

/* Their numbers first: an event that came meanwhile would be taken for the answer. */
static int join_groups(struct netlink *netlink)
{
	static const char *const groups[] = { UMEM_MCGRP_REGIONS, UMEM_MCGRP_DISCARDS };
	int numbers[ARRAY_SIZE(groups)], err = 0;

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		numbers[i] = genl_ctrl_resolve_grp(netlink->socket, UMEM_FAMILY_NAME, groups[i]);
		if (numbers[i] < 0)
			return numbers[i];
	}
	for (size_t i = 0; i < ARRAY_SIZE(groups) && !err; i++)
		err = nl_socket_add_membership(netlink->socket, numbers[i]);
	return err;
}

char *netlink_listen(struct netlink *netlink, void (*take)(json_t *event, void *context),
		     void *context)
{
	struct listener listener = { take, context };
	int err = join_groups(netlink);

	if (err == -NLE_PERM)
		return text_copy("events: Linux before 6.8 tells them only to who may see all regions, wanted root");
	if (err)
		return text_format("events: %s", nl_geterror(err));
	nl_socket_set_buffer_size(netlink->socket, LISTEN_BYTES, 0);
	nl_socket_disable_seq_check(netlink->socket);
	nl_socket_modify_cb(netlink->socket, NL_CB_VALID, NL_CB_CUSTOM, take_event, &listener);
	while (err >= 0 || err == -NLE_NOMEM) {
		err = nl_recvmsgs_default(netlink->socket);
		if (err == -NLE_NOMEM)
			take(NULL, context);
	}
	return text_format("events: %s", nl_geterror(err));
}
