// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/credentials.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "umemd/tests/cmocka_first.h"
#include "umemd/tests/folder.h"

static char folder[64];
static char error[CODEC_ERROR_MAX];
static struct credentials_setup client, server, psk_client, psk_server;

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/umem-test-credentials-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	client = (struct credentials_setup){ CREDENTIALS_X509, folder, NULL, "host", NULL, false };
	server = (struct credentials_setup){ CREDENTIALS_X509, folder, NULL, NULL, NULL, false };
	psk_client = (struct credentials_setup){ CREDENTIALS_PSK, folder, NULL, NULL, NULL, false };
	psk_server = psk_client;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(folder);
	return 0;
}

static void loads(const struct credentials_setup *wanted, bool is_server)
{
	struct credentials *credentials = credentials_load(wanted, is_server, error);

	if (!credentials)
		fail_msg("%s", error);
	credentials_free(credentials);
}

/* The sentence begins with the file, and has @part. */
static void refused(const struct credentials_setup *wanted, bool is_server, const char *file,
		    const char *part)
{
	struct credentials *credentials = credentials_load(wanted, is_server, error);
	char path[128];

	assert_null(credentials);
	snprintf(path, sizeof(path), "%s/%s: ", folder, file);
	if (strncmp(error, path, strlen(path)) || !strstr(error, part) ||
	    !strstr(error, ", wanted "))
		fail_msg("\"%s\", wanted \"%s ... %s\"", error, path, part);
}

static void fill(struct folder_setup contents)
{
	contents.host = "host";
	folder_fill(folder, &contents);
}

static void test_x509(void **state)
{
	(void)state;
	fill((struct folder_setup){ 0 });
	loads(&client, false);
	loads(&server, true);
}

