// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tls.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

#define HOST	"dest.example"

static char folders[2][64];
static char error[CODEC_ERROR_MAX];
static struct credentials *credentials[2];
static struct tls *tls[2];	/* client, server */
static int fds[2];

static int setup(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		strcpy(folders[i], "/tmp/umem-test-tls-XXXXXX");
		if (!mkdtemp(folders[i]))
			return -1;
	}
	error[0] = '\0';
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds);
}

static void close_end(int i)
{
	tls_free(tls[i]);
	tls[i] = NULL;
	if (fds[i] >= 0)
		close(fds[i]);
	fds[i] = -1;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		close_end(i);
		credentials_free(credentials[i]);
		credentials[i] = NULL;
		folder_remove(folders[i]);
	}
	return 0;
}

static struct credentials_setup x509(int i)
{
	return (struct credentials_setup){
		.kind = CREDENTIALS_X509,
		.folder = folders[i],
		.hostname = i ? NULL : HOST,
	};
}

static struct credentials_setup psk(int i)
{
	return (struct credentials_setup){ .kind = CREDENTIALS_PSK, .folder = folders[i] };
}

static void load(int i, struct credentials_setup wanted)
{
	credentials[i] = credentials_load(&wanted, i, error);
	if (!credentials[i])
		fail_msg("%s", error);
	tls[i] = tls_new(credentials[i], fds[i]);
	assert_non_null(tls[i]);
}

static void load_both(void)
{
	load(0, x509(0));
	load(1, x509(1));
}

static void fill_both(void)
{
	for (int i = 0; i < 2; i++)
		folder_fill(folders[i], &(struct folder_setup){ .host = HOST });
}

/* Both go on until neither can. */
static void shake(int result[2])
{
	result[0] = result[1] = -EAGAIN;
	for (int turn = 0; turn < 20; turn++) {
		for (int i = 0; i < 2; i++) {
			if (tls[i] && result[i] == -EAGAIN)
				result[i] = tls_handshake(tls[i]);
		}
	}
}

static void shake_well(void)
{
	int result[2];

	shake(result);
	assert_string_equal(tls_why(tls[0]), "");
	assert_string_equal(tls_why(tls[1]), "");
	assert_int_equal(result[0], 0);
	assert_int_equal(result[1], 0);
	assert_true(tls_is_up(tls[0]) && tls_is_up(tls[1]));
}

static void says(int i, const char *part)
{
	if (!strstr(tls_why(tls[i]), part))
		fail_msg("%s: \"%s\", wanted \"%s\"", i ? "server" : "client", tls_why(tls[i]), part);
}

/* The client may think it is done, with TLS 1.3: it learns at its first read that it is not. */
static void shake_badly(const char *client, const char *server)
{
	uint8_t byte;
	int result[2];

	shake(result);
	if (!result[0])
		result[0] = (int)tls_receive(tls[0], &byte, 1);
	assert_int_equal(result[0], -EBADMSG);
	assert_int_equal(result[1], -EBADMSG);
	assert_false(tls_is_up(tls[1]));
	says(0, client);
	says(1, server);
	assert_int_equal(tls_handshake(tls[1]), -EBADMSG);
}

static void exchange(void)
{
	struct iovec pieces[3] = { { "a", 1 }, { "", 0 }, { "bc", 2 } };
	char got[8] = "";

	for (int i = 0; i < 2; i++) {
		assert_int_equal(tls_send(tls[i], pieces, 3), 3);
		assert_int_equal(tls_receive(tls[!i], got, 2), 2);
		assert_true(tls_has_more(tls[!i]));
		assert_int_equal(tls_receive(tls[!i], got + 2, 6), 1);
		assert_string_equal(got, "abc");
		assert_false(tls_has_more(tls[!i]));
		assert_int_equal(tls_receive(tls[!i], got, 8), -EAGAIN);
	}
}

static void test_x509(void **state)
{
	(void)state;
	fill_both();
	load_both();
	shake_well();
	exchange();
}

static void test_host_by_address(void **state)
{
	struct credentials_setup client = x509(0);

	(void)state;
	for (int i = 0; i < 2; i++)
		folder_fill(folders[i], &(struct folder_setup){ .host = "10.0.0.7" });
	client.hostname = "10.0.0.7";
	load(0, client);
	load(1, x509(1));
	shake_well();
}

