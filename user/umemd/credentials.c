// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util.h"

#define PATH_MAX_BYTES	512
#define PRIORITY_MAX	1024
#define CAS_MAX		64

/*
 * NORMAL, with AES before ChaCha20: of what a PSK can be used with NORMAL has that first,
 * which is four times as slow where the CPU knows AES.
 */
#define PRIORITY_NORMAL	"NORMAL:-CHACHA20-POLY1305:+CHACHA20-POLY1305"

/* What is older than TLS 1.2 is not spoken, whatever the priority says. */
#define PRIORITY_FLOOR	":-VERS-SSL3.0:-VERS-TLS1.0:-VERS-TLS1.1"
#define PRIORITY_PSK	":+ECDHE-PSK:+DHE-PSK:+PSK"

/* Files. */

static void path_of(char path[PATH_MAX_BYTES], const struct credentials *credentials,
		    const char *name)
{
	snprintf(path, PATH_MAX_BYTES, "%s/%s", credentials->setup.folder, name);
}

static int wrong_file(const struct credentials *credentials, const char *name, const char *what,
		      const char *wanted, char *error)
{
	char path[PATH_MAX_BYTES];

	path_of(path, credentials, name);
	wrong(error, "%s: %s, wanted %s", path, what, wanted);
	return -EINVAL;
}

/* Return: 0; -ENOENT, which may not matter; another negative errno. All with @error. */
static int read_file(const struct credentials *credentials, const char *name, const char *wanted,
		     gnutls_datum_t *data, char *error)
{
	char path[PATH_MAX_BYTES];
	int err;

	path_of(path, credentials, name);
	errno = 0;
	if (gnutls_load_file(path, data) >= 0)
		return 0;
	err = errno ? errno : EIO;
	wrong_file(credentials, name, strerror(err), wanted, error);
	return -err;
}

static bool has_file(const struct credentials *credentials, const char *name)
{
	gnutls_datum_t data;
	char error[CODEC_ERROR_MAX];
	int err = read_file(credentials, name, "", &data, error);

	if (!err)
		gnutls_free(data.data);
	return err != -ENOENT;
}

/* @got: what gnutls said to what was in the file */
static int took(const struct credentials *credentials, const char *name, int got,
		const char *wanted, char *error)
{
	return got > 0 ? 0 : wrong_file(credentials, name, got ? gnutls_strerror(got) : "none in it",
					wanted, error);
}

/* x509. */

static const struct credentials_verdict verdicts[] = {
	{ GNUTLS_CERT_REVOKED, "has been revoked", GNUTLS_A_CERTIFICATE_REVOKED },
	{ GNUTLS_CERT_SIGNER_NOT_FOUND, "is of no CA in ca-cert.pem", GNUTLS_A_UNKNOWN_CA },
	{ GNUTLS_CERT_SIGNER_NOT_CA, "is signed by one that is no CA", GNUTLS_A_UNKNOWN_CA },
	{ GNUTLS_CERT_SIGNATURE_FAILURE, "has a wrong signature", GNUTLS_A_UNKNOWN_CA },
	{ GNUTLS_CERT_EXPIRED, "has expired", GNUTLS_A_CERTIFICATE_EXPIRED },
	{ GNUTLS_CERT_NOT_ACTIVATED, "is not valid yet", GNUTLS_A_CERTIFICATE_EXPIRED },
	{ GNUTLS_CERT_UNEXPECTED_OWNER, "does not name that host", GNUTLS_A_BAD_CERTIFICATE },
	{ GNUTLS_CERT_PURPOSE_MISMATCH, "is not for this end of a connection",
	  GNUTLS_A_UNSUPPORTED_CERTIFICATE },
	{ GNUTLS_CERT_INSECURE_ALGORITHM, "uses an insecure algorithm", GNUTLS_A_BAD_CERTIFICATE },
	{ ~0u, "is not trusted", GNUTLS_A_BAD_CERTIFICATE },
};

const struct credentials_verdict *credentials_verdict(unsigned int status)
{
	const struct credentials_verdict *verdict = verdicts;

	while (!(status & verdict->flag))
		verdict++;
	return verdict;
}

/* Those that others are judged by are judged by nobody else. */
static int check_ca(const struct credentials *credentials, const gnutls_datum_t *data,
		    char *error)
{
	gnutls_x509_crt_t list[CAS_MAX];
	unsigned int count = CAS_MAX, critical;
	time_t now = time(NULL);
	const char *what = NULL;

	if (gnutls_x509_crt_list_import(list, &count, data, GNUTLS_X509_FMT_PEM,
					GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED) < 0)
		return wrong_file(credentials, "ca-cert.pem", "its certificates cannot be read",
				  "at most 64", error);
	for (unsigned int i = 0; i < count; i++) {
		if (gnutls_x509_crt_get_expiration_time(list[i]) < now)
			what = "the certificate has expired";
		else if (gnutls_x509_crt_get_activation_time(list[i]) > now)
			what = "the certificate is not valid yet";
		else if (!gnutls_x509_crt_get_ca_status(list[i], &critical))
			what = "the certificate is of no CA";
		gnutls_x509_crt_deinit(list[i]);
	}
	return what ? wrong_file(credentials, "ca-cert.pem", what, "that of a CA, valid now",
				 error) : 0;
}

