"""What a fresh cloud holds: flavors, the tiny image (twice), through the public APIs.

Whatever is there already stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

# name, MiB of memory, vCPUs, GiB of disk; ids as upstream's installers give them
FLAVORS = (
    ("42", "m1.nano", 192, 1, 1),
    ("84", "m1.micro", 256, 1, 1),
    ("1", "m1.tiny", 512, 1, 1),
    ("2", "m1.small", 2048, 1, 20),
    ("3", "m1.medium", 4096, 2, 40),
    ("4", "m1.large", 8192, 4, 80),
    ("5", "m1.xlarge", 16384, 8, 160),
)
# the same content twice: clients' test suites want two bootable images
IMAGES = ("tiny", "tiny-2")
FIRST_SERVER = "first"


def ensure_flavors(connection: Any) -> list[str]:
    """Make the usual flavors; returns the names of those made."""
    present = {flavor.name for flavor in connection.compute.flavors()}
    made = []
    for flavor_id, name, memory_mib, vcpus, disk_gib in FLAVORS:
        if name not in present:
            connection.compute.create_flavor(
                id=flavor_id, name=name, ram=memory_mib, vcpus=vcpus, disk=disk_gib, is_public=True
            )
            made.append(name)
    return made


def ensure_images(connection: Any, file: Path) -> list[str]:
    """Upload the guest image under each of its names; returns the names uploaded."""
    present = {image.name: image for image in connection.image.images(visibility="public")}
    made = []
    for name in IMAGES:
        image = present.get(name)
        if image is None:
            image = connection.image.create_image(
                name,
                container_format="bare",
                disk_format=file.suffix.removeprefix("."),
                visibility="public",
                min_ram=128,
                min_disk=1,
                allow_duplicates=True,
            )
        if image.status == "queued":  # new, or an earlier upload was interrupted
            with file.open("rb") as content:
                image.data = content
                image.upload(connection.image)
            made.append(name)
    return made


def ensure_first_server(connection: Any) -> Any:
    """The first server, made if there is none of that name; a failed one is replaced."""
    for server in list(connection.compute.servers(name=f"^{FIRST_SERVER}$")):
        if server.status != "ERROR":
            return server
        connection.compute.delete_server(server)
        connection.compute.wait_for_delete(server)
    flavor = connection.compute.find_flavor("m1.nano", ignore_missing=False)
    image = next(iter(connection.image.images(name=IMAGES[0])))
    return connection.compute.create_server(
        name=FIRST_SERVER, flavor_id=flavor.id, image_id=image.id, networks="none", config_drive=True
    )
