# SPDX-License-Identifier: GPL-2.0-or-later
"""What dies after the hand-over, or is taken down by hand: the guest goes on and loses no page."""

import time

import migrations
import vm
from migrations import INCOMING, PORT, check_guest
from vm import BIN, expect

hosts = migrations.hosts
SLOW = "10mbit"  # or a slow host has it all before the test is through


def moving(pair, launcher=None):
    """A guest whose memory comes over a slow link, from its hand-over on."""
    a, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING,
                           launcher=launcher and f"{launcher} -postcopy").start()
    source = vm.Guest(a, "source", launcher=launcher).boot()
    source.wait_ops(500)
    a.limit_link(SLOW)
    vm.migrate(source, destination)
    return source, destination


def complete(source, destination):
    source.host.limit_link(None)
    vm.wait_end(source, destination)
    info = destination.info()
    expect(info["pages present"] == info["pages total"], f"info migrate says {info}")
    expect(info["checksum errors"] == "0", f"info migrate says {info}")
    source.ask("cont", r"has moved to")
    check_guest(destination)


class Recovers:
    """Both sides go on after what is done inside."""

    def __init__(self, *guests):
        self._guests = guests

    def __enter__(self):
        self._before = [self._runs(guest) for guest in self._guests]

    def __exit__(self, *error):
        if error[0]:
            return
        for guest, before in zip(self._guests, self._before):
            guest.wait_for(lambda: self._runs(guest) > before, 180, "go on")

    @staticmethod
    def _runs(guest):
        return sum(event.name == "STATE" and event.text.endswith("state=running")
                   for event in guest.events())


def umemd_is_killed_at_the_source_at_the_destination_and_at_both(pair):
    a, b = pair
    source, destination = moving(pair)
    for victims in ((a,), (b,), (a, b)):
        with Recovers(source, destination):
            for host in victims:
                host.run("pkill -9 -x umemd", check=True)
        expect(destination.count("pages remaining") > 0, "it was all there already")
    # the other side may have gone on already when the last one was killed
    for guest in (source, destination):
        guest.wait_for(lambda: guest.info().get("umemd restarts") == "2", 180, "start the second")
    complete(source, destination)


def umemd_is_replaced_by_what_is_installed_now(pair):
    for host in pair:
        host.run(f"cp {BIN}/umemd /run/umemd", check=True)
    source, destination = moving(pair, f"{BIN}/umem-qemu --umemd /run/umemd")
    for guest in (destination, source):
        guest.host.run(f"cp {BIN}/umemd /run/new && mv /run/new /run/umemd", check=True)
        with Recovers(source, destination):
            guest.host.run(f"{BIN}/umemctl pager restart --guest {guest.name}", check=True)
        program = guest.host.run("readlink /proc/$(pgrep -x umemd)/exe", check=True).out.strip()
        expect(program == "/run/umemd", f"umemd runs from {program}, wanted what was put there")
    complete(source, destination)


def paused_by_hand_and_recovered_elsewhere(pair):
    _, b = pair
    source, destination = moving(pair)
    destination.ask("migrate_recover", r"not paused \(state running\)")
    destination.ask("migrate_pause\ninfo migrate", r"paused \(by migrate_pause, until")
    source.wait_event("PAUSED")
    destination.wait_event("UMEMD-ENDED")
    expect(b.run("pgrep -x umemd").rc == 1, "there is a umemd")
    arrived = destination.count("pages present")
    time.sleep(2)
    expect(destination.count("pages present") == arrived, "pages arrived while it was paused")
    with Recovers(source, destination):
        destination.type(f"migrate_recover tcp:0:{PORT + 1}")
        source.type(f"migrate -r tcp:{b.ip}:{PORT + 1}")
    # and from a shell, at the other side
    ctl = f"{BIN}/umemctl"
    source.host.run(f"{ctl} pause", check=True)
    result = source.host.run(f"{ctl} pager restart")
    expect(result.rc == 1 and "there is no umemd" in result.out, f"it says {result.out}")
    with Recovers(source, destination):
        source.host.run(f"{ctl} recover", check=True)
    complete(source, destination)


def network_that_is_gone_for_ten_seconds(pair):
    a, b = pair
    source, destination = moving(pair)
    for host in pair:
        host.run("modprobe sch_netem && tc qdisc replace dev eth0 root netem loss 100%", check=True)
    time.sleep(10)
    for host in pair:
        host.limit_link(None)
    a.limit_link(SLOW)
    arrived = destination.count("pages present")
    destination.wait_for(lambda: destination.count("pages present") > arrived, 180, "go on")
    complete(source, destination)


def kill_umem_qemu(guest):
    guest.host.run(f"pkill -9 -f '[u]mem-qemu .*(-name|--adopt) {guest.name} '", check=True)
    guest.job.wait(90)


def adopt(guest):
    """Another umem-qemu in the place of the one that was killed, with a monitor of its own."""
    guest.job = guest.host.start(f"exec {BIN}/umem-qemu --adopt {guest.name} -monitor stdio",
                                 stdin=True, name=f"{guest.name}-adopted")
    guest.wait_event("ADOPTED")


def umem_qemu_is_killed_and_another_adopts_its_qemu(pair):
    source, destination = moving(pair)
    refused = source.host.run(f"{BIN}/umem-qemu --adopt source")
    expect(refused.rc == 1 and "looks after its QEMU itself" in refused.out, refused.out)
    for victims in ((source,), (destination,), (source, destination)):
        for guest in victims:
            kill_umem_qemu(guest)
        for guest in victims:
            adopt(guest)
        for guest in (source, destination):
            guest.wait_for(lambda: guest.info()["Migration status"] == "running", 180, "go on")
    expect(destination.count("pages remaining") > 0, "it was all there already")
    complete(source, destination)
    # nobody else runs it at the source, either
    kill_umem_qemu(source)
    adopt(source)
    source.ask("cont", r"has moved to")
    source.ask("info status", r"paused \(postmigrate\)")
    # who was adopted, and who adopts when all is over, sees to it that huge pages are mapped
    destination.wait_event("COLLAPSED")
    kill_umem_qemu(destination)
    adopt(destination)
    destination.wait_event("COLLAPSED")


def umem_qemu_killed_before_the_hand_over_leaves_the_guest_at_the_source(pair):
    _, b = pair
    destination = vm.Guest(b, "destination", incoming=INCOMING).start()
    source = vm.Guest(pair[0], "source").boot()
    destination.wait_event("LISTENING")
    # A QEMU that cannot load the state keeps the destination before READY.
    b.run(f"pkill -STOP -f {destination.qemu}", check=True)
    source.type(f"migrate -d -p tcp:{b.ip}:{PORT}")
    source.wait_event("STOP")
    kill_umem_qemu(source)
    adopt(source)
    source.wait_for(lambda: "failed" in source.info()["Migration status"], 90, "undo it")
    source.ask("info status", r"VM status: running")
    check_guest(source)


TESTS = [
    umemd_is_killed_at_the_source_at_the_destination_and_at_both,
    umemd_is_replaced_by_what_is_installed_now,
    paused_by_hand_and_recovered_elsewhere,
    network_that_is_gone_for_ten_seconds,
    umem_qemu_is_killed_and_another_adopts_its_qemu,
    umem_qemu_killed_before_the_hand_over_leaves_the_guest_at_the_source,
]
