#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Run the module's selftests in a host, with two processors, and print their TAP.

And with them both roles of umemd over loopback, which use all of the module. What needs a guest
of KVM runs in a host of its own, with one processor. With --kernel the module is built for that
kernel first, which must give no warning, and the hosts boot it; on one that looks for bugs umemd
is far slower than loopback expects, and is run if it is named.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))
import kbuild  # noqa: E402
import kernels  # noqa: E402
import lab  # noqa: E402

BINARIES = lab.REPO / "build" / "selftests"
USER = lab.REPO / "build" / "user"
PROGRAMS = {name: str(BINARIES / name)
            for name in ("placement", "presence", "requests", "discard", "lifetime", "bad_input",
                         "race", "mappings", "access", "owner", "huge", "track", "track_pin",
                         "access_kvm", "track_kvm", "netlink", "tracepoints", "stress",
                         "fail_nth")}
PROGRAMS["umemctl"] = f"{HERE / 'umemctl.py'} {USER / 'umemctl'}"
PROGRAMS["loopback"] = f"{USER / 'loopback'} {USER / 'umemd'}"
NEED_KVM = {"access_kvm", "track_kvm"}
NEED_SPEED = {"loopback"}
TIMEOUT = 2400
TEST_SECONDS = 30
# On kernels that can. An emulated processor is slow: more accesses are watched, and for longer.
LOOK_FOR_BUGS = """cd /sys/kernel/debug; echo clear >kmemleak; [ ! -e kcsan ] || echo on >kcsan
    cd /sys/module/kcsan/parameters && echo 100 >skip_watch && echo 300 >udelay_task"""
# For placement, which comes first: two nodes, each with a block of 128 MiB that can go
TWO_NODES = "numa=fake=2 movablecore=528M numa_balancing=disable"


def run_program(host, program, stress):
    """Print its TAP; whether all its tests passed and the kernel had nothing to say."""
    patience = kernels.of_hosts().patience
    command, timeout = PROGRAMS[program], TIMEOUT * patience
    if patience > 1:
        command = f"UMEM_TEST_SECONDS={TEST_SECONDS * patience} {command}"
    if program == "stress" and stress:
        command, timeout = f"UMEM_STRESS_SECONDS={stress} {command}", timeout + 2 * stress
    print(f"# {program}", flush=True)
    result = host.run(command, timeout=timeout)
    print(result.out, end="", flush=True)
    planned = len(re.findall(r"^(?:not )?ok ", result.out, re.M))
    if f"1..{planned}\n" not in result.out:
        print(f"not ok {planned + 1} {program} ended early, with {result.rc}")
        return False
    try:
        host.check_kernel_log()
    except lab.KernelComplaint as error:
        print(f"# {error}\nnot ok {planned + 1} {program} leaves the kernel log clean")
        return False
    print(f"ok {planned + 1} {program} leaves the kernel log clean")
    return result.rc == 0


def unload(host):
    """With all regions gone the module goes, too, leaving no object in its cache."""
    result = host.run("for i in $(seq 50); do rmmod umem 2>/dev/null && exit 0; sleep .1; done;"
                      " rmmod umem")
    print(f"{'not ' if result.rc else ''}ok 1 module unloads after the tests")
    return result.rc == 0


def leaks(host):
    """With all regions gone nothing of them is left; known to kernels with kmemleak."""
    result = host.run("""cd /sys/kernel/debug && [ -e kmemleak ] || exit 4
        echo scan >kmemleak; sleep 6; echo scan >kmemleak; cat kmemleak; ! grep -q . kmemleak""",
                      timeout=TIMEOUT)
    if result.rc == 4:
        return True
    print("".join(f"# {line}\n" for line in result.out.splitlines())
          + f"{'not ' if result.rc else ''}ok 1 no memory leaked", flush=True)
    return result.rc == 0


def run_in_host(programs, kvm, stress):
    with lab.Host("selftests", smp=1 if kvm else 2, kvm=kvm,
                  append="" if kvm else TWO_NODES) as host:
        host.load_module()
        host.run(LOOK_FOR_BUGS)
        good = [run_program(host, program, stress) for program in programs]
        good.append(leaks(host))
        good.append(unload(host))
    return all(good)


def build_module():
    kernel = kernels.of_hosts()
    work = lab.module().parent
    kbuild.copy_sources(work)
    code, said = kbuild.build(kernel, work)
    good = not code and not re.search("warning", said, re.I)
    print("".join(f"# {line}\n" for line in said.splitlines())
          + f"{'' if good else 'not '}ok 1 umem.ko builds for {kernel.release} without a warning",
          flush=True)
    if not code:
        shutil.copy(work / "kernel" / "umem.ko", lab.module())
    return good, code == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", metavar="KERNEL", help=kernels.WANTED)
    parser.add_argument("--stress", metavar="SECONDS", type=int, help="how long stress is to go on")
    parser.add_argument("program", nargs="*", help=f"of {', '.join(PROGRAMS)}; all that fit the kernel if none")
    arguments = parser.parse_args()
    good = True
    if arguments.kernel is not None:
        os.environ["UMEM_KERNEL"] = arguments.kernel
        good, built = build_module()
        if not built:
            return 1
    wanted = arguments.program or [program for program in PROGRAMS if program not in NEED_SPEED
                                   or kernels.of_hosts().patience == 1]
    for kvm in (False, True):
        programs = [program for program in wanted if (program in NEED_KVM) == kvm]
        if programs:
            good &= run_in_host(programs, kvm, arguments.stress)
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lab.LabError as error:
        sys.exit(f"{Path(__file__).name}: {error}")
