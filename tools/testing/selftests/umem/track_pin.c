// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty tracking and pages that are pinned for long: a socket of AF_XDP pins them, and
 * the kernel writes the packets it receives into them, through no mapping of ours.
 */
#include "dirty_region.h"
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/socket.h>

#define RING	NR	/* entries of each */
#define DEVICE	"lo"

static int xdp_fd = -1, packet_fd;
static struct xdp_mmap_offsets offsets;
static char *fill_ring;

/* A network of our own: whoever else uses the device would lose packets. */
static void network_setup(void)
{
	struct ifreq up = { .ifr_name = DEVICE, .ifr_flags = IFF_UP };

	CHECK(!unshare(CLONE_NEWNET), "unshare: %s", strerror(errno));
	packet_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CHECK(packet_fd >= 0 && !ioctl(packet_fd, SIOCSIFFLAGS, &up), "%s up: %s", DEVICE,
	      strerror(errno));
}

static void xdp_set(int option, const void *value, socklen_t size)
{
	CHECK(!setsockopt(xdp_fd, SOL_XDP, option, value, size), "option %d: %s", option,
	      strerror(errno));
}

/* Whether the kernel allows it. */
static bool try_to_pin(void)
{
	struct xdp_umem_reg reg = { .addr = (uintptr_t)guest, .len = NR * PAGE,
				    .chunk_size = PAGE };

	xdp_fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xdp_fd < 0)
		skip("no AF_XDP here");
	return !setsockopt(xdp_fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg));
}

static void pin(void)
{
	CHECK(try_to_pin(), "XDP_UMEM_REG: %s", strerror(errno));
}

static int bpf(int command, union bpf_attr *attr)
{
	int ret = syscall(SYS_bpf, command, attr, sizeof(*attr));

	CHECK(ret >= 0, "bpf %d: %s", command, strerror(errno));
	return ret;
}

/* Whatever the device receives goes to our socket. */
static void redirect(void)
{
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_XSKMAP, .key_size = sizeof(uint32_t),
			       .value_size = sizeof(uint32_t), .max_entries = 1 };
	union bpf_attr update, load, link;
	int map_fd = bpf(BPF_MAP_CREATE, &map);
	uint32_t key = 0;
	struct bpf_insn program[] = {
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = BPF_REG_1,
		  .src_reg = BPF_PSEUDO_MAP_FD, .imm = map_fd }, { },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_2, .imm = 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS },
		{ .code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map },
		{ .code = BPF_JMP | BPF_EXIT },
	};

	update = (union bpf_attr){ .map_fd = map_fd, .key = (uintptr_t)&key,
				   .value = (uintptr_t)&xdp_fd };
	bpf(BPF_MAP_UPDATE_ELEM, &update);
	load = (union bpf_attr){ .prog_type = BPF_PROG_TYPE_XDP, .insns = (uintptr_t)program,
				 .insn_cnt = sizeof(program) / sizeof(*program),
				 .license = (uintptr_t)"GPL", .expected_attach_type = BPF_XDP };
	link = (union bpf_attr){ .link_create = { .prog_fd = bpf(BPF_PROG_LOAD, &load),
						  .target_ifindex = if_nametoindex(DEVICE),
						  .attach_type = BPF_XDP,
						  .flags = XDP_FLAGS_SKB_MODE } };
	bpf(BPF_LINK_CREATE, &link);
}

static void receive_setup(void)
{
	struct sockaddr_xdp address = { .sxdp_family = AF_XDP, .sxdp_flags = XDP_COPY,
					.sxdp_ifindex = if_nametoindex(DEVICE) };
	socklen_t size = sizeof(offsets);
	int entries = RING;

	xdp_set(XDP_UMEM_FILL_RING, &entries, sizeof(entries));
	xdp_set(XDP_UMEM_COMPLETION_RING, &entries, sizeof(entries));
	xdp_set(XDP_RX_RING, &entries, sizeof(entries));
	CHECK(!getsockopt(xdp_fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &size), "offsets");
	fill_ring = mmap(NULL, offsets.fr.desc + RING * sizeof(uint64_t), PROT_READ | PROT_WRITE,
			 MAP_SHARED, xdp_fd, XDP_UMEM_PGOFF_FILL_RING);
	CHECK(fill_ring != MAP_FAILED, "mmap: %s", strerror(errno));
	CHECK(!bind(xdp_fd, (struct sockaddr *)&address, sizeof(address)), "bind: %s",
	      strerror(errno));
	redirect();
}

/* A packet with this text comes in, and its place is this page. */
static void write_through_the_pin(int page, const char *text)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct pollfd pfd = { .fd = xdp_fd, .events = POLLIN };
	_Atomic uint32_t *producer = (_Atomic uint32_t *)(fill_ring + offsets.fr.producer);
	uint64_t *places = (uint64_t *)(fill_ring + offsets.fr.desc);

	places[*producer % RING] = page * PAGE;
	++*producer;
	CHECK_EQ(sendto(packet_fd, text, strlen(text), 0, (struct sockaddr *)&to, sizeof(to)),
		 strlen(text));
	for (int i = 0; i < 5000 && !memmem(guest + page * PAGE, PAGE, text, strlen(text)); i++)
		msleep(1);
	CHECK_EQ(poll(&pfd, 1, 5000), 1);
	CHECK(memmem(guest + page * PAGE, PAGE, text, strlen(text)), "the page went elsewhere");
}

/* Every page is pinned: told each time, and written through the pin for as long as it lasts. */
static void expect_pinned(void)
{
	receive_setup();
	CHECK_EQ(collect(), -1);
	CHECK_EQ(collect(), -1);
	write_through_the_pin(5, "the first");
	CHECK_EQ(collect(), -1);
	write_through_the_pin(6, "the second");
	guest[7 * PAGE] = 'w';
	CHECK_EQ(collect(), -1);
}

static void pages_pinned_before_are_told_and_stay(void)
{
	setup();
	network_setup();
	memset(guest, 'a', NR * PAGE);
	pin();
	track_start();
	expect_pinned();
}

static void pages_pinned_meanwhile_are_told_and_stay(void)
{
	setup_clean();
	network_setup();
	if (!try_to_pin()) {
		CHECK_EQ(errno, EFAULT);
		skip("this kernel pins nothing anew while dirty pages are tracked");
	}
	expect_pinned();
}

static void pages_unpinned_are_told_once_more(void)
{
	setup();
	pin();
	track_start();
	CHECK_EQ(collect(), -1);
	CHECK_EQ(collect(), -1);
	close(xdp_fd);
	/* They are unpinned one by one, by a worker. */
	msleep(200);
	CHECK_EQ(collect(), -1);
	collect_until_clean();
}

static void pages_can_be_pinned_after_stop(void)
{
	struct umem_track t;

	setup_clean();
	CHECK(!track(UMEM_TRACK_STOP, &t, 0, 0, NULL), "STOP");
	pin();
}

static const struct test tests[] = {
	TEST(pages_pinned_before_are_told_and_stay),
	TEST(pages_pinned_meanwhile_are_told_and_stay),
	TEST(pages_unpinned_are_told_once_more),
	TEST(pages_can_be_pinned_after_stop),
};

TEST_MAIN(tests)