static void test_tls_1_2(void **state)
{
	struct credentials_setup client = x509(0);

	(void)state;
	fill_both();
	client.priority = "NORMAL:-VERS-TLS1.3";
	load(0, client);
	load(1, x509(1));
	shake_well();
	exchange();
}

static void test_nothing_below_tls_1_2(void **state)
{
	struct credentials_setup old = x509(0);

	(void)state;
	fill_both();
	old.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.1";
	assert_null(credentials_load(&old, false, error));
	assert_non_null(strstr(error, "+VERS-TLS1.1\" has nothing of TLS 1.2 or later"));
}

static void test_wrong_ca_of_server(void **state)
{
	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST, .seed = 1 });
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST });
	load_both();
	shake_badly("the certificate \"CN=dest.example\" of the other side is of no CA in ca-cert.pem",
		    "alert \"CA is unknown\"): our certificate is of no CA in its ca-cert.pem");
}

static void wrong_ca_of_client(const char *priority)
{
	struct credentials_setup client = x509(0);

	folder_fill(folders[0], &(struct folder_setup){ .host = HOST });
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST, .seed = 1 });
	client.no_verify = true;	/* it would refuse first */
	client.priority = priority;
	load(0, client);
	load(1, x509(1));
	shake_badly("alert \"CA is unknown\"): our certificate is of no CA",
		    "the certificate \"CN=the source\" of the other side is of no CA in ca-cert.pem");
}

static void test_wrong_ca_of_client(void **state)
{
	(void)state;
	wrong_ca_of_client(NULL);
}

static void test_wrong_ca_of_client_tls_1_2(void **state)
{
	(void)state;
	wrong_ca_of_client("NORMAL:-VERS-TLS1.3");
}

static void test_wrong_host(void **state)
{
	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST });
	folder_fill(folders[1], &(struct folder_setup){ .host = "else.example" });
	load_both();
	shake_badly("the certificate \"CN=else.example\" does not name host \"dest.example\"",
		    "it does not take our certificate");
}

static void test_wrong_host_by_address(void **state)
{
	struct credentials_setup client = x509(0);

	(void)state;
	for (int i = 0; i < 2; i++)
		folder_fill(folders[i], &(struct folder_setup){ .host = "10.0.0.7" });
	client.hostname = "10.0.0.8";
	load(0, client);
	load(1, x509(1));
	shake_badly("does not name host \"10.0.0.8\"", "it does not take our certificate");
}

/* The other side's, for one's own is looked at when it is loaded. */
static void test_expired_server(void **state)
{
	struct credentials_setup server = x509(1);

	(void)state;
	fill_both();
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST });
	load_both();
	tls_free(tls[1]);
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST, .server_expired = true });
	assert_null(credentials_load(&server, true, error));
	gnutls_certificate_free_keys(credentials[1]->x509);
	assert_true(gnutls_certificate_set_x509_key_file(credentials[1]->x509,
		strcat(strcpy(error, folders[1]), "/server-cert.pem"),
		strcat(strcpy(error + 512, folders[1]), "/server-key.pem"),
		GNUTLS_X509_FMT_PEM) >= 0);
	tls[1] = tls_new(credentials[1], fds[1]);
	shake_badly("the certificate \"CN=dest.example\" of the other side has expired",
		    "alert \"Certificate is expired\"");
}

static void test_revoked_client(void **state)
{
	struct credentials_setup client = x509(1);

	(void)state;
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST, .revoked = true });
	client.hostname = HOST;
	/* Of its own it would say so: it has no ca-crl.pem. */
	load(1, x509(1));
	folder_remove_file(folders[1], "ca-crl.pem");
	load(0, client);
	shake_badly("alert \"Certificate was revoked\"",
		    "the certificate \"CN=the source\" of the other side has been revoked");
}

static void test_missing_client_certificate(void **state)
{
	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST, .no_client = true });
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST });
	load_both();
	shake_badly("it wants this side to have a client-cert.pem", "sent no certificate");
}

static void test_missing_client_certificate_tls_1_2(void **state)
{
	struct credentials_setup client = x509(0);

	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST, .no_client = true });
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST });
	client.priority = "NORMAL:-VERS-TLS1.3";
	load(0, client);
	load(1, x509(1));
	shake_badly("it wants this side to have a client-cert.pem", "sent no certificate");
}

