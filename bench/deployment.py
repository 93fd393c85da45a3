"""A complete deployment with simulated hosts, for benchmarks: started, found again and ended.

Everything is private to one state folder: database server, broker, Keystone and
one process per role (``haneul serve``), on free loopback ports.  What was
started stands in ``processes.json`` there; only that is ever stopped.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import cloud, seeds, serve, settings
from cli import processes as processes_of
from cli.state import StateFolder, started_at, write_file
from core import key_file
from tests.lab import processes, servers

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_STATE = ROOT / ".lab" / "serve-simulated"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Shape:
    """What the deployment is made of."""

    hosts: int = 8
    database: str = "mariadb"
    messaging: str = "rabbit"
    api_workers: int = 4
    cells: int = 1


class Deployment:
    """The deployment of one state folder."""

    def __init__(self, folder: Path = DEFAULT_STATE) -> None:
        self.state = StateFolder(folder)

    @property
    def _record(self) -> dict[str, Any]:
        return self.state.read_json("processes.json")

    def _save(self, record: dict[str, Any]) -> None:
        self.state.write_json("processes.json", record, 0o600)

    # -- start ---------------------------------------------------------------

    def start(self, shape: Shape, say: Say) -> None:
        """Bring everything up and wait until servers can be made; ends what it began if that fails."""
        if self.pids():
            raise SystemExit(f"a deployment runs in {self.state.path} already: end it with --stop")
        if shape.messaging == "local" and shape.cells > 1:
            raise SystemExit("several cells need --messaging rabbit")
        shutil.rmtree(self.state.path, ignore_errors=True)
        self.state.path.mkdir(parents=True)
        # servers that refuse root must reach their folders, wherever the state is
        lab = Path(tempfile.mkdtemp(prefix="haneul-bench-"))
        lab.chmod(0o755)
        self._save({"lab": str(lab), "servers": {}, "roles": {}, "shape": dataclasses.asdict(shape)})
        try:
            self._start(shape, lab, say)
        except BaseException:
            self.stop()
            raise

    def _start(self, shape: Shape, lab: Path, say: Say) -> None:
        files = self._configure(shape, lab, say)
        main = files["main"]
        if shape.messaging == "local":
            self._haneul("db", "upgrade", "--config-file", main)
            self._serve("all", "all", main)
        else:
            self._serve("identity", "identity", main)
            self._haneul("db", "upgrade", "--config-file", main)
            self._make_cells(files, shape)
            self._serve_rest(files, shape)
        addresses = settings.Addresses(self.state)
        say("services started; waiting for the APIs")
        urls = {kind: addresses.url(group, path) for _n, kind, group, path, _t in settings.CATALOG}
        cloud.wait_for_answers({"identity": addresses.auth_url, **urls}, self._check)
        self._seed(shape, say)

    def _serve_rest(self, files: dict[str, Path], shape: Shape) -> None:
        """Every role but identity, and the databases, which are upgraded already."""
        per_cell = [str(number) for number in range(1, shape.cells + 1)]
        copies = {
            "api-compute": [str(number + 1) for number in range(shape.api_workers)],
            "conductor": per_cell,
            "compute": per_cell,
            "network": per_cell,
        }
        for role in serve.ROLES:
            if role in ("identity", "databases"):
                continue
            for copy in copies.get(role, [""]):
                name = f"{role}-{copy}" if copy else role
                self._serve(name, role, files.get(name, files["main"]))

    def _configure(self, shape: Shape, lab: Path, say: Say) -> dict[str, Path]:
        """Servers, configuration files by name ("main", and for each cell conductor-N, compute-N)."""
        choices = settings.Choices(driver="simulated", simulated_hosts=shape.hosts, any_ports=True)
        config = settings.new_configuration(self.state, choices)
        config.remove_section("metrics")  # many processes, one port
        config["compute_api"]["workers"] = str(
            max(shape.api_workers, 1) if shape.messaging == "rabbit" else 1
        )
        urls = self._databases(shape, lab, say)
        config["database"] = {"connection": urls[0], "cell_connection": urls[1]}
        config.add_section("quota")
        for name in ("instances", "cores", "ram"):
            config["quota"][name] = "-1"
        brokers = ["local:///"]
        if shape.messaging == "rabbit":
            broker = self._server("rabbitmq", lab, say)
            brokers = [broker.create_vhost(f"cell{number}") for number in range(1, shape.cells + 1)]
            self._cells = list(zip(urls[1:], brokers, strict=True))
        config["DEFAULT"]["transport_url"] = brokers[0]
        files = {"main": self._write(config, "haneul.conf")}
        names = config["compute"]["simulated_hosts"].split(",")
        for number, broker_url in enumerate(brokers, 1):
            config["DEFAULT"]["transport_url"] = brokers[0]
            config["conductor"] = {"cell": f"cell{number}"}
            files[f"conductor-{number}"] = self._write(config, f"conductor-{number}.conf")
            agent = configparser.RawConfigParser()
            agent.read_dict(config)
            # what a hypervisor host gets: its cell's broker, and no database
            agent.remove_section("database")
            agent["DEFAULT"]["transport_url"] = broker_url
            agent["DEFAULT"]["host"] = f"agents{number}"
            mine = ",".join(names[number - 1 :: shape.cells])
            agent["compute"]["simulated_hosts"] = agent["network_agent"]["simulated_hosts"] = mine
            files[f"compute-{number}"] = self._write(agent, f"compute-{number}.conf")
            files[f"network-{number}"] = files[f"compute-{number}"]
        addresses = settings.Addresses(self.state)
        settings.write_plan(self.state, addresses)
        settings.write_client_files(self.state, addresses)
        key_file.create(addresses.key_file)
        return files

    def _write(self, config: configparser.RawConfigParser, name: str) -> Path:
        path = self.state / name
        lines = []
        for section in ("DEFAULT", *config.sections()):
            own = config.defaults() if section == "DEFAULT" else settings._own(config, section)
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in own.items()), ""]
        write_file(path, "\n".join(lines), 0o600)
        return path

    def _databases(self, shape: Shape, lab: Path, say: Say) -> list[str]:
        names = ["global", *(f"cell{number}" for number in range(1, shape.cells + 1))]
        if shape.database == "sqlite":
            return [f"sqlite:///{self.state.folder('db')}/{name}.sqlite" for name in names]
        server = self._server(shape.database, lab, say)
        return [server.create_database(f"haneul_{name}") for name in names]

    def _server(self, kind: str, lab: Path, say: Say) -> Any:
        reason = servers.missing(kind)
        if reason:
            raise SystemExit(reason)
        say(f"starting {kind}")
        durable: dict[str, Any] = {} if kind == "rabbitmq" else {"durable": True}
        server: Any = servers.STARTERS[kind](lab / kind, **durable)  # type: ignore[operator]
        record = self._record
        record["servers"][kind] = server.to_dict()
        self._save(record)
        return server

    def _make_cells(self, files: dict[str, Path], shape: Shape) -> None:
        for number, (database, broker) in enumerate(self._cells, 1):
            if number == 1:
                continue  # "db upgrade" makes the first, on the global broker
            transport = ("--transport", broker)
            create = ("cell", "--config-file", files["main"], "create", f"cell{number}")
            self._haneul(*create, "--database", database, *transport)

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "4"}

    def _command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", "cli.main", *map(str, arguments)]

    def _haneul(self, *arguments: str | Path) -> None:
        subprocess.run(
            self._command(*arguments),
            check=True,
            stdout=subprocess.DEVNULL,
            env=self._environment(),
            cwd=ROOT,
        )

    def _serve(self, name: str, role: str, config: Path) -> None:
        process = processes.start(
            self._command("serve", role, "--config-file", config),
            log=self.state.folder("log") / f"{name}.log",
            environment=self._environment(),
            folder=self.state.path,
        )
        record = self._record
        record["roles"][name] = {"pid": process.pid, "started": started_at(process.pid)}
        self._save(record)

    def _check(self) -> None:
        """:raises SystemExit: a role's process has ended."""
        for name, role in self._record["roles"].items():
            if started_at(role["pid"]) != role["started"]:
                raise SystemExit(f"{name} ended: {processes.tail(self.state / 'log' / f'{name}.log')}")

    def _seed(self, shape: Shape, say: Say) -> None:
        connection = cloud.connect(self.state)
        blank = self.state / "blank.raw"
        blank.write_bytes(bytes(1 << 20))
        seeds.ensure_flavors(connection)
        seeds.ensure_images(connection, blank)
        say("waiting for the hosts")
        processes_ready = (self._check, lambda: len(list(connection.compute.hypervisors())) >= shape.hosts)
        _wait(*processes_ready)
        say(f"up: {shape.hosts} hosts, {shape.database}, {shape.messaging}")

    # -- use -----------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The administrator's OS_… variables."""
        return settings.environment(self.state, settings.Addresses(self.state))

    def exports(self) -> str:
        values = self.environment().items()
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values)

    def pids(self) -> dict[str, int]:
        """Leaders of all processes that still run: roles by name, servers as "server/KIND"."""
        record, found = self._record, {}
        for name, role in record.get("roles", {}).items():
            if started_at(role["pid"]) == role["started"]:
                found[name] = role["pid"]
        for kind, server in record.get("servers", {}).items():
            for pid in server["pids"]:
                if processes.alive(pid):
                    found.setdefault(f"server/{kind}", pid)
        return found

    def describe(self) -> str:
        """One line: what runs here, for beside figures."""
        from db.sessions import make_engine

        shape = Shape(**self._record["shape"])
        driver = ""
        if "mariadb" in self._record["servers"]:
            server: Any = servers.Server.from_dict(self._record["servers"]["mariadb"])
            driver = f" ({make_engine(server.url()).dialect.driver})"
        return (
            f"{shape.hosts} simulated hosts, {shape.database}{driver}, {shape.messaging},"
            f" Compute API in {shape.api_workers} processes, {shape.cells} cell(s)"
        )

    def memory(self) -> dict[str, float]:
        """Proportional set size in MiB by role."""
        return {
            name: sum(processes_of.memory(pid).values())
            for name, pid in self.pids().items()
            if not name.startswith("server/")
        }

    def statement_counter(self) -> Callable[[], int] | None:
        """Reads how many SELECTs the database server has run; None where it does not count them."""
        data = self._record["servers"].get("mariadb")
        if data is None:
            return None
        import pymysql

        connection = pymysql.connect(
            host=servers.HOST, port=data["port"], user=data["user"], password=data["password"]
        )

        def count() -> int:
            with connection.cursor() as cursor:
                cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
                row = cursor.fetchone()
            return int(row[1]) if row else 0

        return count

    def stop(self) -> None:
        """End exactly what ``start`` began."""
        record = self._record
        for name, pid in self.pids().items():
            if not name.startswith("server/"):
                processes.stop_group(pid)
        for server in record.get("servers", {}).values():
            servers.Server.from_dict(server).stop()
        if record.get("lab"):
            shutil.rmtree(record["lab"], ignore_errors=True)
        record.update(servers={}, roles={}, lab=None)
        if self.state.path.exists():
            self._save(record)


def _wait(check: Callable[[], None], ready: Callable[[], bool], timeout_s: float = 120) -> None:
    import time

    deadline = time.monotonic() + timeout_s
    while not ready():
        check()
        if time.monotonic() > deadline:
            raise SystemExit(f"not ready after {timeout_s:.0f} s: see the logs")
        time.sleep(0.2)


def cpu_seconds(leader: int) -> float:
    """CPU time used so far by a process and everything in its session, ended children included."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == leader:  # session
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(path: Path) -> Deployment:
    """The deployment that runs in a state folder. :raises SystemExit: none does."""
    deployment = Deployment(path)
    if not deployment.pids():
        raise SystemExit(f"nothing runs in {path}: start it with bench/serve-simulated --hosts 8")
    return deployment


__all__ = ["DEFAULT_STATE", "Deployment", "Shape", "cpu_seconds", "load"]
