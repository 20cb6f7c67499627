# SPDX-License-Identifier: GPL-2.0-or-later
"""First process of a host of the lab: runs jobs for lab.py at the other end of a virtio port.

One JSON object a line in both directions. From lab.py:
  {"start": ID, "cmd": TEXT, "output": NAME, "stdin": BOOL}   run a shell command in its own session
  {"write": ID, "data": TEXT}, {"close": ID}                  to a job's standard input
  {"kill": ID, "signal": N}                                   to a job's process group
  {"clock": N}                                                asks for CLOCK_REALTIME
  {"log": TEXT}                                               goes into the kernel log
  {"wake": 0}                                                 does nothing
To lab.py:
  {"ready": RELEASE}, {"exit": ID, "rc": N}, {"clock": N, "ns": N}
rc is the shell's: 128 + N after signal N.
"""

import json
import os
import select
import signal
import sys
import time

PORT = "umem.lab"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp", "LANG": "C.UTF-8", "TERM": "linux", "UMEM_LAB_HOST": os.uname().nodename,
}


def find_port():
    base = "/sys/class/virtio-ports"
    for name in os.listdir(base):
        with open(f"{base}/{name}/name") as file:
            if file.read().strip() == PORT:
                return os.open(f"/dev/{name}", os.O_RDWR)
    raise SystemExit(f"lab: agent: no virtio port is named {PORT}")


class Job:
    def __init__(self, request, directory):
        self.stdin = None
        self.pending = b""
        self.closing = False
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, f"{directory}/{request['output']}",
             os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        theirs = None
        if request["stdin"]:
            theirs, self.stdin = os.pipe()
            os.set_blocking(self.stdin, False)
            actions[0] = (os.POSIX_SPAWN_DUP2, theirs, 0)
        self.pid = os.posix_spawn("/bin/bash", ["bash", "-c", request["cmd"]], ENVIRONMENT,
                                  file_actions=actions, setsid=True,
                                  setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
        if theirs is not None:
            os.close(theirs)

    def flush(self):
        try:
            self.pending = self.pending[os.write(self.stdin, self.pending):]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.pending, self.closing = b"", True
        if self.closing and not self.pending:
            os.close(self.stdin)
            self.stdin = None

    def write(self, data):
        if self.stdin is not None:
            self.pending += data
            self.flush()

    def close(self):
        self.closing = True
        self.write(b"")

    def kill(self, number):
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass


class Agent:
    def __init__(self, port, directory):
        self.port = port
        self.directory = directory
        self.jobs = {}

    def send(self, message):
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[os.write(self.port, data):]

    def handle(self, message):
        if "clock" in message:
            self.send({"clock": message["clock"], "ns": time.time_ns()})
        elif "log" in message:
            with open("/dev/kmsg", "w") as log:
                log.write(message["log"] + "\n")
        elif "wake" in message:
            pass
        elif "start" in message:
            self.jobs[message["start"]] = Job(message, self.directory)
        else:
            self.handle_job(message)

    def handle_job(self, message):
        verb, number = next(iter(message.items()))
        job = self.jobs.get(number)
        if job is None:
            return
        if verb == "write":
            job.write(message["data"].encode())
        elif verb == "close":
            job.close()
        elif verb == "kill":
            job.kill(message["signal"])

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for number, job in self.jobs.items():
                if job.pid == pid:
                    if job.stdin is not None:
                        os.close(job.stdin)
                    del self.jobs[number]
                    rc = os.waitstatus_to_exitcode(status)
                    self.send({"exit": number, "rc": rc if rc >= 0 else 128 - rc})
                    break

    def serve(self):
        wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.send({"ready": os.uname().release})
        buffer = b""
        while True:
            writers = [job.stdin for job in self.jobs.values() if job.pending]
            readable, _, _ = select.select([self.port, wake], writers, [])
            for job in list(self.jobs.values()):
                if job.pending:
                    job.flush()
            if wake in readable:
                os.read(wake, 4096)
                self.reap()
            if self.port in readable:
                data = os.read(self.port, 65536)
                if not data:
                    raise SystemExit("lab: agent: lab.py has gone")
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    self.handle(json.loads(line))


def main():
    directory = sys.argv[1]
    os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../../..")
    Agent(find_port(), directory).serve()


main()
