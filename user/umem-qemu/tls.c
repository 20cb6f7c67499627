// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/tls.h"

#include <string.h>

#include "common/text.h"

const char *const tls_properties[] = {
	"type", "dir", "endpoint", "priority", "verify-peer", "passwordid", "username", NULL,
};

/* Of what QEMU has not set it says "". */
static const char *string(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

const char *tls_creds(json_t *parameters)
{
	return string(parameters, "tls-creds");
}

json_t *tls_begin(json_t *parameters)
{
	if (!*tls_creds(parameters))
		return NULL;
	return memory_or_exit(json_pack("{s:s, s:s, s:s}", "id", tls_creds(parameters),
					"hostname", string(parameters, "tls-hostname"),
					"authz", string(parameters, "tls-authz")));
}

static bool is_x509(json_t *tls)
{
	return !strcmp(string(tls, "type"), "tls-creds-x509");
}

char *tls_check(json_t *tls, bool source)
{
	const char *id = string(tls, "id"), *endpoint = source ? "client" : "server";

	if (!is_x509(tls) && strcmp(string(tls, "type"), "tls-creds-psk"))
		return text_format("tls-creds is \"%s\", a %s, wanted a tls-creds-x509 or a tls-creds-psk",
				   id, string(tls, "type"));
	if (strcmp(string(tls, "endpoint"), endpoint))
		return text_format("tls-creds is \"%s\", of endpoint=%s, wanted one of endpoint=%s where a guest %s",
				   id, string(tls, "endpoint"), endpoint,
				   source ? "leaves" : "comes");
	if (!*string(tls, "dir"))
		return text_format("tls-creds is \"%s\", which has no dir, wanted the folder of its files",
				   id);
	if (*string(tls, "passwordid"))
		return text_format("tls-creds is \"%s\", whose key has a password (passwordid=%s), wanted a key without",
				   id, string(tls, "passwordid"));
	if (!source && *string(tls, "authz"))
		return text_format("tls-authz is \"%s\", which umem does not look at, wanted it empty: whoever has a certificate of the CA may connect",
				   string(tls, "authz"));
	return NULL;
}

static void add(char **argv, size_t *nr, const char *option, const char *value)
{
	if (*value)
		argv[(*nr)++] = text_format("%s=%s", option, value);
}

size_t tls_arguments(json_t *tls, bool source, char **argv)
{
	bool x509 = is_x509(tls);
	size_t nr = 0;

	add(argv, &nr, x509 ? "--tls-x509" : "--tls-psk", string(tls, "dir"));
	add(argv, &nr, "--tls-priority", string(tls, "priority"));
	if (x509 && json_is_false(json_object_get(tls, "verify-peer")))
		argv[nr++] = text_copy("--tls-no-verify");
	if (source && x509)
		add(argv, &nr, "--tls-hostname", string(tls, "hostname"));
	if (source && !x509)
		add(argv, &nr, "--tls-username", string(tls, "username"));
	return nr;
}
