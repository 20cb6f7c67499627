# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot work is refused before the guest is touched, with both values named.

One guest runs through all of these at the source and must never stop.
"""

import struct

import migrations
import vm
from vm import expect

PORT = vm.PORT
MAGIC = b"UMEM\r\n\x1a\n"

hosts = migrations.hosts


def running_source(pair):
    source = vm.Guest(pair[0], "source", pages=2000)
    return source.boot()


def refused(source, uri, pattern, options="-p", timeout=180):
    """The migration is refused with these words and the guest never stopped."""
    position = source.type(f"migrate {options} {uri}")
    source.job.wait_output(pattern, timeout, position)
    source.wait_ops(100)
    source.ask("info status", r"VM status: running")
    expect(not source.event("STOP"), "the guest was stopped")


def listening(pair, **settings):
    destination = vm.Guest(pair[1], "destination", incoming=f"tcp:0:{PORT}", **settings).start()
    destination.wait_event("LISTENING")
    return destination


def other_sizes_are_refused(pair):
    source = running_source(pair)
    destination = listening(pair, memory_mib=320)
    refused(source, f"tcp:{pair[1].ip}:{PORT}",
            r'"pc.ram"[^\n]*(134217728[^\n]*335544320|335544320[^\n]*134217728)')
    refusal = destination.wait_event("REFUSED")
    expect("134217728" in refusal.text and "335544320" in refusal.text,
           f"the destination says {refusal.text}")


def other_names_are_refused(pair):
    source = running_source(pair)
    listening(pair, options="-object memory-backend-ram,id=other,size=128M "
                            "-machine memory-backend=other")
    refused(source, f"tcp:{pair[1].ip}:{PORT}", r'"pc.ram"|"other"')


def a_refused_destination_takes_the_next_guest(pair):
    """Strangers knock while it listens: a browser, stock QEMU, noise, a future umem."""
    source = running_source(pair)
    destination = listening(pair, pages=2000)
    hello = struct.pack("<IIQI4x16s", 99, 99, 0, 4096, b"s" * 16)
    knocks = [
        (b"GET / HTTP/1.1\r\nHost: b\r\n\r\n", "GET / HT"),
        (b"QEVM\0\0\0\3" + bytes(4096), "QEMU"),
        (bytes((i * 167 + 13) % 256 for i in range(1 << 20)), "UMEM"),
        (MAGIC + struct.pack("<HHIII", 1, 0, len(hello), 0, 1) + hello, "99"),
    ]
    for number, (data, words) in enumerate(knocks):
        path = pair[1].dir / f"knock.{number}"
        path.write_bytes(data)
        before = len(destination.says("REFUSED"))
        pair[1].run(f"{vm.HERE / 'knock'} 127.0.0.1 {PORT} {path}", check=True)
        destination.wait_for(
            lambda: len(destination.says("REFUSED")) > before, 90, f"refuse {words}")
        refusal = destination.says("REFUSED")[-1]
        expect(words in refusal.text, f"wanted {words!r} in: {refusal.text}")
    vm.migrate(source, destination)
    vm.wait_end(source, destination)
    migrations.check_guest(destination, 1)


def nobody_listens(pair):
    source = running_source(pair)
    refused(source, f"tcp:{pair[1].ip}:4", r"[Rr]efused")


def no_such_host(pair):
    source = running_source(pair)
    refused(source, f"tcp:no.such.host.invalid:{PORT}", r"no\.such\.host\.invalid")


def servers_that_are_not_umem(pair):
    source = running_source(pair)
    answers = {"http": (b"HTTP/1.0 400 Bad request\r\n\r\n", "HTTP/1.0"),
               "noise": (bytes(range(128, 256)) * 8192, "UMEM"),
               "version": (MAGIC + struct.pack("<HHIII", 2, 0, 16, 0, 0)
                           + struct.pack("<IIQ", 99, 0, 0), "99")}
    for number, (name, (answer, words)) in enumerate(answers.items()):
        path = pair[1].dir / f"answer.{name}"
        path.write_bytes(answer)
        port = 4500 + number
        server = pair[1].start(f"exec {vm.HERE / 'knock'} --listen {port} {path}")
        server.wait_output("^listening", 20)
        refused(source, f"tcp:{pair[1].ip}:{port}", words.replace(".", r"\."))
    # a stock QEMU waits for its own stream and says nothing
    qemu = pair[1].start(f"exec qemu-system-x86_64 -accel tcg -M none -nodefaults -display none"
                         f" -incoming tcp:0:4600")
    pair[1].run("for i in $(seq 100); do grep -q ':11F8 ' /proc/net/tcp && exit; sleep .1; done;"
                " exit 1", check=True)
    refused(source, f"tcp:{pair[1].ip}:4600", r"umem|UMEM")
    qemu.kill()


def port_in_use(pair):
    first = listening(pair)
    second = vm.Guest(pair[1], "second", incoming=f"tcp:0:{PORT}").start()
    second.job.wait_output(rf"{PORT}.*in use", 90)
    second.job.wait(90)
    expect(second.job.rc not in (0, None), f"it ended with {second.job.rc}")
    expect(first.alive(), "the first one is gone")


def bad_commands_are_explained(pair):
    source = running_source(pair)
    for line, words in [("migrate -p", "URI"), ("migrate -n tcp:b:1", "-p"),
                        ("migrate -p nonsense", "nonsense"),
                        ("migrate -p tcp:b", "tcp:b"),
                        ("migrate -p tcp:b:99999", "99999"),
                        ("migrate -p tcp:b:1 -5", "-5"),
                        ("migrate -p tcp:b:1 32 many", "many"),
                        ("migrate -x tcp:b:1", "-x"),
                        ("migrate -m tcp:b:1", "postcopy-ram is off"),
                        ("migrate_start_postcopy", "no migration is under way"),
                        ("migrate_set_parameter urgent-channels 17", "wanted 1 to 16"),
                        ("info migrate_parameters", r"urgent-channels: 1\b"),
                        ("migrate_set_capability postcopy-ram on", r"\(qemu\)"),
                        ("migrate -b tcp:b:1", "postcopy-ram only -d and -m"),
                        ("migrate rdma:b:1", "rdma"),
                        ("migrate tcp:b:1 65537", "wanted 0 to 65536")]:
        source.ask(line, words)
    source.wait_ops(100)
    expect(not source.event("STOP"), "the guest was stopped")


TESTS = [
    other_sizes_are_refused,
    other_names_are_refused,
    a_refused_destination_takes_the_next_guest,
    nobody_listens,
    no_such_host,
    servers_that_are_not_umem,
    port_in_use,
    bad_commands_are_explained,
]
