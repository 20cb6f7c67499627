/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's family umem: what it knows of regions. */
#ifndef UMEMCTL_NETLINK_H
#define UMEMCTL_NETLINK_H

#include <jansson.h>
#include <netlink/socket.h>
#include <stdint.h>

struct netlink {
	struct nl_sock *socket;
	int family;
};

/**
 * netlink_open - connect to it
 * @error: on failure a sentence, the caller's; NULL if there is no such family
 *
 * Return: 0, netlink_close() is due then; or -1.
 */
int netlink_open(struct netlink *netlink, char **error);
void netlink_close(struct netlink *netlink);

/**
 * netlink_dump - all answers to a command
 * @command: UMEM_CMD_..._GET
 * @id: of the only region that is meant, 0: all
 * @error: on failure a sentence, the caller's
 *
 * Begins anew when regions came or went meanwhile; after several times it warns and takes
 * what it has.
 *
 * Return: an array of attributes_json(), the caller's, or NULL.
 */
json_t *netlink_dump(struct netlink *netlink, int command, uint32_t id, char **error);

/**
 * netlink_listen - hear of all that happens, until something fails
 * @take: called with each, and with NULL when some were lost
 *
 * Return: a sentence that says what failed, the caller's.
 */
char *netlink_listen(struct netlink *netlink, void (*take)(json_t *event, void *context),
		     void *context);

#endif
