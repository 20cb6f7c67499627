# SPDX-License-Identifier: LGPL-2.1-or-later

libumem-version := 0.1.0
libumem-src     := libumem/libumem.c
libumem-tests   := libumem

libumem-test_libumem-src     := libumem/libumem.c
libumem-test_libumem-ldflags := -Wl,--wrap=ioctl
