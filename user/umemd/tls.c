// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tls.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"

#define NAME_BYTES	256

/**
 * struct tls - a session
 * @begun: the handshake is, which a client has to do
 * @up: it is over, and was good
 * @plain: the first bytes that came are a umem peer's that speaks without TLS
 * @verified: the certificate of the other side was looked at, and is good
 * @alert: what to tell the other side about @why
 * @sending: a record is under way that is not all gone
 * @over: nothing more comes: @result says why
 * @failed: errno of the descriptor
 * @why: empty, or a sentence
 */
struct tls {
	const struct credentials *credentials;
	gnutls_session_t session;
	int fd;
	bool heard, begun, up, plain, verified, sending, over;
	gnutls_alert_description_t alert;
	ssize_t result;
	int failed;
	char why[CODEC_ERROR_MAX];
	uint8_t record[TLS_RECORD_MAX];
};

static void __attribute__((format(printf, 2, 3)))
explain(struct tls *tls, const char *format, ...)
{
	va_list args;

	if (tls->why[0])
		return;
	va_start(args, format);
	vsnprintf(tls->why, sizeof(tls->why), format, args);
	va_end(args);
}

/* The descriptor. */

static ssize_t failed(struct tls *tls)
{
	gnutls_transport_set_errno(tls->session, errno);
	if (errno != EAGAIN && errno != EINTR)
		tls->failed = errno;
	return -1;
}

static ssize_t pull(gnutls_transport_ptr_t pointer, void *data, size_t size)
{
	struct tls *tls = pointer;
	ssize_t n = read(tls->fd, data, size);

	/* No record of TLS begins like the magics of umem. */
	if (n > 0 && !tls->heard)
		tls->plain = *(const char *)data == MAGIC[0];
	if (n > 0)
		tls->heard = true;
	if (tls->plain)
		errno = EPROTO;
	else if (n >= 0)
		return n;
	return failed(tls);
}

static ssize_t push(gnutls_transport_ptr_t pointer, const giovec_t *iov, int count)
{
	struct tls *tls = pointer;
	ssize_t n = writev(tls->fd, iov, count);

	if (n >= 0)
		return n;
	return failed(tls);
}

/* Who is it? */

static void describe_peer(const struct tls *tls, char name[NAME_BYTES])
{
	const gnutls_datum_t *list;
	gnutls_x509_crt_t certificate;
	unsigned int count;
	size_t size = NAME_BYTES;

	strcpy(name, "?");
	list = gnutls_certificate_get_peers(tls->session, &count);
	if (!list || !count || gnutls_x509_crt_init(&certificate) < 0)
		return;
	if (gnutls_x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER) < 0 ||
	    gnutls_x509_crt_get_dn(certificate, name, &size) < 0)
		strcpy(name, "?");
	gnutls_x509_crt_deinit(certificate);
}

static int no_certificate(struct tls *tls)
{
	explain(tls, "the other side sent no certificate, wanted one");
	tls->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
	return GNUTLS_E_CERTIFICATE_REQUIRED;
}

static int verify(gnutls_session_t session)
{
	struct tls *tls = gnutls_session_get_ptr(session);
	const struct credentials *credentials = tls->credentials;
	gnutls_typed_vdata_st wanted[2] = {
		{ .type = GNUTLS_DT_KEY_PURPOSE_OID,
		  .data = (void *)(uintptr_t)credentials_peer_purpose(credentials) },
		{ .type = GNUTLS_DT_DNS_HOSTNAME,
		  .data = (void *)(uintptr_t)credentials->setup.hostname },
	};
	const struct credentials_verdict *verdict;
	unsigned int status = 0;
	char name[NAME_BYTES];

	if (gnutls_certificate_verify_peers(session, wanted, credentials->server ? 1 : 2,
					    &status) < 0)
		return no_certificate(tls);
	tls->verified = !status;
	if (tls->verified)
		return 0;
	verdict = credentials_verdict(status);
	describe_peer(tls, name);
	if (verdict->flag == GNUTLS_CERT_UNEXPECTED_OWNER)
		explain(tls, "the certificate \"%s\" does not name host \"%s\", wanted one that does, or tls-hostname set to a name in it",
			name, credentials->setup.hostname);
	else
		explain(tls, "the certificate \"%s\" of the other side %s, wanted one of that CA, valid now", name,
			verdict->text);
	tls->alert = verdict->alert;
	return GNUTLS_E_CERTIFICATE_ERROR;
}

