# SPDX-License-Identifier: GPL-2.0-or-later

# Both ways to a checksum
checksum-parts := umemd/checksum.c umemd/checksum_scalar.c

umemd-src := umemd/main.c umemd/options.c umemd/source.c umemd/destination.c umemd/side.c \
	umemd/codec.c $(checksum-parts) umemd/session.c umemd/scheduler.c \
	umemd/histogram.c umemd/pending.c umemd/blocktime.c umemd/damage.c umemd/pacer.c \
	umemd/window.c umemd/precopy.c umemd/tracker.c umemd/compress.c umemd/progress.c \
	umemd/touch.c umemd/channel.c umemd/loop.c umemd/socket.c umemd/strangers.c umemd/mux.c \
	umemd/sandbox.c umemd/errands.c umemd/credentials.c umemd/tls.c umemd/stream.c \
	umemd/launcher.c umemd/ticket.c umemd/headroom.c \
	$(common-src)
umemd-libs := $(shell $(PKG_CONFIG) --libs libseccomp libcap-ng)

umemd-tests := codec checksum scheduler session histogram pending damage blocktime progress \
	pacer window precopy compress touch options channel socket strangers mux stream credentials \
	tls sandbox errands ticket headroom

# TLS, and for its tests what fills folders of credentials
tls-parts := umemd/tls.c umemd/credentials.c umemd/codec.c umemd/tests/folder.c

umemd-test_codec-src     := umemd/codec.c
umemd-test_checksum-src  := $(checksum-parts)
umemd-test_scheduler-src := umemd/scheduler.c
umemd-test_session-src   := umemd/session.c umemd/codec.c
umemd-test_histogram-src := umemd/histogram.c
umemd-test_pending-src   := umemd/pending.c
umemd-test_damage-src    := umemd/damage.c
umemd-test_blocktime-src := umemd/blocktime.c
umemd-test_progress-src  := umemd/progress.c umemd/histogram.c umemd/blocktime.c
umemd-test_pacer-src     := umemd/pacer.c
umemd-test_window-src    := umemd/window.c
umemd-test_precopy-src   := umemd/precopy.c
umemd-test_compress-src  := umemd/compress.c
umemd-test_touch-src     := umemd/touch.c
umemd-test_options-src   := umemd/options.c umemd/codec.c common/uri.c
umemd-test_mux-src       := umemd/mux.c umemd/codec.c
umemd-test_stream-src    := umemd/stream.c umemd/mux.c umemd/loop.c common/uri.c $(tls-parts)
umemd-test_socket-src    := umemd/socket.c common/runtime.c common/text.c common/uri.c \
			    common/log.c
umemd-test_strangers-src := umemd/strangers.c umemd/socket.c umemd/launcher.c umemd/channel.c \
			    umemd/loop.c common/jsonl.c common/runtime.c common/text.c \
			    common/uri.c common/log.c $(tls-parts)
umemd-test_sandbox-src   := umemd/sandbox.c
umemd-test_errands-src   := umemd/errands.c umemd/sandbox.c umemd/touch.c umemd/socket.c \
			    common/pass.c common/runtime.c common/text.c common/uri.c common/log.c
umemd-test_channel-src   := umemd/channel.c umemd/loop.c $(tls-parts)
umemd-test_credentials-src := umemd/credentials.c umemd/codec.c umemd/tests/folder.c
umemd-test_tls-src       := $(tls-parts)
umemd-test_ticket-src    := umemd/ticket.c umemd/codec.c
umemd-test_headroom-src  := umemd/headroom.c umemd/tests/folder.c

# Both roles in one host that has /dev/umem: loopback path/of/umemd
vm-programs  += umemd/tests/loopback.c
loopback-src := common/jsonl.c umemd/codec.c $(checksum-parts) umemd/tests/folder.c \
		umemd/tests/holdings.c

# Credentials for the tests of migrations
vm-programs     += umemd/tests/fill_folder.c
fill_folder-src := umemd/tests/folder.c
