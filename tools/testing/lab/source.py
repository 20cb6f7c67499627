# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's source, from the distribution's package of it, which is not installed.

What is made of it stays outside of the checkout, in UMEM_CACHE or ~/.cache/umem.
"""

import os
import tempfile
from pathlib import Path

from kernel import LabError, lock, output

PACKAGE = "linux-source-6.12"
CACHE = Path(os.environ.get("UMEM_CACHE") or Path.home() / ".cache" / "umem")


def version():
    for line in output(f"looking for {PACKAGE}", "apt-cache", "policy", PACKAGE).splitlines():
        if "Candidate: " in line and "(none)" not in line:
            return line.split()[-1]
    raise LabError(f"apt-cache knows no package {PACKAGE}: run apt-get update")


def unpack(folder, *paths):
    """All of the source, or some paths of it, into a folder; gives the top of it."""
    output(f"downloading {PACKAGE} (run apt-get update?)", "apt-get", "download", PACKAGE, cwd=folder)
    package, = folder.glob(f"{PACKAGE}_*.deb")
    output(f"unpacking {PACKAGE}", "sh", "-c",
           'package=$1 source=$2; shift 2; dpkg-deb --fsys-tarfile "$package" |'
           ' tar -xO "./usr/src/$source.tar.xz" | tar -xJ "$@"',
           "sh", str(package), PACKAGE, *(f"{PACKAGE}/{path}" for path in paths), cwd=folder)
    package.unlink()
    return folder / PACKAGE


def scripts():
    """A tree with what checks sources and runs selftests, and nothing else."""
    tree = CACHE / f"scripts-{version()}"
    with lock(CACHE):
        if not tree.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix=".scripts-") as scratch:
                unpack(Path(scratch), "scripts", "tools/testing/selftests", "tools/scripts",
                       "Makefile").rename(tree)
    return tree
