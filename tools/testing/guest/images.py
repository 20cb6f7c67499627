# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the guests' files in a folder: the stock kernel and the initramfs of each guest."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lab"))
import kernel  # noqa: E402


def main(folder):
    stock = kernel.stock()
    # a third of what an emulated host needs for a guest's boot goes into decompressing it
    shutil.copy(stock.vmlinux, folder / "vmlinux")
    kernel.initramfs(folder / "guest.cpio", stock, folder / "guest",
                     ["virtio_pci", "virtio_console"])
    kernel.initramfs(folder / "disk-guest.cpio", stock, HERE / "disk-init",
                     ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"],
                     [(kernel.BUSYBOX, "bin/busybox")])


try:
    main(Path(sys.argv[1]))
except kernel.LabError as error:
    sys.exit(f"guest: {error}")
