// SPDX-License-Identifier: GPL-2.0-or-later
#include "umemd/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "umemd/tests/cmocka_first.h"

struct place {
	char folder[32];
	char path[64];
	struct uri uri;
	struct socket_listener listener;
	char actual[URI_TEXT_MAX];
	char error[SOCKET_ERROR_MAX];
};

static int setup(void **state)
{
	static struct place place;

	place = (struct place){ .listener = { .fd = -1 } };
	strcpy(place.folder, "/tmp/umem-socket-XXXXXX");
	if (!mkdtemp(place.folder))
		return -1;
	snprintf(place.path, sizeof(place.path), "%s/s", place.folder);
	place.uri.kind = URI_UNIX;
	strcpy(place.uri.rest, place.path);
	*state = &place;
	return 0;
}

static int teardown(void **state)
{
	struct place *place = *state;

	socket_unlisten(&place->listener);
	unlink(place->path);
	return rmdir(place->folder);
}

static int listen_there(struct place *place)
{
	return socket_listen(&place->uri, &place->listener, place->actual, place->error);
}

static int connect_there(struct place *place)
{
	struct socket_address address;
	unsigned int count;
	int fd, err;

	assert_int_equal(socket_resolve(&place->uri, 0, &address, &count, place->error), 0);
	assert_int_equal(count, 1);
	err = socket_connect(&address, &fd);
	return err ? err : fd;
}

static void test_who_connects_to_a_path_is_named_and_heard(void **state)
{
	struct place *place = *state;
	char peer[SOCKET_TEXT_MAX], wanted[64], byte = 0;
	uint64_t origin;
	int from, to;

	assert_int_equal(listen_there(place), 0);
	assert_memory_equal(place->actual, "unix:", 5);
	assert_string_equal(place->actual + 5, place->path);
	from = connect_there(place);
	assert_true(from >= 0);
	assert_int_equal(socket_connected(from), 0);
	assert_int_equal(socket_accept(place->listener.fd, &to, peer, &origin), 0);
	snprintf(wanted, sizeof(wanted), "process %d of uid %u", getpid(), getuid());
	assert_string_equal(peer, wanted);
	assert_int_equal(origin, getuid());
	assert_int_equal(write(from, "x", 1), 1);
	assert_int_equal(read(to, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	close(from);
	close(to);
	assert_int_equal(socket_accept(place->listener.fd, &to, peer, &origin), -EAGAIN);
}

static void test_unread_bytes_are_limited(void **state)
{
	struct place *place = *state;
	char peer[SOCKET_TEXT_MAX], chunk[4096] = { 0 };
	size_t sent = 0;
	uint64_t origin;
	int from, to;

	assert_int_equal(listen_there(place), 0);
	from = connect_there(place);
	assert_int_equal(socket_accept(place->listener.fd, &to, peer, &origin), 0);
	socket_limit_unsent(from, 16384);
	while (write(from, chunk, sizeof(chunk)) > 0)
		sent += sizeof(chunk);
	assert_in_range(sent, sizeof(chunk), 65536);
	close(from);
	close(to);
}

static void test_path_goes_with_its_listener(void **state)
{
	struct place *place = *state;

	assert_int_equal(listen_there(place), 0);
	assert_int_equal(access(place->path, F_OK), 0);
	socket_unlisten(&place->listener);
	assert_int_equal(access(place->path, F_OK), -1);
	assert_int_equal(connect_there(place), -ENOENT);
}

static void test_path_that_became_another_stays(void **state)
{
	struct place *place = *state;

	assert_int_equal(listen_there(place), 0);
	unlink(place->path);
	assert_int_equal(mkfifo(place->path, 0600), 0);
	socket_unlisten(&place->listener);
	assert_int_equal(access(place->path, F_OK), 0);
}

static void test_socket_that_nobody_listens_on_is_replaced(void **state)
{
	struct place *place = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(address.sun_path, place->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	assert_int_equal(connect_there(place), -ECONNREFUSED);
	assert_int_equal(listen_there(place), 0);
	fd = connect_there(place);
	assert_true(fd >= 0);
	close(fd);
}

static void test_socket_that_somebody_listens_on_is_left_alone(void **state)
{
	struct place *place = *state;
	struct socket_listener second;
	int fd;

	assert_int_equal(listen_there(place), 0);
	assert_int_equal(socket_listen(&place->uri, &second, place->actual, place->error),
			 -EADDRINUSE);
	assert_non_null(strstr(place->error, "somebody listens there already"));
	socket_unlisten(&second);
	fd = connect_there(place);
	assert_true(fd >= 0);
	close(fd);
}

static void test_other_files_are_refused(void **state)
{
	struct place *place = *state;

	assert_int_equal(mkfifo(place->path, 0600), 0);
	assert_int_equal(listen_there(place), -EEXIST);
	assert_non_null(strstr(place->error, place->path));
	assert_non_null(strstr(place->error, "no socket, wanted nothing there"));
	assert_int_equal(access(place->path, F_OK), 0);
}

static void test_folder_that_is_not_there_is_told(void **state)
{
	struct place *place = *state;

	strcpy(place->uri.rest, "/no/such/folder/s");
	assert_int_equal(listen_there(place), -ENOENT);
	assert_string_equal(place->error,
			    "cannot listen on unix:/no/such/folder/s: No such file or directory");
}

static void test_long_path_is_refused_with_both_lengths(void **state)
{
	struct place *place = *state;

	memset(place->uri.rest, 'p', 108);
	assert_int_equal(listen_there(place), -ENAMETOOLONG);
	assert_non_null(strstr(place->error, "has 108 characters, at most 107 are possible"));
}

static void test_tcp_tells_its_real_port(void **state)
{
	struct place *place = *state;
	unsigned int port = 0;

	place->uri = (struct uri){ .kind = URI_TCP, .host = "127.0.0.1" };
	assert_int_equal(listen_there(place), 0);
	assert_int_equal(sscanf(place->actual, "tcp:127.0.0.1:%u", &port), 1);
	assert_in_range(port, 1, 65535);
}

static uint64_t origin_from(struct place *place, uint32_t host, unsigned int port)
{
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(host) };
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), to;
	char peer[SOCKET_TEXT_MAX];
	uint64_t origin;

	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&there, sizeof(there)), 0);
	assert_int_equal(socket_accept(place->listener.fd, &to, peer, &origin), 0);
	close(fd);
	close(to);
	return origin;
}

