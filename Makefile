# SPDX-License-Identifier: GPL-2.0-only
# umem: the module, the programs, the tests. `make help` lists what there is.

VERSION := 0.1.0
O       := $(CURDIR)/build
PREFIX  ?= /usr/local
DESTDIR ?=

# The kernel to build for: the one that runs, or else the newest with headers.
KVER ?= $(or $(patsubst /lib/modules/%/build,%,$(wildcard /lib/modules/$(shell uname -r)/build)),\
	$(patsubst /lib/modules/%/build,%,$(lastword $(sort $(wildcard /lib/modules/*/build)))))
KDIR ?= /lib/modules/$(KVER)/build

# The kernel that the lab's hosts run
LAB_KVER = $(shell apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: linux-image-//p')
PYTHON   = /usr/bin/python3

FUZZ_SECONDS ?= 60
FUZZ_SEED    ?= 0
FUZZ = tools/testing/fuzz/fuzz --seed $(FUZZ_SEED) --build $(O)/fuzz

.PHONY: all help module user selftests install install-module install-user uninstall \
	deps-build deps-lab lab-build lab demo check check-unit check-lab check-selftests \
	check-kernel check-mutants check-e2e check-recovery check-install check-fuzz deps-fuzz deps-afl \
	fuzz fuzz-nightly fuzz-build chaos bench bench-faults bench-track bench-stages clean \
	check-form check-form-short check-debug check-debug-short deps-form deps-form-short deps-debug

all: module user

help:
	@echo 'Build and use'
	@echo '  make                 the module (KVER=$(KVER)) and the programs, into build/'
	@echo '  make install         both; PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo '  make uninstall       takes that away again'
	@echo '  make clean           removes what was built; downloads stay in build/lab'
	@echo 'See and try, in virtual hosts; each names and installs the packages it needs'
	@echo '  make demo            a running guest moves between two hosts, every page checked'
	@echo '  make lab             a shell in a host with the module loaded'
	@echo '  make bench           umem against QEMU'\''s own post-copy, as ratios'
	@echo '  make bench-track     what dirty tracking costs, in instructions'
	@echo '  make bench-faults    what bringing pages costs, beside userfaultfd, in instructions'
	@echo '  make bench-stages    pre-copy, post-copy and both, with three guests'
	@echo 'Test'
	@echo '  make check           all of these:'
	@echo '  make check-unit      the parts that decide, under ASan and UBSan'
	@echo '  make check-lab       the lab itself'
	@echo '  make check-selftests the module'
	@echo '  make check-e2e       migrations; TESTS="name ..." for some of them'
	@echo '  make check-recovery  the same while programs die and networks fail'
	@echo '  make check-install   what README says of a real host: DKMS, modprobe, make install'
	@echo '  make check-fuzz      60 s of fuzzing what peers and programs say; see make fuzz'
	@echo '  make check-kernel    not part of check: KERNEL=6.12 (or 7, or any that is installed), the'
	@echo '                       module built for that kernel and tested on it'
	@echo '  make check-debug     not part of check: the module on kernels that look for bugs, and 5'
	@echo '                       minutes of stress on each; builds them first, 10 minutes each, once;'
	@echo '                       from then on check has check-debug-short'
	@echo '  make check-form      not part of check, which has check-form-short, the module only and no'
	@echo '                       Coccinelle: checkpatch, sparse, kernel-doc, Coccinelle'
	@echo '  make check-mutants   not part of check: breaks each promise, sees the tests fail'
	@echo '  make fuzz            not part of check: TARGETS="name ..." of tools/testing/fuzz, for'
	@echo '                       FUZZ_SECONDS=$(FUZZ_SECONDS) in all; FUZZ_SEED=N to have a run again'
	@echo '  make fuzz-nightly    10 minutes of that, half of them with AFL++'
	@echo '  make chaos           not part of check, which has N=20 SEED=1 of it: N=... migrations,'
	@echo '                       SEED=... says what happens to them; ONLY="7 12" of them'

# The module. Kbuild writes next to its sources, so it is shown links to them.
module:
	@test -e $(KDIR)/Makefile || { \
		echo "no headers of kernel $(KVER) in $(KDIR);" \
		     "on Debian: apt-get install linux-headers-$(or $(KVER),amd64)" >&2; exit 1; }
	@mkdir -p $(O)/kernel-$(KVER)
	@cp -rsfT $(CURDIR)/kernel $(O)/kernel-$(KVER)/kernel
	@cp -rsfT $(CURDIR)/uapi $(O)/kernel-$(KVER)/uapi
	$(MAKE) -C $(KDIR) M=$(O)/kernel-$(KVER)/kernel modules
	@cd $(O)/kernel-$(KVER) && cmp -s kernel/umem.ko umem.ko || \
		{ cp kernel/umem.ko umem.ko.new && mv umem.ko.new umem.ko; }

user:
	$(MAKE) -C user BUILD=$(O)/user

selftests:
	$(MAKE) -C tools/testing/selftests/umem OUTPUT=$(O)/selftests

install: install-module install-user

MODDIR = $(DESTDIR)/lib/modules/$(KVER)/updates

install-module: module
	install -D -m 644 $(O)/kernel-$(KVER)/umem.ko $(MODDIR)/umem.ko
	$(if $(DESTDIR),,depmod $(KVER))

install-user: user
	$(MAKE) -C user BUILD=$(O)/user PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) install
	install -D -m 644 tools/60-umem.rules $(DESTDIR)/usr/lib/udev/rules.d/60-umem.rules

uninstall:
	$(RM) $(MODDIR)/umem.ko $(DESTDIR)/usr/lib/udev/rules.d/60-umem.rules
	$(MAKE) -C user PREFIX=$(PREFIX) DESTDIR=$(DESTDIR) uninstall
	$(if $(DESTDIR),,depmod $(KVER))

# The lab
deps-build deps-lab deps-fuzz deps-afl deps-form-short deps-form deps-debug:
	@tools/install-deps $@

lab-build: deps-build deps-lab
	$(MAKE) module KVER=$(LAB_KVER)
	$(MAKE) user selftests
	$(MAKE) -s -C tools/testing/guest BUILD=$(O)/guest
	$(MAKE) -s -C tools/testing/e2e BUILD=$(O)/e2e

lab: lab-build
	tools/testing/lab/lab shell

demo: lab-build
	$(PYTHON) tools/testing/e2e/demo.py

bench: lab-build
	$(PYTHON) tools/bench/migrate.py
	$(PYTHON) tools/bench/waits.py

bench-track: lab-build
	$(PYTHON) tools/bench/track.py

bench-faults: lab-build
	$(PYTHON) tools/bench/faults.py
	$(PYTHON) tools/bench/fill.py

bench-stages: lab-build
	$(PYTHON) tools/bench/stages.py

# The tests. Each suite writes lines of TAP; the last line adds them up.
SUITES := check-unit check-fuzz check-form-short check-lab check-selftests check-e2e

# Hosts keep little more than one of two processors busy.
check: lab-build
	@tools/testing/run-suites $(O)/check $(SUITES) -- check-install check-recovery \
		$$($(PYTHON) tools/testing/lab/debug.py cached debug && echo check-debug-short)

check-unit: deps-build
	$(MAKE) -C user BUILD=$(O)/user check
	$(MAKE) -s -C tools/testing/fuzz ENGINE=replay OUTPUT=$(O)/fuzz replay
	$(PYTHON) tools/testing/netlink_spec.py

# What peers and programs say, made up. Documentation/fuzzing.rst tells more.
fuzz-build: deps-build deps-fuzz
	$(MAKE) -s -C tools/testing/fuzz ENGINE=libfuzzer OUTPUT=$(O)/fuzz

fuzz: fuzz-build
	$(FUZZ) --seconds $(FUZZ_SECONDS) $(TARGETS)

fuzz-nightly: fuzz-build deps-afl
	$(MAKE) -s -C tools/testing/fuzz ENGINE=afl OUTPUT=$(O)/fuzz
	$(FUZZ) --seconds 300 $(TARGETS)
	$(FUZZ) --seconds 300 --engine afl $(TARGETS)

# Bounded: it is a part of check.
check-fuzz: FUZZ_SEED = 1
check-fuzz: fuzz-build
	$(FUZZ) --seconds 60

check-lab: lab-build
	$(PYTHON) tools/testing/lab/selftest.py

check-selftests: lab-build
	$(PYTHON) tools/testing/selftests/run.py

check-kernel: lab-build $(if $(filter debug kcsan,$(KERNEL)),deps-debug)
	@test -n "$(KERNEL)" || { echo "usage: make check-kernel KERNEL=NAME, one of" \
		"$$($(PYTHON) tools/testing/lab/kernels.py)" >&2; exit 2; }
	$(PYTHON) tools/testing/selftests/run.py --kernel $(KERNEL) $(TESTS)

# Nightly. The kernels are built once and kept.
check-debug: lab-build deps-debug
	$(PYTHON) tools/testing/selftests/run.py --kernel debug --stress 300
	$(PYTHON) tools/testing/selftests/run.py --kernel kcsan --stress 300

check-debug-short: lab-build deps-debug
	$(PYTHON) tools/testing/selftests/run.py --kernel debug bad_input stress fail_nth

check-form: deps-build deps-form-short deps-form
	$(PYTHON) tools/testing/form/run.py

check-form-short: deps-build deps-form-short
	$(PYTHON) tools/testing/form/run.py --short

check-mutants: lab-build
	$(PYTHON) tools/testing/selftests/mutants.py

check-e2e: lab-build
	$(PYTHON) tools/testing/e2e/run.py $(TESTS)

check-recovery: lab-build
	$(PYTHON) tools/testing/e2e/run.py recovery crashes chaos lost_source

# Documentation/chaos.rst tells more.
chaos: lab-build
	CHAOS_N=$(or $(N),20) CHAOS_SEED=$(or $(SEED),$$(date +%s)) CHAOS_ONLY="$(ONLY)" \
		$(PYTHON) tools/testing/e2e/run.py chaos

check-install: lab-build
	$(PYTHON) tools/testing/e2e/run.py install

clean:
	$(RM) -r $(O)/kernel-* $(O)/user $(O)/selftests $(O)/check $(O)/demo $(O)/guest \
		$(addprefix $(O)/fuzz/,libfuzzer afl replay)
