"""What ``haneul up`` writes: the configuration, the plan for identity, and files for clients.

The configuration file is written once and kept when somebody edited it; the
plan and the client files follow from it at every start.
"""

from __future__ import annotations

import configparser
import dataclasses
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cli.plan import Endpoint, Plan, User
from cli.state import StateFolder, write_file
from core.errors import BadRequest

REGION = "RegionOne"
CLOUD = "haneul"
# group of the configuration → the port that upstream's service uses
PORTS = {
    "identity": 5000,
    "compute_api": 8774,
    "image_api": 9292,
    "network_api": 9696,
    "metadata_api": 8775,
    "volume_api": 8776,
    "key_manager_api": 9311,
    "vnc": 6080,
    "metrics": 9464,
}
# group → its options of address and port, where they are not "listen" and "port"
PORT_OPTIONS = {"vnc": ("novncproxy_host", "novncproxy_port")}
# (catalog name, type, group, path, what it is)
CATALOG = (
    ("nova", "compute", "compute_api", "/v2.1", "Servers"),
    ("glance", "image", "image_api", "", "Images"),
    ("neutron", "network", "network_api", "", "Networks"),
    # block-storage is the type; clients of today and of old look for the other two as well
    ("cinder", "block-storage", "volume_api", "/v3", "Volumes"),
    ("cinderv3", "volumev3", "volume_api", "/v3", "Volumes"),
    ("barbican", "key-manager", "key_manager_api", "", "Keys"),
)
# the physical network that floating IPs are in, and this machine's address there: private, and the range that
# people know from OpenStack on one machine. The ranges for documentation (RFC 5737) are in use in some labs
PUBLIC, PUBLIC_GATEWAY = "public", "172.24.4.1/24"
SERVICE_USERS = ("nova", "glance", "placement", "cinder", "neutron", "ironic")


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the person who typed ``haneul up`` decided."""

    driver: str = "libvirt"
    listen: str = "127.0.0.1"
    simulated_hosts: int = 1
    network: str = ""
    """the network agent's driver; empty: the one that goes with ``driver``"""
    any_ports: bool = False
    backend: str = "threading"


def port_is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_ports(host: str, any_ports: bool) -> dict[str, int]:
    """The usual ports, or free ones where a usual one is taken (all free ones with ``any_ports``)."""
    chosen: dict[str, int] = {}
    for group, usual in PORTS.items():
        if not any_ports and port_is_free(host, usual):
            chosen[group] = usual
            continue
        # held open until all are chosen would be safer, but the services bind them seconds later anyway
        while True:
            with socket.socket() as probe:
                probe.bind((host, 0))
                port = probe.getsockname()[1]
            if port not in chosen.values() and port not in PORTS.values():
                chosen[group] = port
                break
    return chosen


def new_configuration(state: StateFolder, choices: Choices) -> configparser.RawConfigParser:
    """The configuration of a fresh cloud on this machine."""
    ports = choose_ports(choices.listen, choices.any_ports)
    address = choices.listen if choices.listen != "0.0.0.0" else socket.gethostname()
    auth_url = f"http://{address}:{ports['identity']}/v3"
    credentials = _credentials(auth_url, state.password("nova"))
    token = {
        **credentials,
        "www_authenticate_uri": auth_url,
        "service_token_roles": "service",
        "service_token_roles_required": "true",
        "interface": "internal",
    }
    config = configparser.RawConfigParser()
    config["DEFAULT"] = {}
    sections: dict[str, dict[str, str]] = {
        "DEFAULT": {
            "state_path": str(state.path),
            "transport_url": "local:///",
            "service_backend": choices.backend,
            "my_ip": address if address[0].isdigit() else "127.0.0.1",
        },
        "database": {
            "connection": f"sqlite:///{state.folder('db')}/global.sqlite",
            "cell_connection": f"sqlite:///{state.folder('db')}/cell1.sqlite",
        },
        "identity": {"embedded": "true", "folder": str(state / "identity"), "listen": choices.listen},
        "keystone_authtoken": token,
        "service_credentials": credentials,
        "compute": {"driver": choices.driver},
        # guests' proxies on the hosts sign with it; no user of the identity service has it
        "metadata": {"shared_secret": state.password("metadata")},
        "metadata_proxy": {"url": f"http://{address}:{ports['metadata_api']}"},
    }
    hosts = [f"sim{number:04}" for number in range(1, choices.simulated_hosts + 1)]
    if choices.driver == "simulated":
        sections["compute"]["simulated_hosts"] = ",".join(hosts)
        sections["volume"] = {"enabled_backends": "simulated_volumes"}
        sections["simulated_volumes"] = {"driver": "simulated", "state_dir": str(state / "simulated-volumes")}
    sections.update(_network(choices, hosts if choices.driver == "simulated" else []))
    if address != choices.listen:
        sections["identity"]["url"] = auth_url
    for group, port in ports.items():
        listen, name = PORT_OPTIONS.get(group, ("listen", "port"))
        sections.setdefault(group, {listen: choices.listen})[name] = str(port)
    sections["vnc"]["novncproxy_base_url"] = f"http://{address}:{ports['vnc']}/vnc_lite.html"
    for name, values in sections.items():
        if name != "DEFAULT":
            config.add_section(name)
        for key, value in values.items():
            config.set(name, key, value)
    return config


