# SPDX-License-Identifier: GPL-2.0-or-later

umemctl-src   := $(addprefix umemctl/,main.c options.c guests.c client.c watch.c show.c \
		   regions.c netlink.c attributes.c) $(common-src)
umemctl-libs  := $(shell $(PKG_CONFIG) --libs libnl-genl-3.0)
umemctl-tests := options guests client watch regions attributes

umemctl-test_options-src := umemctl/options.c common/uri.c common/text.c common/log.c
umemctl-test_guests-src  := umemctl/guests.c umemctl/client.c common/jsonl.c common/runtime.c \
			    common/report.c common/text.c common/log.c
umemctl-test_client-src  := umemctl/client.c common/jsonl.c common/runtime.c common/text.c \
			    common/log.c
umemctl-test_watch-src   := umemctl/watch.c common/meter.c common/report.c common/text.c \
			    common/log.c
umemctl-test_regions-src := umemctl/regions.c common/text.c common/log.c
umemctl-test_attributes-src := umemctl/attributes.c common/jsonl.c common/report.c common/text.c \
			       common/log.c
