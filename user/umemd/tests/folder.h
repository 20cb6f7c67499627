/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Folders of credentials for tests, as certtool and psktool would fill them. */
#ifndef UMEMD_TESTS_FOLDER_H
#define UMEMD_TESTS_FOLDER_H

#include <stdbool.h>

/**
 * struct folder_setup - what is in a folder, and what is wrong with it
 * @host: whom server-cert.pem names, a DNS name or an address
 * @seed: folders of the same have the same CA; 0 and 1 are there
 * @server_expired: server-cert.pem was valid until an hour ago
 * @client_expired: client-cert.pem was
 * @ca_expired: ca-cert.pem was
 * @no_client: no client-cert.pem, no client-key.pem
 * @swapped: server-cert.pem is for a client, client-cert.pem for a server
 * @revoked: ca-crl.pem has the client's certificate
 */
struct folder_setup {
	const char *host;
	unsigned int seed;
	bool server_expired, client_expired, ca_expired, no_client, swapped, revoked;
};

/* All ends the program that cannot be done. */
void folder_fill(const char *folder, const struct folder_setup *setup);

/* keys.psk; @keys: "user:hex\n", NULL: of the user qemu */
void folder_keys(const char *folder, const char *keys);

void folder_write(const char *folder, const char *name, const void *data, unsigned long size);

void folder_remove_file(const char *folder, const char *name);

/* The folder and all in it. */
void folder_remove(const char *folder);

#endif