static void test_file_missing(void **state)
{
	static const struct {
		const char *name;
		bool client, server;
	} files[] = {
		{ "ca-cert.pem", true, true },
		{ "server-cert.pem", false, true },
		{ "server-key.pem", false, true },
		{ "client-cert.pem", true, false },
		{ "client-key.pem", true, false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		fill((struct folder_setup){ 0 });
		folder_remove_file(folder, files[i].name);
		if (files[i].client)
			refused(&client, false, files[i].name, "No such file");
		else
			loads(&client, false);
		if (files[i].server)
			refused(&server, true, files[i].name, "No such file");
		else
			loads(&server, true);
	}
}

static void test_file_not_readable(void **state)
{
	char path[128];

	(void)state;
	fill((struct folder_setup){ 0 });
	folder_remove_file(folder, "server-key.pem");
	snprintf(path, sizeof(path), "%s/server-key.pem", folder);
	assert_int_equal(symlink("server-key.pem", path), 0);
	refused(&server, true, "server-key.pem", "Too many levels of symbolic links");
}

static void test_no_client_certificate(void **state)
{
	(void)state;
	fill((struct folder_setup){ .no_client = true });
	loads(&client, false);
}

static void test_garbage(void **state)
{
	static const struct {
		const char *name, *said_of;
		bool server;
	} files[] = {
		{ "ca-cert.pem", "ca-cert.pem", false },
		{ "client-cert.pem", "client-cert.pem", false },
		{ "client-key.pem", "client-cert.pem", false },
		{ "server-key.pem", "server-cert.pem", true },
		{ "ca-crl.pem", "ca-crl.pem", true },
		{ "dh-params.pem", "dh-params.pem", true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		fill((struct folder_setup){ 0 });
		folder_write(folder, files[i].name, "garbage\n", 8);
		refused(files[i].server ? &server : &client, files[i].server, files[i].said_of, "");
		folder_remove_file(folder, files[i].name);
	}
}

static void test_key_of_another(void **state)
{
	char from[128], to[128];

	(void)state;
	fill((struct folder_setup){ 0 });
	snprintf(from, sizeof(from), "%s/client-key.pem", folder);
	snprintf(to, sizeof(to), "%s/server-key.pem", folder);
	assert_int_equal(rename(from, to), 0);
	refused(&server, true, "server-cert.pem", "server-key.pem");
}

static void test_expired(void **state)
{
	(void)state;
	fill((struct folder_setup){ .server_expired = true });
	refused(&server, true, "server-cert.pem", "the certificate has expired");
	loads(&client, false);
	fill((struct folder_setup){ .client_expired = true });
	refused(&client, false, "client-cert.pem", "the certificate has expired");
	fill((struct folder_setup){ .ca_expired = true });
	refused(&server, true, "ca-cert.pem", "the certificate has expired");
	refused(&client, false, "ca-cert.pem", "the certificate has expired");
}

static void test_for_the_other_end(void **state)
{
	(void)state;
	fill((struct folder_setup){ .swapped = true });
	refused(&server, true, "server-cert.pem", "not for this end");
	refused(&client, false, "client-cert.pem", "not for this end");
}

static void test_own_revoked(void **state)
{
	(void)state;
	fill((struct folder_setup){ .revoked = true });
	refused(&client, false, "client-cert.pem", "has been revoked");
}

static void copy_file(const char *from_name, const char *to_name)
{
	char from[128], to[128];

	snprintf(from, sizeof(from), "%s/%s", folder, from_name);
	snprintf(to, sizeof(to), "%s/%s", folder, to_name);
	assert_int_equal(rename(from, to), 0);
}

static void test_of_another_ca(void **state)
{
	(void)state;
	fill((struct folder_setup){ .seed = 1 });
	copy_file("ca-cert.pem", "other-ca.pem");
	fill((struct folder_setup){ 0 });
	copy_file("other-ca.pem", "ca-cert.pem");
	refused(&server, true, "server-cert.pem", "is of no CA in ca-cert.pem");
}

static void test_ca_that_is_none(void **state)
{
	(void)state;
	fill((struct folder_setup){ 0 });
	copy_file("server-cert.pem", "ca-cert.pem");
	refused(&client, false, "ca-cert.pem", "is of no CA");
}

static void test_no_host_name(void **state)
{
	(void)state;
	fill((struct folder_setup){ 0 });
	client.hostname = NULL;
	assert_null(credentials_load(&client, false, error));
	assert_non_null(strstr(error, "wanted tls-hostname to be set"));
	client.no_verify = true;
	loads(&client, false);
}

static void test_psk(void **state)
{
	(void)state;
	folder_keys(folder, NULL);
	loads(&psk_client, false);
	loads(&psk_server, true);
	psk_client.username = "other";
	loads(&psk_client, false);
}

static void test_psk_refused(void **state)
{
	(void)state;
	refused(&psk_client, false, "keys.psk", "No such file");
	refused(&psk_server, true, "keys.psk", "No such file");
	folder_keys(folder, "");
	refused(&psk_server, true, "keys.psk", "no user in it");
	folder_keys(folder, "qemux:1234\nxqemu:1234\n");
	refused(&psk_client, false, "keys.psk", "has no user \"qemu\"");
	folder_keys(folder, "qemu:\n");
	refused(&psk_client, false, "keys.psk", "is not hexadecimal");
	folder_keys(folder, "qemu:12345x\n");
	refused(&psk_client, false, "keys.psk", "the key of user \"qemu\" is not hexadecimal");
}

static void test_priority(void **state)
{
	(void)state;
	folder_keys(folder, NULL);
	psk_client.priority = "SECURE256";
	loads(&psk_client, false);
	psk_client.priority = "NORMAL:+NONSENSE";
	assert_null(credentials_load(&psk_client, false, error));
	assert_non_null(strstr(error, "priority \"NORMAL:+NONSENSE\" is wrong from \"+NONSENSE"));
}

#define credentials_test(name)	cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		credentials_test(test_x509),
		credentials_test(test_file_missing),
		credentials_test(test_file_not_readable),
		credentials_test(test_no_client_certificate),
		credentials_test(test_garbage),
		credentials_test(test_key_of_another),
		credentials_test(test_expired),
		credentials_test(test_for_the_other_end),
		credentials_test(test_own_revoked),
		credentials_test(test_of_another_ca),
		credentials_test(test_ca_that_is_none),
		credentials_test(test_no_host_name),
		credentials_test(test_psk),
		credentials_test(test_psk_refused),
		credentials_test(test_priority),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
