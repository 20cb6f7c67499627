# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels that hosts may boot, by name."""

import os
from pathlib import Path

import debug
import distribution
import kernel
from kernel import Kernel, LabError

WANTED = (f"{', '.join([*distribution.SUITES, *debug.CONFIGS])}, the release of an installed kernel, "
          "or a folder with boot/vmlinuz-RELEASE and lib/modules/RELEASE")


def of_hosts():
    """The kernel that hosts boot: the one UMEM_KERNEL names, the stock one if it names none."""
    return find(os.environ.get("UMEM_KERNEL", ""))


def find(name):
    """A kernel by what KERNEL= of check-kernel may be: see WANTED."""
    if not name:
        return kernel.stock()
    if name in distribution.SUITES:
        with kernel.lock():
            found = distribution.kernel(name)
    elif name in debug.CONFIGS:
        found = debug.kernel(name)
    else:
        found = _unpacked(Path(name)) if "/" in name else _installed(name)
    if not found.vmlinux.exists():
        with kernel.lock():
            kernel.decompress(found)
    return found


def _installed(release):
    found = Kernel(release, Path("/"), Path(f"/lib/modules/{release}/build"))
    if not found.image.exists() or not found.modules.exists():
        raise LabError(f"KERNEL={release}: there is no {found.image} with {found.modules}; "
                       f"wanted {WANTED}")
    return found


def _unpacked(root):
    images = [*root.glob("boot/vmlinux-*"), *root.glob("boot/vmlinuz-*")]
    releases = {image.name.split("-", 1)[1] for image in images}
    if len(releases) != 1:
        raise LabError(f"KERNEL={root}: it has {len(releases)} kernels in boot/; wanted {WANTED}")
    release, = releases
    return Kernel(release, root, root / "lib" / "modules" / release / "build")


if __name__ == "__main__":
    print(WANTED)
