/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the kernel's family umem says, as JSON. */
#ifndef UMEMCTL_ATTRIBUTES_H
#define UMEMCTL_ATTRIBUTES_H

#include <jansson.h>
#include <netlink/msg.h>

/**
 * attributes_json - one message of Documentation/netlink/specs/umem.yaml
 *
 * The names of its values are those of the attributes, with their units; those that are
 * not there are left out, flags are true or false. A notification has its name as "event".
 *
 * Return: an object, the caller's, or NULL if the message is none of those.
 */
json_t *attributes_json(struct nlmsghdr *message);

#endif
