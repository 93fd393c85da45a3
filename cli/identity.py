"""Identity: an embedded Keystone in a child process, or any other by configuration.

``IdentityRole`` keeps the child alive (``cli.keystone_wsgi``: the real Keystone
package).  A ``cli.plan.Plan`` says what the cloud needs in Keystone (projects, service
users, catalog); the child fills its database with it before it serves.  With
an external Keystone this role does not run.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from oslo_config import cfg
from oslo_log import log as oslo_logging

from cli.plan import Plan
from cli.state import write_file
from core.errors import Unavailable
from lifecycle.roles import Role

LOG = oslo_logging.getLogger(__name__)

OPTS = [
    cfg.BoolOpt("embedded", default=False, help="Serve the Keystone package from a child process."),
    cfg.StrOpt("folder", help="Folder of the embedded Keystone: configuration, keys, SQLite database."),
    cfg.StrOpt(
        "connection", secret=True, help="Database of the embedded Keystone; its own SQLite file if not set."
    ),
    cfg.StrOpt("listen", default="127.0.0.1", help="Address that the embedded Keystone listens on."),
    cfg.PortOpt("port", default=5000, help="Port that the embedded Keystone listens on."),
    cfg.StrOpt("url", help="Public URL of identity; http://listen:port/v3 if not set."),
    cfg.IntOpt("threads", default=8, min=1, help="Requests that the embedded Keystone works on at a time."),
    cfg.IntOpt("start_timeout", default=180, min=1, help="Seconds to wait for the embedded Keystone."),
]
GROUP = "identity"

# bcrypt's cost: 60 ms per check. Service passwords are random, so more would only slow every login.
PASSWORD_HASH_ROUNDS = 10

KEYSTONE_CONF = """\
# Written by haneul at every start; settings of yours go to keystone.local.conf beside it.
[DEFAULT]
log_file = {log}
use_stderr = false
default_log_levels = keystone=WARNING,keystone.common.rbac_enforcer=ERROR,oslo=WARNING,alembic=WARNING,stevedore=CRITICAL,dogpile=WARNING,py.warnings=ERROR
max_token_size = 255
[database]
connection = {connection}
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[cache]
enabled = true
backend = oslo_cache.dict
expiration_time = 300
[identity]
password_hash_rounds = {rounds}
max_password_length = 72
[oslo_policy]
enforce_scope = true
enforce_new_defaults = true
"""


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def identity_url(conf: cfg.ConfigOpts) -> str:
    return conf.identity.url or f"http://{conf.identity.listen}:{conf.identity.port}/v3"


def write_keystone_files(conf: cfg.ConfigOpts) -> Path:
    """Configuration and keys of the embedded Keystone; keys are made once. Returns the configuration file."""
    folder = Path(conf.identity.folder).resolve()
    for name in ("fernet", "credential"):
        keys = folder / name
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        for index in ("0", "1"):
            if not (keys / index).exists():
                write_file(keys / index, base64.urlsafe_b64encode(os.urandom(32)).decode(), 0o600)
    connection = conf.identity.connection or f"sqlite:///{folder}/keystone.sqlite"
    text = KEYSTONE_CONF.format(
        folder=folder,
        connection=connection.replace("%", "%%").replace("$", "$$"),
        log=folder.parent / "log" / "identity.log",
        rounds=PASSWORD_HASH_ROUNDS,
    )
    (folder.parent / "log").mkdir(parents=True, exist_ok=True)
    write_file(folder / "keystone.conf", text, 0o600)
    local = folder / "keystone.local.conf"
    if not local.exists():
        write_file(local, "# Settings of this Keystone that shall stay.\n", 0o600)
    return folder / "keystone.conf"


class IdentityRole(Role):
    """Runs the embedded Keystone and starts it again when it dies."""

    name = "identity"

    def __init__(self, conf: cfg.ConfigOpts, plan: Plan) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._conf = conf
        self._plan = plan
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="identity", daemon=True)

    def start(self) -> None:
        if not self._conf.identity.folder:
            raise Unavailable("[identity]folder is not set: the embedded Keystone has no place for its files")
        if _listens(self._conf.identity.listen, self._conf.identity.port):
            raise Unavailable(f"port {self._conf.identity.port} is taken: identity can't listen there")
        self._config_file = write_keystone_files(self._conf)
        # Not waited for: the other roles start meanwhile, and need identity at their first request only.
        self._child = self._spawn()
        self._watcher.start()

    def stop(self) -> None:
        self._stopping.set()
        child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(timeout=10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = self._conf.identity
        folder = self._config_file.parent
        log = folder.parent / "log" / "identity.log"
        with log.open("ab") as output:
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cli.keystone_wsgi",
                    f"--config-file={self._config_file}",
                    f"--config-file={folder / 'keystone.local.conf'}",
                    f"--stamp={folder / 'version'}",
                    f"--host={options.listen}",
                    f"--port={options.port}",
                    f"--threads={options.threads}",
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                # one malloc arena per thread would cost more memory than Keystone's work
                env={**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONDONTWRITEBYTECODE": ""},
            )
        assert child.stdin is not None
        child.stdin.write(f"{self._plan.to_json()}\n".encode())
        child.stdin.flush()
        return child

    def wait(self) -> None:
        """Until it answers.

        :raises Unavailable: it ended or takes too long; the message names its log.
        """
        options = self._conf.identity
        deadline = time.monotonic() + options.start_timeout
        while not _listens(options.listen, options.port):
            assert self._child is not None
            if self._child.poll() is not None or time.monotonic() > deadline:
                how = (
                    f"ended with {self._child.returncode}"
                    if self._child.poll() is not None
                    else "is too slow"
                )
                self.stop()
                raise Unavailable(
                    f"the embedded Keystone {how}: see {self._config_file.parent.parent}/log/identity.log"
                )
            time.sleep(0.05)

    def _watch(self) -> None:
        """Start the child again when it ends unasked, at most every two seconds."""
        while not self._stopping.is_set():
            assert self._child is not None
            status = self._child.wait()
            if self._stopping.wait(2):
                return
            LOG.error("the embedded Keystone ended with %s; starting it again", status)
            self._child = self._spawn()


def _listens(host: str, port: int) -> bool:
    import socket

    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def make(conf: cfg.ConfigOpts) -> IdentityRole:
    conf.register_opts(OPTS, group=GROUP)
    return IdentityRole(conf, Plan.from_file(Path(conf.identity.folder) / "plan.json"))
