/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What this side proves itself with, and knows the other by: a folder of files as
 * QEMU's tls-creds-x509 and tls-creds-psk have. All of them are read once, by
 * credentials_load().
 */
#ifndef UMEMD_CREDENTIALS_H
#define UMEMD_CREDENTIALS_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stddef.h>

#include "umemd/codec.h"

#define CREDENTIALS_USER	"qemu"	/* unless another is given */

enum credentials_kind {
	CREDENTIALS_NONE,
	CREDENTIALS_X509,
	CREDENTIALS_PSK,
};

/**
 * struct credentials_setup - what is wanted
 * @folder: where the files are
 * @priority: which ciphers, as gnutls writes it; NULL: those of "NORMAL"
 * @hostname: client with CREDENTIALS_X509: whom the server's certificate has to name
 * @username: client with CREDENTIALS_PSK: whose key; NULL: CREDENTIALS_USER
 * @no_verify: CREDENTIALS_X509: take the other side, whoever it is
 */
struct credentials_setup {
	enum credentials_kind kind;
	const char *folder;
	const char *priority;
	const char *hostname;
	const char *username;
	bool no_verify;
};

/**
 * struct credentials - what the sessions of one side share
 * @setup: what was asked for; its strings are not copied
 * @server: the destination's
 * @x509: of CREDENTIALS_X509
 * @psk_server: of CREDENTIALS_PSK, with @keys; or
 * @psk_client: for a client
 * @keys: all of keys.psk, terminated
 */
struct credentials {
	struct credentials_setup setup;
	bool server;
	gnutls_priority_t priority;
	gnutls_dh_params_t dh;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_server_credentials_t psk_server;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_datum_t keys;
};

/**
 * struct credentials_verdict - what is wrong with a certificate
 * @flag: the bit of gnutls that says so
 * @text: "the certificate" and this make a sentence
 * @alert: what its owner is told
 */
struct credentials_verdict {
	unsigned int flag;
	const char *text;
	gnutls_alert_description_t alert;
};

/**
 * credentials_load - read and check them
 * @error: CODEC_ERROR_MAX bytes, on failure a sentence that names the file
 *
 * Return: them; NULL.
 */
struct credentials *credentials_load(const struct credentials_setup *setup, bool server,
				     char *error);
void credentials_free(struct credentials *credentials);

/* The worst of what @status, of gnutls_certificate_verify_peers(), has. */
const struct credentials_verdict *credentials_verdict(unsigned int status);

/**
 * credentials_key - the key of a user
 * @key: allocated by gnutls
 *
 * Return: 0; -ENOENT there is no such user; -EINVAL the key is not hexadecimal.
 */
int credentials_key(const struct credentials *credentials, const char *user,
		    gnutls_datum_t *key);

/* What a certificate of the other side has to be for. */
static inline const char *credentials_peer_purpose(const struct credentials *credentials)
{
	return credentials->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
}

#endif