static void test_client_without_certificate(void **state)
{
	struct credentials_setup server = x509(1);

	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST, .no_client = true });
	folder_fill(folders[1], &(struct folder_setup){ .host = HOST });
	server.no_verify = true;
	load(0, x509(0));
	load(1, server);
	shake_well();
	exchange();
}

static void test_client_that_does_not_look(void **state)
{
	struct credentials_setup client = x509(0);

	(void)state;
	folder_fill(folders[0], &(struct folder_setup){ .host = HOST });
	folder_fill(folders[1], &(struct folder_setup){ .host = "else.example" });
	client.no_verify = true;
	client.hostname = NULL;
	load(0, client);
	load(1, x509(1));
	shake_well();
}

static void test_psk(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		folder_keys(folders[i], NULL);
		load(i, psk(i));
	}
	shake_well();
	exchange();
}

static void test_psk_user(void **state)
{
	struct credentials_setup client = psk(0);

	(void)state;
	client.username = "other";
	client.priority = "NORMAL:-VERS-TLS1.3";
	folder_keys(folders[0], "qemu:00\nother:1234\n");
	folder_keys(folders[1], "qemu:01\r\nother:1234\r\n");
	load(0, client);
	load(1, psk(1));
	shake_well();
	exchange();
}

static void wrong_key(const char *priority)
{
	struct credentials_setup client = psk(0);

	client.priority = priority;
	folder_keys(folders[0], "qemu:1234567812345678\n");
	folder_keys(folders[1], "qemu:1234567812345679\n");
	load(0, client);
	load(1, psk(1));
	shake_badly("another key in keys.psk", "another key in keys.psk");
}

static void test_psk_wrong_key(void **state)
{
	(void)state;
	wrong_key(NULL);
}

static void test_psk_wrong_key_tls_1_2(void **state)
{
	(void)state;
	wrong_key("NORMAL:-VERS-TLS1.3");
}

static void wrong_user(const char *priority)
{
	struct credentials_setup client = psk(0);

	client.username = "eve";
	client.priority = priority;
	folder_keys(folders[0], "eve:1234\n");
	folder_keys(folders[1], "qemu:1234\n");
	load(0, client);
	load(1, psk(1));
	shake_badly("its keys.psk has no key of our user", "keys.psk has no key of user \"eve\"");
}

static void test_psk_wrong_user(void **state)
{
	(void)state;
	wrong_user(NULL);
}

static void test_psk_wrong_user_tls_1_2(void **state)
{
	(void)state;
	wrong_user("NORMAL:-VERS-TLS1.3");
}

static void test_psk_to_x509(void **state)
{
	(void)state;
	folder_keys(folders[0], NULL);
	fill_both();
	load(0, psk(0));
	load(1, x509(1));
	shake_badly("one side have x509, the other PSK", "one side have x509, the other PSK");
}

static void test_x509_to_psk(void **state)
{
	(void)state;
	folder_keys(folders[1], NULL);
	fill_both();
	load(0, x509(0));
	load(1, psk(1));
	shake_badly("one side have x509, the other PSK", "one side have x509, the other PSK");
}

/* What the other side is told, magic_check() has to take for TLS. */
static void hears_tls(int fd)
{
	uint8_t heard[512];
	ssize_t n = read(fd, heard, sizeof(heard));

	assert_true(n >= 4);
	assert_int_equal(magic_check(heard, n < MAGIC_SIZE ? (size_t)n : MAGIC_SIZE, MAGIC, error),
			 -EPROTO);
	if (!strstr(error, "it speaks TLS"))
		fail_msg("%s", error);
}

static void plain_peer(int i, const char *magic)
{
	int result[2];

	fill_both();
	load(i, x509(i));
	assert_int_equal(write(fds[!i], magic, MAGIC_SIZE), MAGIC_SIZE);
	shake(result);
	assert_int_equal(result[i], -EBADMSG);
	says(i, "speaks without TLS, wanted TLS: set tls-creds at both sides");
	hears_tls(fds[!i]);
}

static void test_plain_client(void **state)
{
	(void)state;
	plain_peer(1, MAGIC);
}

static void test_plain_client_stream(void **state)
{
	(void)state;
	plain_peer(1, "UMUX\r\n\x1a\n");
}