def _credentials(auth_url: str, password: str) -> dict[str, str]:
    """Of the services' user, for calls between them."""
    return {
        "auth_type": "password",
        "auth_url": auth_url,
        "username": "nova",
        "password": password,
        "project_name": "service",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "region_name": REGION,
    }


def _network(choices: Choices, simulated_hosts: list[str]) -> dict[str, dict[str, str]]:
    """The network agent's sections: this machine is the gateway of the public network."""
    if (choices.network or choices.driver) == "simulated":
        agent = {"driver": "simulated"}
        if simulated_hosts:
            agent["simulated_hosts"] = ",".join(simulated_hosts)
        return {"network_agent": agent}
    return {
        "network_agent": {"driver": "linux"},
        # alone on its machine it sends no tunnels anywhere
        "network_linux": {"tunnel_address": "127.0.0.1", "host_gateways": f"{PUBLIC}:{PUBLIC_GATEWAY}"},
    }


def write_configuration(state: StateFolder, choices: Choices) -> bool:
    """Write haneul.conf unless there is one. True if it was written.

    An older one gets the sections of services that are newer than it; what stands there stays.
    """
    if state.config_file.exists():
        _add_newer(state, choices)
        return False
    config = new_configuration(state, choices)
    lines = ["# Written once by 'haneul up'; edit it as you like, then: haneul down; haneul up", ""]
    lines += _lines(config, ("DEFAULT", *config.sections()))
    write_file(state.config_file, "\n".join(lines), 0o600)
    return True


def _lines(config: configparser.RawConfigParser, names: Iterable[str]) -> list[str]:
    lines = []
    for name in names:
        values = config.defaults() if name == "DEFAULT" else _own(config, name)
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
    return lines


def _add_newer(state: StateFolder, choices: Choices) -> None:
    """Sections that a cloud of an older release does not have: ports and secrets of newer services."""
    present = read(state.config_file)
    hosts = [name for name in present.get("compute", {}).get("simulated_hosts", "").split(",") if name]
    listen = present.get("identity", {}).get("listen", choices.listen)
    driver = present.get("compute", {}).get("driver", choices.driver)
    known = dataclasses.replace(choices, listen=listen, driver=driver, simulated_hosts=max(len(hosts), 1))
    if set(PORTS) | {"metadata", "network_agent"} <= set(present):
        return
    config = new_configuration(state, known)
    missing = [name for name in config.sections() if name not in present]
    text = state.config_file.read_text().rstrip("\n")
    lines = [
        text,
        "",
        "# added by 'haneul up' for services that are newer than this file",
        *_lines(config, missing),
    ]
    write_file(state.config_file, "\n".join(lines), 0o600)


def _own(config: configparser.RawConfigParser, section: str) -> dict[str, str]:
    """A section's values without those that it inherits from DEFAULT."""
    return {key: config.get(section, key) for key in config._sections[section]}  # type: ignore[attr-defined]


def read(path: Path) -> dict[str, dict[str, str]]:
    """haneul.conf as plain dictionaries: for the few values that commands need without oslo.config.

    :raises BadRequest: it can't be parsed; the message says where.
    """
    parser = configparser.RawConfigParser(default_section="\0", strict=False)
    try:
        parser.read_string(path.read_text(), source=str(path))
    except configparser.Error as failure:
        why = " ".join(str(failure).split())
        raise BadRequest(f"the configuration can't be read: {why}") from failure
    return {name: dict(parser.items(name)) for name in parser.sections()}