static int load_ca(struct credentials *credentials, char *error)
{
	static const char wanted[] = "certificates of CAs, in PEM";
	gnutls_datum_t data;
	int err = read_file(credentials, "ca-cert.pem", wanted, &data, error);

	if (err)
		return err;
	err = took(credentials, "ca-cert.pem",
		   gnutls_certificate_set_x509_trust_mem(credentials->x509, &data,
							 GNUTLS_X509_FMT_PEM), wanted, error);
	if (!err)
		err = check_ca(credentials, &data, error);
	gnutls_free(data.data);
	return err;
}

static int load_crl(struct credentials *credentials, char *error)
{
	static const char wanted[] = "lists of revoked certificates of the CA, in PEM";
	gnutls_datum_t data;
	int err = read_file(credentials, "ca-crl.pem", wanted, &data, error);

	if (err)
		return err == -ENOENT ? 0 : err;
	err = took(credentials, "ca-crl.pem",
		   gnutls_certificate_set_x509_crl_mem(credentials->x509, &data,
						       GNUTLS_X509_FMT_PEM), wanted, error);
	gnutls_free(data.data);
	return err;
}

/* Would the other side take it, if it had our ca-cert.pem? */
static int check_own(const struct credentials *credentials, const char *name, char *error)
{
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = (void *)(credentials->server ? GNUTLS_KP_TLS_WWW_SERVER :
						       GNUTLS_KP_TLS_WWW_CLIENT),
	};
	unsigned int status = ~0u, count;
	gnutls_x509_trust_list_t trusted;
	gnutls_x509_crt_t *list;
	char what[128];

	gnutls_certificate_get_trust_list(credentials->x509, &trusted);
	if (gnutls_certificate_get_x509_crt(credentials->x509, 0, &list, &count) < 0)
		return wrong_file(credentials, name, "cannot be read back", "a certificate", error);
	gnutls_x509_trust_list_verify_crt2(trusted, list, count, &purpose, 1, 0, &status, NULL);
	for (unsigned int i = 0; i < count; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
	if (!status)
		return 0;
	snprintf(what, sizeof(what), "the certificate %s", credentials_verdict(status)->text);
	return wrong_file(credentials, name, what, credentials->server ?
			  "one of that CA for a TLS server, valid now" :
			  "one of that CA for a TLS client, valid now", error);
}

static int load_own(struct credentials *credentials, char *error)
{
	bool server = credentials->server;
	const char *name = server ? "server-cert.pem" : "client-cert.pem";
	const char *key_name = server ? "server-key.pem" : "client-key.pem";
	gnutls_datum_t data, key;
	int err;

	/* A destination may do without, if it has verify-peer off. */
	if (!server && !has_file(credentials, name) && !has_file(credentials, key_name))
		return 0;
	err = read_file(credentials, name, "the certificate of this host, in PEM", &data, error);
	if (err)
		return err;
	err = read_file(credentials, key_name, "the private key of this host, in PEM", &key, error);
	if (!err) {
		int got = gnutls_certificate_set_x509_key_mem2(credentials->x509, &data, &key,
							       GNUTLS_X509_FMT_PEM, NULL, 0);

		err = took(credentials, name, got < 0 ? got : 1,
			   server ? "a certificate, and its key without a password in server-key.pem, in PEM" :
				    "a certificate, and its key without a password in client-key.pem, in PEM",
			   error);
		gnutls_memset(key.data, 0, key.size);
		gnutls_free(key.data);
	}
	gnutls_free(data.data);
	return err ? err : check_own(credentials, name, error);
}

/* Return: -ENOENT there are none: gnutls has some of its own. */
static int load_dh(struct credentials *credentials, char *error)
{
	static const char wanted[] = "parameters of Diffie-Hellman, in PEM";
	gnutls_datum_t data;
	int err = read_file(credentials, "dh-params.pem", wanted, &data, error);

	if (err)
		return err;
	gnutls_dh_params_init(&credentials->dh);
	err = gnutls_dh_params_import_pkcs3(credentials->dh, &data, GNUTLS_X509_FMT_PEM);
	gnutls_free(data.data);
	return took(credentials, "dh-params.pem", err < 0 ? err : 1, wanted, error);
}

static int load_x509(struct credentials *credentials, char *error)
{
	int err;

	if (!credentials->server && !credentials->setup.no_verify && !credentials->setup.hostname) {
		wrong(error, "the URI names no host that the certificate of the destination has to name, wanted tls-hostname to be set");
		return -EINVAL;
	}
	if (gnutls_certificate_allocate_credentials(&credentials->x509) < 0)
		return -ENOMEM;
	err = load_ca(credentials, error);
	if (!err)
		err = load_crl(credentials, error);
	if (!err)
		err = load_own(credentials, error);
	if (err || !credentials->server)
		return err;
	err = load_dh(credentials, error);
	if (!err)
		gnutls_certificate_set_dh_params(credentials->x509, credentials->dh);
	return err == -ENOENT ? 0 : err;
}

