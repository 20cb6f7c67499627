# SPDX-License-Identifier: GPL-2.0-or-later
"""What README says of a real host, done in a host with a writable root."""

import contextlib
import subprocess

import kernel
import vm
from vm import expect, lab


def checkout():
    return lab.run_dir() / "umem"


@contextlib.contextmanager
def hosts():
    """A host with a writable root, and a clean checkout that has the same path there.

    It was built here, as this machine's distribution is the host's, for the host's kernel: in an
    emulated host gcc needs minutes for that. DKMS builds the module there nevertheless.
    """
    checkout().mkdir(exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=lab.REPO, check=True, stdout=subprocess.PIPE).stdout
    tar = subprocess.run(["tar", "--null", "--ignore-failed-read", "-T", "-", "-c"],
                         cwd=lab.REPO, input=files, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x"], cwd=checkout(), input=tar, check=True)
    subprocess.run(["make", "--no-print-directory", "-s", "-C", checkout(),
                    f"KVER={kernel.stock().release}"], check=True, stdout=subprocess.DEVNULL)
    with lab.Host("install", mem_mib=2600, writable_root=True) as host:
        yield host


def guest_runs(host, program):
    guest = vm.Guest(host, "guest", launcher=program, pages=2000).start()
    with vm.booting():
        guest.wait_ready()
    guest.wait_ops(50)
    guest.type("quit")
    expect(guest.job.wait(90) == 0, f"quit ends with {guest.job.rc}")


def dkms_builds_installs_and_removes_the_module(host):
    for command in (f"dkms add {checkout()}", "dkms install umem/0.1.0"):
        host.run(command, timeout=900, check=True)
    host.run("modprobe umem && test -c /dev/umem", check=True)
    path = host.run("modinfo -n umem", check=True).out
    expect("/updates/dkms/umem.ko" in path, f"modprobe took {path}")
    guest_runs(host, vm.BIN / "umem-qemu")
    host.run("rmmod umem && dkms remove umem/0.1.0 --all", timeout=120, check=True)
    expect(host.run("modinfo umem").rc != 0, "dkms remove left the module")


def make_install_then_modprobe_then_a_guest(host):
    host.run(f"make -C {checkout()} && make -C {checkout()} install && modprobe umem", timeout=900,
             check=True)
    expect(host.run("which umem-qemu umemd umemctl", check=True).out.count("/usr/local/bin/") == 3,
           "the programs are not in /usr/local/bin")
    guest_runs(host, "umem-qemu")
    host.run("rmmod umem", check=True)
    host.run(f"make -C {checkout()} uninstall", check=True, timeout=120)
    left = host.run("find /usr/local /lib/modules /usr/lib/udev -name '*umem*'").out
    expect(not left.strip(), f"uninstall left {left}")


TESTS = [
    dkms_builds_installs_and_removes_the_module,
    make_install_then_modprobe_then_a_guest,
]