static void test_plain_server(void **state)
{
	(void)state;
	plain_peer(0, MAGIC);
}

static void test_noise(void **state)
{
	int result[2];

	(void)state;
	fill_both();
	load(1, x509(1));
	assert_int_equal(write(fds[0], "GET / HTTP/1.1\r\n\r\n", 18), 18);
	shake(result);
	assert_int_equal(result[1], -EBADMSG);
	says(1, "TLS: ");
}

static void test_silent(void **state)
{
	int result[2];

	(void)state;
	fill_both();
	load_both();
	assert_int_equal(tls_handshake(tls[0]), -EAGAIN);
	assert_false(tls_wants_write(tls[0]));
	close_end(1);
	shake(result);
	assert_int_equal(result[0], -EBADMSG);
	says(0, "the connection ended in the TLS handshake");
}

/* Sent through a socket that takes little at a time, nothing is lost or doubled. */
static void test_records_in_pieces(void **state)
{
	static uint8_t out[300000], in[sizeof(out)];
	size_t sent = 0, got = 0;
	unsigned int again = 0;
	int small = 2048;

	(void)state;
	fill_both();
	load_both();
	shake_well();
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 251);
	while (got < sizeof(out)) {
		size_t first = sizeof(out) - sent < 100 ? sizeof(out) - sent : 100;
		struct iovec iov[2] = {
			{ out + sent, first }, { out + sent + first, sizeof(out) - sent - first },
		};
		ssize_t n = sent < sizeof(out) ? tls_send(tls[0], iov, 2) : 0;

		assert_true(n >= 0 || n == -EAGAIN);
		again += n == -EAGAIN;
		sent += n > 0 ? (size_t)n : 0;
		n = tls_receive(tls[1], in + got, sizeof(in) - got);
		assert_true(n > 0 || n == -EAGAIN);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_true(again > 10);
	assert_memory_equal(in, out, sizeof(out));
}

static void test_damage(void **state)
{
	uint8_t record[64];
	struct iovec iov = { "hello", 5 };
	ssize_t size;

	(void)state;
	fill_both();
	load_both();
	shake_well();
	assert_int_equal(tls_send(tls[0], &iov, 1), 5);
	size = read(fds[1], record, sizeof(record));
	assert_true(size > 10);
	record[size - 1] ^= 1;
	assert_int_equal(write(fds[0], record, (size_t)size), size);
	assert_int_equal(tls_receive(tls[1], record, sizeof(record)), -EBADMSG);
	says(1, "TLS: ");
	assert_true(tls_has_more(tls[1]));
	assert_int_equal(tls_receive(tls[1], record, sizeof(record)), -EBADMSG);
}

static void test_end(void **state)
{
	char byte;

	(void)state;
	fill_both();
	load_both();
	shake_well();
	close_end(0);
	assert_int_equal(tls_receive(tls[1], &byte, 1), 0);
	assert_int_equal(tls_receive(tls[1], &byte, 1), 0);
}

#define tls_test(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		tls_test(test_x509),
		tls_test(test_host_by_address),
		tls_test(test_tls_1_2),
		tls_test(test_nothing_below_tls_1_2),
		tls_test(test_wrong_ca_of_server),
		tls_test(test_wrong_ca_of_client),
		tls_test(test_wrong_ca_of_client_tls_1_2),
		tls_test(test_wrong_host),
		tls_test(test_wrong_host_by_address),
		tls_test(test_expired_server),
		tls_test(test_revoked_client),
		tls_test(test_missing_client_certificate),
		tls_test(test_missing_client_certificate_tls_1_2),
		tls_test(test_client_without_certificate),
		tls_test(test_client_that_does_not_look),
		tls_test(test_psk),
		tls_test(test_psk_user),
		tls_test(test_psk_wrong_key),
		tls_test(test_psk_wrong_key_tls_1_2),
		tls_test(test_psk_wrong_user),
		tls_test(test_psk_wrong_user_tls_1_2),
		tls_test(test_psk_to_x509),
		tls_test(test_x509_to_psk),
		tls_test(test_plain_client),
		tls_test(test_plain_client_stream),
		tls_test(test_plain_server),
		tls_test(test_noise),
		tls_test(test_silent),
		tls_test(test_records_in_pieces),
		tls_test(test_damage),
		tls_test(test_end),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