class Addresses:
    """Where this cloud's services are, as the configuration says."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self._config = read(state.config_file)

    def value(self, group: str, name: str, default: str = "") -> str:
        return self._config.get(group, {}).get(name, default)

    def listens(self, group: str) -> tuple[str, int]:
        """The address and port that a service of this group listens on."""
        listen, port = PORT_OPTIONS.get(group, ("listen", "port"))
        return self.value(group, listen, "127.0.0.1"), int(self.value(group, port, str(PORTS[group])))

    @property
    def host(self) -> str:
        host = self.value("identity", "listen", "127.0.0.1")
        return host if host != "0.0.0.0" else socket.gethostname()

    def url(self, group: str, path: str = "") -> str:
        scheme = "https" if self.value(group, "ssl_certificate") else "http"
        return f"{scheme}://{self.host}:{self.value(group, 'port', str(PORTS[group]))}{path}"

    @property
    def cafile(self) -> str | None:
        """What the certificates of the cloud's own services are checked with; None: the machine's."""
        return self.value("service_credentials", "cafile") or None

    @property
    def auth_url(self) -> str:
        """Our own Keystone's address, or that of the one which the configuration names."""
        if not self.embedded:
            return self.value("keystone_authtoken", "auth_url") or self.value(
                "service_credentials", "auth_url"
            )
        return self.value("identity", "url") or self.url("identity", "/v3")

    @property
    def key_file(self) -> Path:
        """What the key manager encrypts secrets with."""
        return Path(self.value("key_manager_api", "key_file", str(self._state / "keys" / "secrets.keys")))

    @property
    def driver(self) -> str:
        return self.value("compute", "driver", "libvirt")

    @property
    def embedded(self) -> bool:
        return self.value("identity", "embedded", "false").lower() in ("true", "1", "yes", "on")


def write_plan(state: StateFolder, addresses: Addresses) -> None:
    """identity/plan.json, see ``cli.plan``."""
    users = [
        # As upstream's guides do: admin lets a service read what its own policy would hide
        # (a private image of the project that boots from it).
        User(name, state.password(name), {"service": ("service", "admin")}, "Service user")
        for name in SERVICE_USERS
    ]
    users.append(User("demo", state.password("demo"), {"demo": ("member",)}, "Ordinary user"))
    plan = Plan(
        url=addresses.auth_url,
        region=REGION,
        admin_password=state.password("admin"),
        projects=("service", "demo"),
        users=tuple(users),
        endpoints=tuple(
            Endpoint(name, kind, addresses.url(group, path), text)
            for name, kind, group, path, text in CATALOG
        ),
    )
    write_file(state.folder("identity", 0o700) / "plan.json", plan.to_json(), 0o600)


def environment(state: StateFolder, addresses: Addresses, user: str = "admin") -> dict[str, str]:
    """The OS_… variables of admin or demo."""
    return {
        **({"OS_CACERT": addresses.cafile} if addresses.cafile else {}),
        "OS_CLIENT_CONFIG_FILE": str(state / "clouds.yaml"),
        "OS_AUTH_URL": addresses.auth_url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": user,
        "OS_PASSWORD": state.password(user),
        "OS_PROJECT_NAME": user,
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_REGION_NAME": REGION,
    }


def write_client_files(state: StateFolder, addresses: Addresses) -> None:
    """clouds.yaml and admin-openrc, with passwords: readable by the owner only."""
    clouds: dict[str, Any] = {}
    for cloud, user in ((CLOUD, "admin"), (f"{CLOUD}-demo", "demo")):
        auth = {
            "auth_url": addresses.auth_url,
            "username": user,
            "password": state.password(user),
            "project_name": user,
            "user_domain_id": "default",
            "project_domain_id": "default",
        }
        clouds[cloud] = {"auth": auth, "region_name": REGION, "identity_api_version": "3"}
        if addresses.cafile:
            clouds[cloud]["cacert"] = addresses.cafile
    text = "# Written by 'haneul up'.\n" + yaml.safe_dump({"clouds": clouds}, sort_keys=False)
    write_file(state / "clouds.yaml", text, 0o600)
    exports = [f"export {name}='{value}'" for name, value in environment(state, addresses).items()]
    write_file(state / "admin-openrc", "\n".join(exports) + "\n", 0o600)
