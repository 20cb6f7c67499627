#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run end-to-end tests in the lab's hosts and print TAP. usage: run.py [NAME...]

Without names: all tests but those of suites that are targets of make of their own. A name is that
of a test or of a suite. Tests of a suite share its hosts, one after another.
"""

import sys
import time
import traceback

import vm
from vm import lab

import chaos
import crashes
import environment
import install
import latency
import lost_source
import migrations
import prefault
import recovery
import refusals
import tls
import two_stage

SUITES = {"migrations": migrations, "big": migrations.Big, "prefault": prefault,
          "two_stage": two_stage, "recovery": recovery, "refusals": refusals, "tls": tls,
          "chaos": chaos, "crashes": crashes, "lost_source": lost_source,
          "environment": environment,
          "install": install, "latency": latency}
# Of targets of their own
OTHER_TARGETS = {"install", "recovery", "crashes", "chaos", "lost_source"}


class Bench:
    """The hosts of a suite and the guests in them, cleaned up after each test."""

    def __init__(self, suite):
        self._suite = suite
        self._hosts = None
        self._context = None

    def hosts(self):
        if self._hosts is None:
            self._context = self._suite.hosts()
            self._hosts = self._context.__enter__()
        return self._hosts

    def clean(self):
        """Stop what a test left and read the kernel logs; a host that died is replaced."""
        if self._hosts is None:     # they did not boot
            return None
        hosts = self._hosts if isinstance(self._hosts, tuple) else (self._hosts,)
        complaint = None
        try:
            for host in hosts:
                for guest in vm.guests_of(host):
                    guest.stop()
                host.check_kernel_log()
        except lab.LabError as error:
            complaint = error
        if complaint:
            self.close(complaint)
        return complaint

    def close(self, error=None):
        if self._hosts is not None:
            for host in self._hosts if isinstance(self._hosts, tuple) else (self._hosts,):
                vm.guests_of(host)
            self._hosts = None
            try:
                self._context.__exit__(type(error) if error else None, error, None)
            except lab.LabError as problem:
                print(f"# {problem}")


def run_test(bench, fn):
    """None if it passed, else what went wrong."""
    trouble = None
    try:
        vm.with_one_more_boot(lambda: fn(bench.hosts()), bench.close)
    except vm.Failure as error:
        trouble = str(error)
    except Exception:
        trouble = traceback.format_exc()
    complaint = bench.clean()
    return trouble or (str(complaint) if complaint else None)


def selected(names):
    for name, suite in SUITES.items():
        tests = [fn for fn in suite.TESTS if not names or {name, fn.__name__} & set(names)]
        if tests and (names or name not in OTHER_TARGETS):
            yield suite, tests


def main():
    chosen = list(selected(sys.argv[1:]))
    if not chosen:
        known = [fn.__name__ for suite in SUITES.values() for fn in suite.TESTS]
        sys.exit(f"run.py: no test is named {' or '.join(sys.argv[1:])}; there are "
                 f"{', '.join(known)}, and the suites {', '.join(SUITES)}")
    vm.build_guests()
    print(f"1..{sum(len(tests) for _, tests in chosen)}", flush=True)
    number = failed = 0
    for suite, tests in chosen:
        bench = Bench(suite)
        for fn in tests:
            number += 1
            started = time.monotonic()
            trouble = run_test(bench, fn)
            if trouble:
                failed += 1
                print("".join(f"# {line}\n" for line in trouble.splitlines()), end="")
            print(f"{'not ok' if trouble else 'ok'} {number} {fn.__name__}"
                  f" # {time.monotonic() - started:.0f} s", flush=True)
        bench.close()
    if vm.boots_retried or lab.boot_retries:
        print(f"# tried once more: {lab.boot_retries} boots of hosts, {vm.boots_retried} of guests")
    print(f"# logs: {lab.run_dir()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