/* Keys: a user and its key in hexadecimal on each line, with a colon between. */

int credentials_key(const struct credentials *credentials, const char *user, gnutls_datum_t *key)
{
	size_t length = strlen(user);

	for (const char *line = (const char *)credentials->keys.data; *line; ) {
		size_t size = strcspn(line, "\r\n");

		if (size > length && !strncmp(line, user, length) && line[length] == ':') {
			gnutls_datum_t hex = {
				(unsigned char *)(uintptr_t)line + length + 1,
				(unsigned int)(size - length - 1),
			};

			return hex.size && !gnutls_hex_decode2(&hex, key) ? 0 : -EINVAL;
		}
		line += size;
		line += strspn(line, "\r\n");
	}
	return -ENOENT;
}

static int load_key(struct credentials *credentials, char *error)
{
	const char *user = credentials->setup.username;
	gnutls_datum_t key;
	char what[128], wanted[128];
	int err;

	if (!user)
		user = CREDENTIALS_USER;
	err = credentials_key(credentials, user, &key);
	if (err) {
		snprintf(what, sizeof(what), err == -ENOENT ? "has no user \"%.64s\"" :
			 "the key of user \"%.64s\" is not hexadecimal", user);
		snprintf(wanted, sizeof(wanted), "a line %.64s:KEY as psktool writes it", user);
		return wrong_file(credentials, "keys.psk", what, wanted, error);
	}
	if (gnutls_psk_allocate_client_credentials(&credentials->psk_client) < 0 ||
	    gnutls_psk_set_client_credentials(credentials->psk_client, user, &key,
					      GNUTLS_PSK_KEY_RAW) < 0)
		err = -ENOMEM;
	gnutls_memset(key.data, 0, key.size);
	gnutls_free(key.data);
	return err;
}

static int load_psk(struct credentials *credentials, char *error)
{
	static const char wanted[] = "lines USER:KEY as psktool writes them";
	int err = read_file(credentials, "keys.psk", wanted, &credentials->keys, error);

	if (err)
		return err;
	/* gnutls_load_file() leaves a NUL behind what it read. */
	if (!strchr((const char *)credentials->keys.data, ':'))
		return wrong_file(credentials, "keys.psk", "no user in it", wanted, error);
	if (!credentials->server)
		return load_key(credentials, error);
	if (gnutls_psk_allocate_server_credentials(&credentials->psk_server) < 0)
		return -ENOMEM;
	err = load_dh(credentials, error);
	if (!err)
		gnutls_psk_set_server_dh_params(credentials->psk_server, credentials->dh);
	return err == -ENOENT ? 0 : err;
}

/* Both. */

static int set_priority(struct credentials *credentials, char *error)
{
	const struct credentials_setup *setup = &credentials->setup;
	const char *given = setup->priority ? setup->priority : PRIORITY_NORMAL;
	char text[PRIORITY_MAX];
	const char *at = text;
	int code;

	snprintf(text, sizeof(text), "%s%s" PRIORITY_FLOOR, given,
		 setup->kind == CREDENTIALS_PSK ? PRIORITY_PSK : "");
	code = gnutls_priority_init(&credentials->priority, text, &at);
	if (!code)
		return 0;
	if (code == GNUTLS_E_INVALID_REQUEST)
		wrong(error, "priority \"%s\" is wrong from \"%s\" on, wanted one of gnutls, as NORMAL",
		      given, at);
	else
		wrong(error, "priority \"%s\" has nothing of TLS 1.2 or later, wanted that (%s)",
		      given, gnutls_strerror(code));
	return -EINVAL;
}

struct credentials *credentials_load(const struct credentials_setup *setup, bool server,
				     char *error)
{
	struct credentials *credentials = calloc(1, sizeof(*credentials));
	int err = -ENOMEM;

	wrong(error, "out of memory");
	if (credentials && !gnutls_global_init()) {
		credentials->setup = *setup;
		credentials->server = server;
		err = set_priority(credentials, error);
	}
	if (!err)
		err = setup->kind == CREDENTIALS_X509 ? load_x509(credentials, error) :
							load_psk(credentials, error);
	if (!err)
		return credentials;
	credentials_free(credentials);
	return NULL;
}

void credentials_free(struct credentials *credentials)
{
	if (!credentials)
		return;
	if (credentials->priority)
		gnutls_priority_deinit(credentials->priority);
	if (credentials->x509)
		gnutls_certificate_free_credentials(credentials->x509);
	if (credentials->psk_server)
		gnutls_psk_free_server_credentials(credentials->psk_server);
	if (credentials->psk_client)
		gnutls_psk_free_client_credentials(credentials->psk_client);
	if (credentials->dh)
		gnutls_dh_params_deinit(credentials->dh);
	if (credentials->keys.data)
		gnutls_memset(credentials->keys.data, 0, credentials->keys.size);
	gnutls_free(credentials->keys.data);
	free(credentials);
}
