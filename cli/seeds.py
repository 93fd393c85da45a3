"""What a fresh cloud holds: flavors, the tiny image (twice), networks, through the public APIs.

Whatever is there already stays as it is.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from cli import settings

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
PRIVATE, PUBLIC = "private", settings.PUBLIC
PUBLIC_CIDR = str(ipaddress.ip_interface(settings.PUBLIC_GATEWAY).network)
PRIVATE_CIDR, POOL = "10.30.0.0/24", "10.128.0.0/12"


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


def ensure_networks(connection: Any, project_id: str) -> list[str]:
    """An external network, and a project's own behind a router; what "any network" is made of.

    Each is found by its name: what an administrator changed stays.
    """
    made = []
    network = connection.network
    public = network.find_network(PUBLIC, ignore_missing=True)
    if public is None:
        public = network.create_network(
            name=PUBLIC,
            is_router_external=True,
            is_default=True,
            provider_network_type="flat",
            provider_physical_network=settings.PUBLIC,
        )
        made.append(PUBLIC)
    if not list(network.subnets(network_id=public.id)):
        network.create_subnet(
            name=PUBLIC, network_id=public.id, ip_version=4, cidr=PUBLIC_CIDR, is_dhcp_enabled=False
        )
    if not list(network.subnet_pools(is_default=True)):
        network.create_subnet_pool(
            name="shared", prefixes=[POOL], default_prefix_length=26, is_shared=True, is_default=True
        )
    private = next(iter(network.networks(name=PRIVATE, project_id=project_id)), None)
    if private is None:
        private = network.create_network(name=PRIVATE, project_id=project_id)
        made.append(PRIVATE)
    subnet = next(iter(network.subnets(network_id=private.id)), None)
    if subnet is None:
        subnet = network.create_subnet(
            name=PRIVATE, network_id=private.id, ip_version=4, cidr=PRIVATE_CIDR, project_id=project_id
        )
    router = next(iter(network.routers(name=PRIVATE, project_id=project_id)), None)
    if router is None:
        router = network.create_router(
            name=PRIVATE, project_id=project_id, external_gateway_info={"network_id": public.id}
        )
        network.add_interface_to_router(router, subnet_id=subnet.id)
    return made


def ensure_first_server(connection: Any, *, networked: bool = False) -> Any:
    """The first server, made if there is none of that name; a failed one is replaced.

    ``networked``: in the private network, where an agent carries its packets.
    """
    for server in list(connection.compute.servers(name=f"^{FIRST_SERVER}$")):
        if server.status != "ERROR":
            return server
        connection.compute.delete_server(server)
        connection.compute.wait_for_delete(server)
    flavor = connection.compute.find_flavor("m1.nano", ignore_missing=False)
    image = next(iter(connection.image.images(name=IMAGES[0])))
    networks: Any = "none"
    if networked and (private := connection.network.find_network(PRIVATE)) is not None:
        networks = [{"uuid": private.id}]
    return connection.compute.create_server(
        name=FIRST_SERVER, flavor_id=flavor.id, image_id=image.id, networks=networks, config_drive=True
    )
