#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes what fuzzing starts from: valid sessions and lines, as the targets read them.

usage: seeds.py FOLDER, which gets a folder for each target. `fuzz corpus` minimises
them into corpus/, together with what fuzzing found.
"""

import os
import struct
import sys

MAGIC = b"UMEM\r\n\x1a\n"
SESSION = b"0123456789abcdef"
REGIONS = ((b"pc.ram", 150), (b"vga", 3))
CONTROL, URGENT, BULK = 0, 1, 2
CHECKSUM, ZSTD, PRECOPY = 1, 2, 4

(HELLO, HELLO_ACK, REFUSE, JOIN, RESUME, PREPARED, STATE, STATE_END, READY, GO, REQUEST, PAGES,
 ALL_SENT, END, ERROR, CANCEL, BITMAP, PING, SYNC, DISCARD, PUBLISH, LEAVE) = range(1, 23)


def hello(features=CHECKSUM | ZSTD | PRECOPY, regions=REGIONS, version=1, page=4096):
    out = struct.pack("<IIQII", version, 1, features, page, 0) + SESSION
    for name, pages in regions:
        out += struct.pack("<Q64s", pages * 4096, name)
    return out


def hello_ack(features):
    return struct.pack("<IIQ", 1, 0, features)


def join(kind, index):
    return SESSION + struct.pack("<II", kind, index)


def resume():
    return SESSION + struct.pack("<II", 1, 0)


def bitmap(first, *words):
    return struct.pack("<%dQ" % (1 + len(words)), first, *words)


def offsets(*pages):
    return struct.pack("<%dQ" % len(pages), *(page * 4096 for page in pages))


# A frame as it goes over the network; PAGES of zeroes only.
def wire(kind, payload=b"", flags=0, region=0, count=0):
    return struct.pack("<HHIII", kind, flags, len(payload), region, count) + payload


FRAMES = (
    (HELLO, hello(), 0, 0, 2), (HELLO_ACK, hello_ack(7), 0, 0, 0), (REFUSE, b"no\x1b", 0, 0, 1),
    (JOIN, join(BULK, 3), 0, 0, 0), (RESUME, resume(), 1, 0, 0), (PREPARED, b"", 0, 0, 0),
    (STATE, b"state", 0, 0, 0), (STATE_END, b"", 0, 0, 0), (READY, b"", 0, 0, 0),
    (GO, b"", 1, 0, 0), (REQUEST, offsets(1, 2, 0), 1, 1, 3),
    (PAGES, struct.pack("<QQQQ", 4097, 5, 8193, 6), 0, 0, 2),
    (PAGES, struct.pack("<QQ", 4096 + 20, 5) + b"x" * 20, 1, 0, 1),
    (PAGES, struct.pack("<QQ", 4096, 5) + b"x" * 4096, 2, 0, 1),
    (ALL_SENT, b"", 0, 0, 0), (END, b"", 0, 0, 0), (ERROR, b"it \xff failed", 0, 0, 0),
    (CANCEL, b"", 0, 0, 0), (BITMAP, bitmap(64, 5, 2 ** 64 - 1), 0, 0, 2), (PING, b"", 0, 0, 0),
    (SYNC, b"", 1, 0, 2), (DISCARD, struct.pack("<QQQQ", 0, 4096, 8192, 8192), 0, 0, 2),
    (PUBLISH, b"", 0, 0, 0), (LEAVE, b"", 0, 0, 0),
)


def codec():
    for kind, payload, flags, region, count in FRAMES:
        yield bytes([60]) + wire(kind, payload, flags, region, count)
    yield bytes([0]) + b"QEVM" + bytes(20)
    for how in range(8):
        yield bytes([how]) + wire(HELLO, hello(), count=2)


def session():
    """Both roles through a whole migration, a loss and a resumption."""
    event = [0x80 | n for n in range(9)]
    connected, prepared, state_end, stopped, ready, go, _, complete, lost = event

    def frames(*kinds):
        return b"".join(bytes([kind - 1, channel]) for kind, channel in kinds)

    yield (b"\1" + bytes([connected]) + frames((HELLO_ACK, 0), (PREPARED, 0), (REQUEST, 1)) +
           bytes([stopped, state_end]) + frames((READY, 0)) + bytes([go, lost, connected]) +
           frames((BITMAP, 0), (PREPARED, 0), (REQUEST, 1), (END, 0)) + bytes([lost]))
    yield (b"\0" + frames((HELLO, 0)) + bytes([prepared]) +
           frames((STATE, 0), (SYNC, 2), (DISCARD, 0), (PUBLISH, 0), (STATE_END, 0)) +
           bytes([ready]) + frames((GO, 0), (PAGES, 2)) + bytes([lost]) + frames((RESUME, 0)) +
           bytes([prepared]) + frames((PAGES, 1), (ALL_SENT, 2)) + bytes([complete]) +
           frames((END, 0)) + bytes([lost]))


def channel():
    everything = b"\xff\xff\xff"
    whole = MAGIC + b"".join(wire(kind, payload, flags, region, count)
                             for kind, payload, flags, region, count in FRAMES)
    for cuts in ((1, 1, 1, 1), (16, 3, 200, 7), (255, 255, 255, 255)):
        yield everything + b"\1" + bytes(cuts) + whole
    for kind, payload, flags, region, count in FRAMES:
        yield everything + b"\1\5\0\0\1" + MAGIC + 2 * wire(kind, payload, flags, region, count)
    yield everything + b"\0\1\2\3\4" + b"GET / HTTP/1.1\r\n\r\n"


def compress():
    # What "zstd -1" makes of a page of 7s.
    yield b"\0" + bytes.fromhex("28b52ffd60000f4d000010070701 00fb0f0e10".replace(" ", ""))
    yield b"\0" + bytes.fromhex("28b52ffd2000010000")
    yield b"\1"
    yield b"\1\6"
    yield b"\1" + b"The quick brown fox"
    yield b"\1" + bytes(range(255))


LINES = (
    b'{"cmd":"migrate","uri":"tcp:b:4444","forward":8}\n', b'{"cmd":"set","bulk_channels":2}\r\n',
    b'\n\n', b'[1]\n', b'{"a":1,"a":2}\n', b'{"event":"state","state":"advise"}\n', b'nonsense\n',
    b'{"event":"progress","bytes":[1,2.5,-3e10,true,null,"\\u00e9\\n"]}\n',
    b'{"text":"\xc3\xa9"}\n',
)


def jsonl():
    yield b"\5\1\1\1" + b"".join(LINES)
    yield b"\xff\x07\x40\x03" + b"".join(LINES)
    for line in LINES:
        yield b"\4\0\0\1" + line


class Steps:
    """A run of a role: see world.h."""

    def __init__(self, start):
        self.out = bytes(start)

    def add(self, *numbers):
        self.out += bytes(numbers)
        return self

    def connect(self):
        return self.add(0)

    def frame(self, connection, kind, payload=b"", flags=0, region=0, count=0):
        self.add(1, connection, kind, flags, region, count)
        self.out += struct.pack("<H", len(payload)) + payload
        return self

    def pages(self, connection, region, pages, kind=1, flags=0, value=7):
        self.add(2, connection, flags, region, len(pages) - 1)
        for page in pages:
            self.add(page, kind, value)
        return self

    def raw(self, connection, data):
        self.add(3, connection, len(data))
        self.out += data
        return self

    def command(self, number, line=b""):
        self.add(4, number)
        if number == 255:
            self.add(len(line))
            self.out += line
        return self

    def touch(self, region, page):
        return self.add(5, 0, region, page)

    def change(self, region, page):
        return self.add(5, 1, region, page)

    def time(self, exponent):
        return self.add(6, exponent)

    def close(self, connection):
        return self.add(7, connection)

    def state(self, number):
        return self.add(8, number)

    def deaf(self, connection):
        return self.add(9, connection)

    def flood(self, times, connection, kind, payload=b"", flags=0, region=0, count=0):
        self.add(10, times, connection, kind, flags, region, count)
        self.out += struct.pack("<H", len(payload)) + payload
        return self


def arrive(features=CHECKSUM | ZSTD | PRECOPY, bulks=1):
    steps = Steps([0]).connect().frame(0, HELLO, hello(features), count=2)
    steps.connect().frame(1, JOIN, join(URGENT, 0))
    for index in range(bulks):
        steps.connect().frame(2 + index, JOIN, join(BULK, index))
    return steps.time(0).time(0)


def load(steps):
    return steps.frame(0, STATE_END).state(255).command(0)


def all_pages(steps, connection, **how):
    for first in range(0, 150, 50):
        steps.pages(connection, 0, range(first, first + 50), **how)
    return steps.pages(connection, 1, range(3), **how)


def destination():
    steps = load(arrive(CHECKSUM).frame(0, STATE, b"devices")).frame(0, GO, flags=1)
    steps.touch(0, 9).touch(1, 1).pages(1, 0, [9, 10, 11]).pages(2, 0, [1, 9, 140], kind=0)
    yield steps.out
    yield all_pages(steps, 2).frame(2, ALL_SENT).time(3).frame(0, END).out

    # The second copy of a page is damaged, then repaired; the guest discards some.
    steps = load(arrive(CHECKSUM)).frame(0, GO, flags=1).pages(1, 0, [3], kind=17).change(0, 4)
    steps.pages(1, 0, [3], kind=2).frame(2, ALL_SENT).time(11).time(11)
    yield all_pages(steps, 2, kind=0).frame(0, END).close(0).out

    # Compressed, early, in two rounds on two channels.
    steps = arrive(bulks=2).pages(2, 0, range(20), kind=2, flags=3)
    steps.pages(3, 0, range(20, 40), flags=2).frame(2, SYNC, count=2).frame(3, SYNC, count=2)
    steps.pages(2, 0, range(10), kind=0, flags=2).pages(3, 1, [0], kind=17, flags=2)
    steps.frame(2, SYNC, flags=1, count=2).frame(3, SYNC, flags=1, count=2)
    steps.frame(0, DISCARD, struct.pack("<QQ", 4096, 8192), count=1).frame(0, PUBLISH)
    steps = load(steps).frame(0, GO).pages(3, 0, [1, 2], kind=2, flags=1)
    yield steps.out
    yield all_pages(steps.frame(3, LEAVE), 2).frame(2, ALL_SENT).frame(0, END).out

    # Lost, and back again.
    steps = load(arrive(CHECKSUM)).frame(0, GO, flags=1).pages(2, 0, [1, 70, 140]).touch(0, 5)
    steps.close(0).time(9).connect().frame(3, RESUME, resume(), flags=1).connect()
    steps.frame(4, JOIN, join(URGENT, 0)).connect().frame(5, JOIN, join(BULK, 0)).time(0).time(0)
    yield steps.out
    yield all_pages(steps, 5).frame(5, ALL_SENT).frame(3, END).out

    # Control overtakes bulk; a damaged copy, then zeroes.
    steps = arrive().frame(0, DISCARD, struct.pack("<QQ", 4096, 4096), count=1)
    steps.pages(2, 0, [1, 2], flags=2).pages(2, 0, [2], kind=17, flags=2)
    steps.pages(2, 0, [2], kind=0, flags=2).frame(2, SYNC, flags=1, count=1).frame(0, PUBLISH)
    yield steps.out

    steps = arrive(bulks=2).flood(255, 2, SYNC, count=1).flood(255, 3, SYNC, count=1)
    yield steps.time(0).time(0).out
    yield load(arrive(CHECKSUM)).flood(255, 0, PING).frame(0, GO).flood(255, 2, ALL_SENT).out
    yield arrive().flood(200, 0, STATE, b"x" * 500).time(0).state(255).state(255).out

    yield arrive(0).frame(0, CANCEL).connect().frame(3, HELLO, hello(), count=2).out
    yield arrive(0).pages(2, 9, [0]).out
    yield arrive(0).frame(0, ERROR, b"no").command(1).out
    yield arrive().command(255, b'{"cmd":"fail"}').out
    for bad in (hello(regions=REGIONS[:1]), hello(page=8192), hello(version=9), hello()[:100]):
        yield Steps([1]).connect().frame(0, HELLO, bad, count=2).time(14).out
    yield Steps([1]).connect().raw(0, b"GET / HTTP/1.1\r\n").connect().time(14).time(14).out
    yield arrive().connect().frame(3, HELLO, hello(), count=2).connect().frame(
        4, JOIN, join(BULK, 0)).connect().frame(5, RESUME, resume()).frame(0, PING).out


def agree(flags, prefault=0x22, features=CHECKSUM):
    steps = Steps([flags, prefault]).time(0).frame(0, HELLO_ACK, hello_ack(features)).time(0)
    return steps.time(0).frame(0, PREPARED).time(0)


def switch(steps):
    steps.state(200).command(0).state(0).time(0)
    return steps.frame(0, READY).command(1).time(0)


def source():
    for flags, features in ((2, CHECKSUM), (6, CHECKSUM | ZSTD), (10, CHECKSUM), (0, 0)):
        steps = switch(agree(flags, features=features))
        steps.frame(1, REQUEST, offsets(3, 4, 100), count=3).frame(
            1, REQUEST, offsets(1), region=1, count=1)
        yield steps.out
        for _ in range(12):
            steps.time(4)
        yield steps.frame(0, END).out

    # Rounds on three channels, of which two go again.
    steps = agree(3, features=CHECKSUM | PRECOPY).command(4).time(0).time(0)
    for _ in range(8):
        steps.time(3)
    steps.change(0, 9).change(0, 120).command(5)
    for _ in range(8):
        steps.time(8)
    yield steps.out
    steps = switch(steps.change(0, 77))
    for _ in range(8):
        steps.time(3)
    yield steps.frame(1, REQUEST, offsets(77), flags=1, count=1).frame(0, END).out

    # Lost, and back again.
    steps = switch(agree(2)).time(4).close(0).time(8).time(8).time(0)
    steps.frame(3, BITMAP, bitmap(0, 7, 0, 1), count=3).frame(
        3, BITMAP, bitmap(0, 1), region=1, count=1).time(0).frame(3, PREPARED)
    yield steps.out
    for _ in range(8):
        steps.time(4)
    yield steps.frame(3, END).out

    yield agree(2).command(3).out
    yield agree(2).command(6).command(7).frame(0, ERROR, b"no").out
    steps = agree(2).command(255, b'{"cmd":"set","bulk_channels":17}')
    yield steps.frame(1, REFUSE, b"no", count=1).out
    yield Steps([2, 0]).time(0).frame(0, REFUSE, b"busy", count=4).out
    yield Steps([2, 0]).time(0).raw(0, b"HTTP/1.1 400\r\n").time(14).out
    yield Steps([2, 0]).deaf(0).time(14).time(14).time(14).out


def stream():
    """Bytes of every channel, more than a window of one, ends; see fuzz_stream.c."""
    def record(channel, kind, number=0):
        return bytes([0, channel, kind]) + struct.pack("<H", number)

    magic = bytes([1, 8]) + b"UMUX\r\n\x1a\n"
    some = record(0, 1, 300) + record(1, 1, 16384) + record(2, 1, 9)
    reads = bytes([3, 0, 2, 3, 1, 255, 3, 2, 1, 3, 1, 255])
    yield b"\0" + magic + some + reads + record(0, 2) + record(1, 2) + bytes([4, 0, 4, 1, 4, 2])
    yield (b"\1" + bytes([6, 0, 6, 1, 6, 2]) + magic + some + reads +
           bytes([2, 0, 3, 2, 1, 255, 2, 2, 255, 5, 0, 5, 1, 5, 2, 4, 0, 4, 1]) +
           record(2, 2) + bytes([7]))
    yield b"\0" + magic + 66 * record(2, 1, 16000) + 20 * bytes([3, 0, 255]) + record(2, 1, 7)
    yield b"\0" + magic + record(0, 3, 5)
    yield b"\0" + bytes([1, 8]) + MAGIC
    yield b"\1" + magic + record(1, 1, 5)


def lines(which, *texts):
    for text in texts:
        yield bytes([which]) + text


def monitor():
    yield from lines(
        0, b"tcp:host:4444", b"tcp:[::1]:0", b"tcp::1", b"unix:/run/x", b"fd:7",
        b"exec:ssh b umemd", b"defer", b"tcp:1:2:3", b"rdma:x:1")
    yield from lines(
        1, b"migrate -d -p -n -m tcp:b:4444 32 0", b"migrate tcp:b:1", b"migrate -m \"fd:3\" 1",
        b"migrate_set_parameter max-bandwidth 8E", b"migrate_set_parameter urgent-channels 4",
        b"migrate_set_capability postcopy-ram on", b"cpu 1", b"help migrate", b"info migrate",
        b"migrate_incoming tcp:0:4444", b"loadvm x", b"x /16xw 0")
    yield from lines(
        2, b'{"cmd":"migrate","uri":"tcp:b:1","precopy":true,"follow":true,"forward":7}',
        b'{"cmd":"info"}', b'{"cmd":7}', b'{"cmd":"migrate","uri":"defer"}',
        b'{"cmd":"migrate","no_push":1}')


def options():
    common = b"-accel\nkvm\n-name\nguest=x\n-monitor\nstdio\n"
    yield from lines(
        0, common + b"-m\n4G\n-postcopy\n-incoming\ntcp:0:4444\n-postcopy-flags\n1",
        common + b"-m\nsize=1G,slots=2,maxmem=4G\n-object\nmemory-backend-ram,id=m0,size=512M",
        b"-object\n{\"qom-type\":\"memory-backend-ram\",\"id\":\"a\",\"size\":1048576}\n-m\n1M",
        b"-monitor\nunix:/tmp/m,server,nowait\n-machine\nq35,memory-backend=m\n-S\n-control\nnone",
        b"--qemu\n/bin/qemu\n-readconfig\nfile\n-cpu\nhelp", b"--help", b"--version")
    yield from lines(1, b"[memory]\n size = \"1G\"\n", b"[object \"m\"]\n  qom-type = \"x\"\n# c\n")
    yield from lines(2, b"4G,slots=2", b"a,,b=c,no-d,e",
                     b'{"size":1,"id":"x","share":true,"l":[1]}')
    yield from lines(3, b"4096", b"1.5G", b"0x10", b"off", b"18446744073709551615")


def pager_options():
    yield (b"source\n--control-fd=3\n--state-fd=4\n--uri=tcp:b:1\n--region=pc.ram:5:4096\n"
           b"--region=vga:6:8192\n--forward=3\n--backward=4\n--follow\n--precopy\n"
           b"--max-bulk-bandwidth=7\n--compress=zstd\n--no-checksum\n--connect-timeout=9")
    yield (b"destination\n--control-fd=3\n--state-fd=4\n--uri=unix:/x\n--region=pc.ram:5:4096\n"
           b"--no-prealloc\n--touch\n--verbose")
    yield b"source\n--no-push\n--uri"
    yield b"--help"


def umemctl():
    yield from lines(0, b'{"ok":true}\n{"event":"end"}\n', b'{"error":"no"}\n',
                     b'{"error":""}\n', b"nonsense\n", b"{}\n")
    yield from lines(
        1, b"list", b"migrate\n--guest\nx\n-p\n-n\n-m\n-d\ntcp:b:1\n8\n9", b"info\n--json",
        b"cancel", b"start-postcopy", b"--help")
    yield from lines(2, b"a\n17", b"b\nb", b"a", b"\x1b[2J\n18")


def qmp():
    def say(text):
        return bytes([len(text) + 1]) + text + b"\n"

    yield (say(b'{"QMP":{"version":{}}}') + b"\x80" + say(b'{"return":{},"id":1}') + b"\x81" +
           say(b'{"event":"STOP","timestamp":{"seconds":1,"microseconds":2}}') +
           say(b'{"error":{"class":"x","desc":"no"},"id":2}') + say(b'{"return":[],"id":3}'))
    yield b"\x80\x81" + say(b'{"return":{},"id":-1}') + say(b'{"id":1,"error":{}}') + say(b"[]")


def migration():
    reply, refuse, event, umemd, text, timer, command, qemu_gone, umemd_gone = range(9)
    ask = (reply, 1, umemd, 0, umemd, 1, reply, 5, reply, 6, reply, 7)
    yield bytes((0, command, 0) + ask + (
        reply, 0, reply, 0, reply, 0, event, 3, event, 0, event, 4, umemd, 2, umemd, 6, reply, 0,
        event, 6, umemd, 3, umemd, 14, umemd, 5, umemd_gone, 0))
    yield bytes((0, command, 0) + ask + (refuse, 0, reply, 0, timer, 0, command, 4))
    yield bytes((0, command, 1) + ask + (command, 3, umemd, 13, command, 2, reply, 2, timer, 0))
    yield bytes((1, reply, 5, reply, 6, umemd, 12, umemd, 0, umemd, 1, reply, 0, umemd, 2, event, 6,
                 umemd, 7, reply, 10, umemd, 5, qemu_gone, 0))
    yield bytes((1, umemd, 1, event, 7, qemu_gone, 0))
    for word in (b'{"event":"error","message":7}', b'{"event":"progress","pages_total":"x"}',
                 b'{"event":"state"}'):
        yield bytes((0, command, 0) + ask + (text, len(word) & ~1)) + word
    # After GO: umemd ends, is paused, goes on; the source is given up.
    here = (1, reply, 5, reply, 6, reply, 0, reply, 0, umemd, 15, umemd, 0, umemd, 1, reply, 0,
            reply, 0, reply, 0, umemd, 2, event, 6, umemd, 7, reply, 10, reply, 0, reply, 0)
    yield bytes(here + (umemd_gone, 0, timer, 0, command, 8, umemd_gone, 1, command, 9, umemd, 16,
                        umemd, 3, umemd, 5, umemd_gone, 1))
    yield bytes(here + (command, 12, command, 13, umemd, 4, timer, 1, umemd_gone, 0, timer, 0,
                        umemd, 17, umemd, 18))
    yield bytes((0, command, 0, reply, 1, reply, 5, reply, 6, reply, 7, umemd, 15, umemd, 0,
                 umemd, 1, reply, 5, reply, 6, reply, 7, reply, 0, reply, 0, reply, 0, event, 3,
                 event, 0, event, 4, umemd, 2, umemd, 6, reply, 0, event, 6, umemd_gone, 0,
                 timer, 0, command, 8, umemd_gone, 1, command, 10, umemd, 5))


TARGETS = (codec, session, channel, compress, jsonl, destination, source, stream, monitor, options,
           pager_options, umemctl, qmp, migration)


def main():
    for target in TARGETS:
        folder = os.path.join(sys.argv[1], target.__name__)
        os.makedirs(folder, exist_ok=True)
        for number, data in enumerate(target()):
            with open(os.path.join(folder, "seed-%02d" % number), "wb") as file:
                file.write(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: %s FOLDER" % sys.argv[0])
    main()
