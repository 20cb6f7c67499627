// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/tests/folder.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"

#define HOUR		3600
#define CAS		2
#define KEY_OF_TESTS	"6a1d5c0e9f3b7284f0c1d2e3a4b5968778695a4b3c2d1e0ff1e2d3c4b5a69788"

#define must(call) do {									\
	int code_ = (call);								\
	if (code_ < 0) {								\
		fprintf(stderr, "%s: %s\n", #call, gnutls_strerror(code_));		\
		exit(1);								\
	}										\
} while (0)

struct identity {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t certificate;
};

void folder_write(const char *folder, const char *name, const void *data, unsigned long size)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	if (!file || fwrite(data, 1, size, file) != size || fclose(file)) {
		perror(path);
		exit(1);
	}
	chmod(path, 0600);
}

static void write_datum(const char *folder, const char *name, gnutls_datum_t *data)
{
	folder_write(folder, name, data->data, data->size);
	gnutls_free(data->data);
}

static void write_certificate(const char *folder, const char *name, gnutls_x509_crt_t certificate)
{
	gnutls_datum_t data;

	must(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_PEM, &data));
	write_datum(folder, name, &data);
}

static void make(struct identity *identity, const char *name, bool expired)
{
	static uint8_t serial;
	time_t now = time(NULL);
	uint8_t number = ++serial;

	must(gnutls_x509_privkey_init(&identity->key));
	must(gnutls_x509_privkey_generate(identity->key, GNUTLS_PK_ECDSA,
					  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	must(gnutls_x509_crt_init(&identity->certificate));
	must(gnutls_x509_crt_set_version(identity->certificate, 3));
	must(gnutls_x509_crt_set_serial(identity->certificate, &number, 1));
	must(gnutls_x509_crt_set_key(identity->certificate, identity->key));
	must(gnutls_x509_crt_set_activation_time(identity->certificate, now - 2 * HOUR));
	must(gnutls_x509_crt_set_expiration_time(identity->certificate,
						 expired ? now - HOUR : now + 24 * HOUR));
	must(gnutls_x509_crt_set_dn_by_oid(identity->certificate, GNUTLS_OID_X520_COMMON_NAME, 0,
					   name, (unsigned int)strlen(name)));
}

static void make_ca(struct identity *ca, unsigned int seed, bool expired)
{
	make(ca, seed ? "another CA" : "CA of tests", expired);
	must(gnutls_x509_crt_set_basic_constraints(ca->certificate, 1, -1));
	must(gnutls_x509_crt_set_key_usage(ca->certificate,
					   GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
	must(gnutls_x509_crt_sign2(ca->certificate, ca->certificate, ca->key, GNUTLS_DIG_SHA256,
				   0));
}

static void name_host(gnutls_x509_crt_t certificate, const char *host)
{
	uint8_t address[16];

	if (inet_pton(AF_INET, host, address) == 1)
		must(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS,
							  address, 4, GNUTLS_FSAN_SET));
	else
		must(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, host,
							  (unsigned int)strlen(host),
							  GNUTLS_FSAN_SET));
}

static void write_host(const char *folder, const char *role, struct identity *host,
		       struct identity *ca, const char *purpose)
{
	char name[64];
	gnutls_datum_t data;

	must(gnutls_x509_crt_set_basic_constraints(host->certificate, 0, -1));
	must(gnutls_x509_crt_set_key_usage(host->certificate, GNUTLS_KEY_DIGITAL_SIGNATURE));
	must(gnutls_x509_crt_set_key_purpose_oid(host->certificate, purpose, 0));
	must(gnutls_x509_crt_sign2(host->certificate, ca->certificate, ca->key, GNUTLS_DIG_SHA256,
				   0));
	snprintf(name, sizeof(name), "%s-cert.pem", role);
	write_certificate(folder, name, host->certificate);
	snprintf(name, sizeof(name), "%s-key.pem", role);
	must(gnutls_x509_privkey_export2(host->key, GNUTLS_X509_FMT_PEM, &data));
	write_datum(folder, name, &data);
}

static void write_crl(const char *folder, struct identity *ca, gnutls_x509_crt_t certificate)
{
	time_t now = time(NULL);
	gnutls_x509_crl_t crl;
	gnutls_datum_t data;

	must(gnutls_x509_crl_init(&crl));
	must(gnutls_x509_crl_set_version(crl, 2));
	must(gnutls_x509_crl_set_crt(crl, certificate, now - HOUR));
	must(gnutls_x509_crl_set_this_update(crl, now - HOUR));
	must(gnutls_x509_crl_set_next_update(crl, now + HOUR));
	must(gnutls_x509_crl_sign2(crl, ca->certificate, ca->key, GNUTLS_DIG_SHA256, 0));
	must(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &data));
	write_datum(folder, "ca-crl.pem", &data);
	gnutls_x509_crl_deinit(crl);
}

static void forget(struct identity *identity)
{
	gnutls_x509_privkey_deinit(identity->key);
	gnutls_x509_crt_deinit(identity->certificate);
}

/* One that has expired is made anew, by the same key it would be another's. */
static struct identity *authority(const struct folder_setup *setup)
{
	static struct identity authorities[CAS][2];
	struct identity *ca = &authorities[setup->seed][setup->ca_expired];

	if (!ca->key)
		make_ca(ca, setup->seed, setup->ca_expired);
	return ca;
}

void folder_fill(const char *folder, const struct folder_setup *setup)
{
	struct identity *ca = authority(setup), server, client;

	mkdir(folder, 0700);
	write_certificate(folder, "ca-cert.pem", ca->certificate);
	make(&server, setup->host, setup->server_expired);
	name_host(server.certificate, setup->host);
	write_host(folder, "server", &server, ca,
		   setup->swapped ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER);
	make(&client, "the source", setup->client_expired);
	if (!setup->no_client)
		write_host(folder, "client", &client, ca, setup->swapped ?
			   GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT);
	if (setup->revoked)
		write_crl(folder, ca, client.certificate);
	forget(&server);
	forget(&client);
}

void folder_keys(const char *folder, const char *keys)
{
	if (!keys)
		keys = "qemu:" KEY_OF_TESTS "\nother:" KEY_OF_TESTS "\n";
	mkdir(folder, 0700);
	folder_write(folder, "keys.psk", keys, strlen(keys));
}

void folder_remove_file(const char *folder, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (unlink(path)) {
		perror(path);
		exit(1);
	}
}

void folder_remove(const char *folder)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(folder);
}
