# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person meets first: no module, no KVM, no permission, memory that cannot be shared."""

import vm
from vm import expect, lab


def hosts():
    return lab.Host("environment")


def says(host, options, *words, user=None):
    """umem-qemu ends with 1 and says all these words."""
    command = f"{vm.BIN / 'umem-qemu'} {options} </dev/null"
    if user:
        command = f"setpriv --reuid={user} --regid={user} --clear-groups {command}"
    result = host.run(f"timeout 30 {command}", timeout=60)
    expect(result.rc == 1, f"`{options}` ended with {result.rc}, wanted 1: {result.out}")
    for word in words:
        expect(word in result.out, f"`{options}` does not say {word!r}: {result.out}")


def need_module(host):
    if host.run("test -c /dev/umem").rc:
        host.load_module()


MINIMAL = "-nodefaults -display none -monitor stdio"


def without_the_module_it_says_modprobe(host):
    host.run("rmmod umem")
    says(host, MINIMAL, "/dev/umem", "modprobe umem")


def without_permission_it_says_how_to_get_it(host):
    need_module(host)
    host.run("chmod 600 /dev/umem", check=True)
    says(host, MINIMAL, "/dev/umem", "kvm", user=65534)


def without_kvm_it_says_modprobe(host):
    need_module(host)
    host.run("rmmod kvm_amd", check=True)
    says(host, f"-accel kvm {MINIMAL}", "/dev/kvm", "modprobe kvm")
    host.run("modprobe kvm_amd", check=True)


def memory_that_cannot_be_shared_is_refused(host):
    need_module(host)
    for options, *words in [
            ("-object memory-backend-ram,id=r0,size=64M,share=off", "r0", "share=off", "share=on"),
            ("-object memory-backend-file,id=f0,size=64M,mem-path=/tmp/ram", "f0", "/tmp/ram",
             "/dev/umem"),
            ("-object memory-backend-memfd,id=m0,size=64M,hugetlb=on", "m0", "hugetlb=on"),
            ("-mem-path /tmp/ram", "/tmp/ram"),
            ("-m 12Q", "12Q"),
            ("-daemonize", "-daemonize"),
            ("-qemu", "-qemu")]:
        says(host, f"{options} {MINIMAL}", *words)


def umemd_that_does_not_start_is_told_at_once(host):
    need_module(host)
    host.run("printf '#!/bin/sh\nexec /no-such-loader\n' >/run/umemd && chmod +x /run/umemd && "
             "printf '#!/no-such-shell\n' >/run/unfit && chmod +x /run/unfit", check=True)
    says(host, f"--umemd /no-such {MINIMAL}", "--umemd", "/no-such")
    says(host, f"--umemd /run/unfit {MINIMAL}", "/run/unfit", "No such file")
    says(host, f"--umemd /run/umemd {MINIMAL}", "/run/umemd", "status 127", "make install")


def programs_explain_themselves(host):
    need_module(host)
    for program in ("umem-qemu", "umemd"):
        for option, words in (("--help", program), ("--version", "0.1.0")):
            result = host.run(f"{vm.BIN / program} {option}")
            expect(result.rc == 0 and words in result.out.lower(),
                   f"{program} {option}: {result.rc} {result.out}")
        result = host.run(f"{vm.BIN / program} --no-such-option </dev/null")
        expect(result.rc != 0 and "no-such-option" in result.out,
               f"{program} --no-such-option: {result.rc} {result.out}")


def qemu_options_pass_through(host):
    """umem-qemu's exit code is QEMU's, and QEMU's own errors are seen."""
    need_module(host)
    result = host.run(f"timeout 60 {vm.BIN / 'umem-qemu'} -accel tcg -M nosuchmachine {MINIMAL}"
                      " </dev/null", timeout=90)
    expect(result.rc == 1 and "unsupported machine type" in result.out, f"{result.rc}: {result.out}")
    job = host.start(f"exec {vm.BIN / 'umem-qemu'} -accel tcg -m 64 -smp 3 {MINIMAL} -S", stdin=True)
    job.wait_output(r"\(qemu\)", 60)
    job.write("info cpus\ninfo memdev\n")
    job.wait_output(r"CPU #2[^$]*64 ?M?|67108864", 60)
    job.write("quit\n")
    expect(job.wait(90) == 0, f"quit ends with {job.rc}: {job.output()}")


TESTS = [
    without_the_module_it_says_modprobe,
    without_permission_it_says_how_to_get_it,
    without_kvm_it_says_modprobe,
    memory_that_cannot_be_shared_is_refused,
    umemd_that_does_not_start_is_told_at_once,
    programs_explain_themselves,
    qemu_options_pass_through,
]
