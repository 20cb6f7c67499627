# SPDX-License-Identifier: GPL-2.0-or-later

umemd-src := umemd/main.c umemd/options.c umemd/source.c umemd/destination.c \
	umemd/codec.c umemd/session.c umemd/scheduler.c umemd/histogram.c umemd/pending.c \
	umemd/progress.c umemd/channel.c umemd/loop.c umemd/tcp.c umemd/launcher.c \
	$(common-src)

# Both roles in one host that has /dev/umem: loopback path/of/umemd
vm-programs  += umemd/tests/loopback.c
loopback-src := common/jsonl.c
