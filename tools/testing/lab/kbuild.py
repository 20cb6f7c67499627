# SPDX-License-Identifier: GPL-2.0-or-later
"""Building the module for any kernel of the lab."""

import os
import shutil
import subprocess
from pathlib import Path

from kernel import REPO

# In the root that has the headers: /dev and /proc are this machine's, /mnt the folder to build in.
IN_ROOT = """\
mount --rbind /dev "$0/dev"
mount --rbind /proc "$0/proc"
mount --bind "$1" "$0/mnt"
shift
exec chroot "$0" "$@"
"""


def copy_sources(folder):
    """A fresh copy of the module's sources, to be changed or not."""
    for name in ("kernel", "uapi"):
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(REPO / name, folder / name)


def build(kernel, folder, *settings):
    """Build folder/kernel; gives make's exit code and what it said. The module is umem.ko there."""
    inside = folder
    argv = []
    if kernel.build_root != Path("/"):
        inside = Path("/mnt")
        unshare = ["unshare", "--mount"] + (["--map-root-user"] if os.geteuid() else [])
        argv = [*unshare, "sh", "-ec", IN_ROOT, str(kernel.build_root), str(folder)]
    argv += ["make", "-s", "-C", str(kernel.headers), f"M={inside / 'kernel'}", *settings, "modules"]
    made = subprocess.run(argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return made.returncode, made.stdout
