# SPDX-License-Identifier: GPL-2.0-or-later

common-src   := $(addprefix common/,log.c uri.c jsonl.c text.c report.c meter.c runtime.c pass.c)
common-tests := log uri jsonl report meter runtime

common-test_log-src     := common/log.c
common-test_uri-src     := common/uri.c
common-test_jsonl-src   := common/jsonl.c
common-test_report-src  := common/report.c common/text.c common/log.c
common-test_meter-src   := common/meter.c common/text.c common/log.c
common-test_runtime-src := common/runtime.c common/text.c common/log.c
