# SPDX-License-Identifier: GPL-2.0-or-later

umem-qemu-src  := $(addprefix umem-qemu/,main.c supervisor.c host.c options.c keyval.c hmp.c \
		    qmp.c migration.c saved.c record.c adopt.c tls.c info.c umemd.c child.c collapse.c \
		    monitor.c request.c control.c loop.c) umemd/socket.c $(common-src)
umem-qemu-libs := $(shell $(PKG_CONFIG) --libs readline)
umem-qemu-tests := keyval options hmp qmp migration record tls umemd child collapse loop monitor \
		   request control

umem-qemu-test_keyval-src  := umem-qemu/keyval.c common/text.c common/log.c
umem-qemu-test_options-src := umem-qemu/options.c umem-qemu/keyval.c common/text.c \
			      common/uri.c common/log.c
umem-qemu-test_hmp-src     := umem-qemu/hmp.c common/uri.c
umem-qemu-test_qmp-src     := umem-qemu/qmp.c common/pass.c common/text.c common/jsonl.c common/log.c
umem-qemu-test_migration-src := umem-qemu/migration.c umem-qemu/saved.c umem-qemu/tls.c \
				umem-qemu/hmp.c umem-qemu/info.c common/report.c common/jsonl.c \
				common/text.c common/uri.c common/log.c
umem-qemu-test_record-src  := umem-qemu/record.c common/runtime.c common/text.c common/log.c
umem-qemu-test_tls-src     := umem-qemu/tls.c common/text.c common/log.c
umem-qemu-test_umemd-src   := umem-qemu/umemd.c umem-qemu/tls.c umem-qemu/child.c umem-qemu/loop.c \
			      umem-qemu/options.c umem-qemu/keyval.c common/text.c \
			      common/jsonl.c common/uri.c common/log.c
umem-qemu-test_child-src   := umem-qemu/child.c common/text.c common/log.c
umem-qemu-test_collapse-src := umem-qemu/collapse.c
umem-qemu-test_loop-src    := umem-qemu/loop.c common/text.c common/log.c
umem-qemu-test_monitor-src := umem-qemu/monitor.c umem-qemu/loop.c common/meter.c common/runtime.c \
			      common/text.c common/log.c
umem-qemu-test_request-src := umem-qemu/request.c umem-qemu/hmp.c common/uri.c common/text.c \
			      common/log.c
umem-qemu-test_control-src := umem-qemu/control.c umem-qemu/request.c umem-qemu/hmp.c \
			      umem-qemu/loop.c common/jsonl.c common/runtime.c common/uri.c \
			      common/text.c common/log.c
