"""Small images of every kind, made from their specifications: headers and a little body."""

from __future__ import annotations

import struct

SECTOR = 512


def qcow2(
    size: int = 10 << 20, *, backing_file: str = "", version: int = 3, features: int = 0, length: int = 65536
) -> bytes:
    """A qcow2 header; ``features``: the incompatible feature bits (4: external data file)."""
    name = backing_file.encode()
    header = struct.pack(">4sIQIIQ", b"QFI\xfb", version, 200 if name else 0, len(name), 16, size)
    header = header.ljust(72, b"\0") + struct.pack(">QQQII", features, 0, 0, 4, 104)
    return (header.ljust(200, b"\0") + name).ljust(length, b"\0")


def vmdk(
    size: int = 1 << 20, *, kind: str = "monolithicSparse", extent: str = 'RW 2048 SPARSE "disk.vmdk"'
) -> bytes:
    """A sparse extent with an embedded descriptor."""
    descriptor = f'# Disk DescriptorFile\nversion=1\ncreateType="{kind}"\n{extent}\nddb.adapterType = "ide"\n'
    header = struct.pack("<4sIIQQQQIQQ", b"KDMV", 1, 3, size // SECTOR, 128, 1, 20, 512, 21, 26)
    return (header.ljust(SECTOR, b"\0") + descriptor.encode().ljust(20 * SECTOR, b"\0")).ljust(65536, b"\0")


def vmdk_descriptor(extent: str = 'RW 2048 FLAT "/etc/passwd" 0') -> bytes:
    """A descriptor alone, whose extents are other files."""
    text = f'# Disk DescriptorFile\nversion=1\nCID=fffffffe\ncreateType="monolithicFlat"\n{extent}\n'
    return text.encode().ljust(2000, b"\n")


def vdi(size: int = 1 << 20) -> bytes:
    header = bytearray(4096)
    struct.pack_into("<I", header, 64, 0xBEDA107F)
    struct.pack_into("<Q", header, 368, size)
    return bytes(header)


def iso(blocks: int = 64, *, bootable: bool = False) -> bytes:
    """An ISO 9660 volume, on request with a partition table in front (isohybrid)."""
    image = bytearray(blocks * 2048)
    descriptor = bytearray(2048)
    descriptor[0:6] = b"\x01CD001"
    struct.pack_into("<I", descriptor, 80, blocks)
    struct.pack_into(">I", descriptor, 84, blocks)
    struct.pack_into("<H", descriptor, 128, 2048)
    struct.pack_into(">H", descriptor, 130, 2048)
    image[32768 : 32768 + 2048] = descriptor
    if bootable:
        image[:512] = partitioned()[:512]
    return bytes(image)


def partitioned(size: int = 65536, *, flag: int = 0x80, kind: int = 0x83) -> bytes:
    """A disk with one partition in its MBR."""
    image = bytearray(size)
    struct.pack_into("<B3BB3BII", image, 446, flag, 0, 2, 0, kind, 0, 0, 0, 1, 100)
    image[510:512] = b"\x55\xaa"
    return bytes(image)


def luks(version: int = 1) -> bytes:
    return struct.pack(">6sH32s32s32sII", b"LUKS\xba\xbe", version, b"aes", b"xts", b"sha256", 8, 64).ljust(
        65536, b"\0"
    )