static int find_key(gnutls_session_t session, const char *user, gnutls_datum_t *key)
{
	struct tls *tls = gnutls_session_get_ptr(session);

	if (!credentials_key(tls->credentials, user, key))
		return 0;
	explain(tls, "keys.psk has no key of user \"%.64s\", whom the other side says to be", user);
	tls->alert = GNUTLS_A_UNKNOWN_PSK_IDENTITY;
	return -1;
}

/* A handshake was made: is it of the kind that was wanted? Return: 0 or an error of gnutls. */
static int check_peer(struct tls *tls)
{
	const struct credentials_setup *setup = &tls->credentials->setup;

	if (gnutls_auth_get_type(tls->session) !=
	    (setup->kind == CREDENTIALS_PSK ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE))
		return GNUTLS_E_INSUFFICIENT_CREDENTIALS;
	return setup->kind == CREDENTIALS_PSK || setup->no_verify || tls->verified ? 0 :
	       no_certificate(tls);
}

/* What went wrong. */

static const char mixed[] = "; does one side have x509, the other PSK?";
static const char other_key[] = "; does the user have another key in keys.psk there?";

/* What is likely to be behind an alert of the other side. */
static const char *meaning_of(const struct tls *tls, gnutls_alert_description_t alert)
{
	bool psk = tls->credentials->setup.kind == CREDENTIALS_PSK;

	switch (alert) {
	case GNUTLS_A_UNKNOWN_CA:
		return ": our certificate is of no CA in its ca-cert.pem";
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
		return ": it does not take our certificate, its log says why";
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return ": it wants this side to have a client-cert.pem";
	case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
		return ": its keys.psk has no key of our user";
	case GNUTLS_A_ILLEGAL_PARAMETER:
	case GNUTLS_A_DECRYPT_ERROR:
	case GNUTLS_A_BAD_RECORD_MAC:
		return psk ? other_key : "";
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INSUFFICIENT_SECURITY:
	case GNUTLS_A_MISSING_EXTENSION:
		return mixed;
	default:
		return "";
	}
}

static const char *meaning_of_error(const struct tls *tls, int code)
{
	bool psk = tls->credentials->setup.kind == CREDENTIALS_PSK;

	if (tls->up)
		return "";
	switch (code) {
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
	case GNUTLS_E_NO_CIPHER_SUITES:
		return mixed;
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
	case GNUTLS_E_DECRYPTION_FAILED:
		return psk ? other_key : "";
	default:
		return "";
	}
}

static void explain_alert(struct tls *tls)
{
	gnutls_alert_description_t alert = gnutls_alert_get(tls->session);
	const char *name = gnutls_alert_get_name(alert);

	explain(tls, "the other side refuses (TLS alert \"%s\")%s", name ? name : "?",
		meaning_of(tls, alert));
}

/*
 * A umem peer without TLS takes this alert, as anything that looks like TLS, for
 * what it means; gnutls sends none before it has heard what version to say it in.
 */
static void refuse_plain(struct tls *tls)
{
	static const uint8_t alert[] = { 21, 3, 3, 0, 2, GNUTLS_AL_FATAL,
					 GNUTLS_A_UNEXPECTED_MESSAGE };

	explain(tls, "it speaks without TLS, wanted TLS: set tls-creds at both sides");
	if (tls->credentials->server && write(tls->fd, alert, sizeof(alert)) < 0)
		return;		/* then it sees the connection end */
}

/* @code: a fatal one of gnutls, not of the descriptor. Return: -EBADMSG. */
static int refuse(struct tls *tls, int code)
{
	if (tls->plain) {
		refuse_plain(tls);
	} else if (code == GNUTLS_E_FATAL_ALERT_RECEIVED) {
		explain_alert(tls);
	} else {
		if (tls->why[0])
			gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, tls->alert);
		else
			gnutls_alert_send_appropriate(tls->session, code);
		explain(tls, "TLS: %s%s", gnutls_strerror(code), meaning_of_error(tls, code));
	}
	return -EBADMSG;
}

static bool is_of_descriptor(const struct tls *tls, int code)
{
	return !tls->plain && (code == GNUTLS_E_PULL_ERROR || code == GNUTLS_E_PUSH_ERROR);
}

/* The last result counts from now on. */
static ssize_t end(struct tls *tls, ssize_t result)
{
	tls->over = true;
	tls->result = result;
	return result;
}