static void test_an_address_is_one_origin_whatever_its_ports(void **state)
{
	struct place *place = *state;
	unsigned int port = 0;
	uint64_t origin;

	place->uri = (struct uri){ .kind = URI_TCP, .host = "127.0.0.1" };
	assert_int_equal(listen_there(place), 0);
	sscanf(place->actual, "tcp:127.0.0.1:%u", &port);
	origin = origin_from(place, 0x7f000002, port);
	assert_int_equal(origin_from(place, 0x7f000002, port), origin);
	assert_int_not_equal(origin_from(place, 0x7f000003, port), origin);
}

static void test_what_leaves_the_host(void **state)
{
	static const struct {
		const char *host;
		bool remote;
	} hosts[] = {
		{ "127.0.0.1", false }, { "127.1.2.3", false }, { "128.0.0.1", true },
		{ "10.77.0.2", true }, { "::1", false }, { "::ffff:127.0.0.1", false },
		{ "::ffff:10.0.0.1", true }, { "fe80::1", true }, { "::2", true },
	};
	struct place *place = *state;
	struct socket_address address;
	unsigned int count;
	int fd;

	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		struct uri uri = { .kind = URI_TCP, .port = 1 };

		strcpy(uri.host, hosts[i].host);
		assert_int_equal(socket_resolve(&uri, 0, &address, &count, place->error), 0);
		if (socket_is_remote(&address) != hosts[i].remote)
			fail_msg("%s", hosts[i].host);
	}
	assert_int_equal(listen_there(place), 0);
	fd = connect_there(place);
	assert_int_equal(socket_peer(fd, &address), 0);
	assert_false(socket_is_remote(&address));
	close(fd);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_who_connects_to_a_path_is_named_and_heard),
		test(test_unread_bytes_are_limited),
		test(test_path_goes_with_its_listener),
		test(test_path_that_became_another_stays),
		test(test_socket_that_nobody_listens_on_is_replaced),
		test(test_socket_that_somebody_listens_on_is_left_alone),
		test(test_other_files_are_refused),
		test(test_folder_that_is_not_there_is_told),
		test(test_long_path_is_refused_with_both_lengths),
		test(test_tcp_tells_its_real_port),
		test(test_an_address_is_one_origin_whatever_its_ports),
		test(test_what_leaves_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
