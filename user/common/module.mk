# SPDX-License-Identifier: GPL-2.0-or-later

common-src   := common/log.c common/uri.c common/jsonl.c common/text.c
common-tests := log uri jsonl

common-test_log-src   := common/log.c
common-test_uri-src   := common/uri.c
common-test_jsonl-src := common/jsonl.c