int tls_handshake(struct tls *tls)
{
	int code;

	if (tls->over)
		return (int)tls->result;
	tls->begun = true;
	code = gnutls_handshake(tls->session);
	if (code && !gnutls_error_is_fatal(code))
		return -EAGAIN;
	if (!code)
		code = check_peer(tls);
	tls->up = !code;
	if (tls->up)
		return 0;
	if (code == GNUTLS_E_PREMATURE_TERMINATION || is_of_descriptor(tls, code)) {
		explain(tls, "the connection ended in the TLS handshake%s%s",
			tls->failed ? ": " : "", tls->failed ? strerror(tls->failed) : "");
		return (int)end(tls, -EBADMSG);
	}
	return (int)end(tls, refuse(tls, code));
}

/* Bytes. */

ssize_t tls_receive(struct tls *tls, void *buffer, size_t size)
{
	ssize_t n;

	if (tls->over)
		return tls->result;
	n = gnutls_record_recv(tls->session, buffer, size);
	if (n > 0)
		return n;
	if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
		return -EAGAIN;
	/* Frames say what is whole: the end of a connection means the same with close_notify. */
	if (!n || n == GNUTLS_E_PREMATURE_TERMINATION)
		return end(tls, 0);
	return end(tls, is_of_descriptor(tls, (int)n) ? -tls->failed : refuse(tls, (int)n));
}

bool tls_has_more(const struct tls *tls)
{
	return tls->over || gnutls_record_check_pending(tls->session);
}

/* One record of what lies in small pieces. */
static size_t gather(struct tls *tls, const struct iovec *iov, size_t count)
{
	size_t used = 0;

	for (size_t i = 0; i < count && used < TLS_RECORD_MAX; i++) {
		size_t part = min(iov[i].iov_len, TLS_RECORD_MAX - used);

		memcpy(tls->record + used, iov[i].iov_base, part);
		used += part;
	}
	return used;
}

ssize_t tls_send(struct tls *tls, const struct iovec *iov, size_t count)
{
	const void *data = NULL;
	size_t size = 0;
	ssize_t n;

	if (!tls->sending) {
		bool whole = count == 1 || iov[0].iov_len >= TLS_RECORD_MAX;

		data = whole ? iov[0].iov_base : tls->record;
		size = whole ? min(iov[0].iov_len, (size_t)TLS_RECORD_MAX) :
			       gather(tls, iov, count);
	}
	n = gnutls_record_send(tls->session, data, size);
	tls->sending = n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED;
	if (tls->sending)
		return -EAGAIN;
	if (n >= 0)
		return n;
	return is_of_descriptor(tls, (int)n) ? -tls->failed : refuse(tls, (int)n);
}

const char *tls_why(const struct tls *tls)
{
	return tls->why;
}

bool tls_is_up(const struct tls *tls)
{
	return tls->up;
}

bool tls_wants_write(const struct tls *tls)
{
	return !tls->begun || gnutls_record_get_direction(tls->session);
}

/* Beginning and end. */

static int offer(struct tls *tls)
{
	const struct credentials *credentials = tls->credentials;

	if (credentials->setup.kind == CREDENTIALS_PSK) {
		if (credentials->server)
			gnutls_psk_set_server_credentials_function(credentials->psk_server,
								   find_key);
		return gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK,
					      credentials->server ?
					      (void *)credentials->psk_server :
					      (void *)credentials->psk_client);
	}
	if (!credentials->setup.no_verify)
		gnutls_certificate_set_verify_function(credentials->x509, verify);
	if (credentials->server && !credentials->setup.no_verify)
		gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUEST);
	/* Told which CAs we know, it would send nothing where we can say what is wrong. */
	if (credentials->server)
		gnutls_certificate_send_x509_rdn_sequence(tls->session, 1);
	return gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, credentials->x509);
}

struct tls *tls_new(const struct credentials *credentials, int fd)
{
	struct tls *tls = calloc(1, sizeof(*tls));

	if (!tls)
		return NULL;
	tls->credentials = credentials;
	tls->fd = fd;
	if (gnutls_init(&tls->session, GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS |
			(credentials->server ? GNUTLS_SERVER : GNUTLS_CLIENT)) < 0) {
		free(tls);
		return NULL;
	}
	gnutls_session_set_ptr(tls->session, tls);
	gnutls_transport_set_ptr(tls->session, tls);
	gnutls_transport_set_pull_function(tls->session, pull);
	gnutls_transport_set_vec_push_function(tls->session, push);
	if (offer(tls) < 0 || gnutls_priority_set(tls->session, credentials->priority) < 0) {
		tls_free(tls);
		return NULL;
	}
	return tls;
}

void tls_free(struct tls *tls)
{
	if (!tls)
		return;
	gnutls_deinit(tls->session);
	free(tls);
}
