"""The volume worker in a process of its own, which kills itself where a test has armed it to.

    python -m tests.crash.volume_process FOLDER DATABASE-URL DRIVER

Like a service manager it begins another worker whenever one has died of SIGKILL, by fork (what
takes long is imported once), and writes how many died to FOLDER/deaths. SIGTERM ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 2.0


class WorkerProcess:
    """Starts and ends it, for a test."""

    def __init__(self, folder: Path, url: str, driver: str) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", "tests.crash.volume_process", str(folder), url, driver]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def deaths(self) -> int:
        path = self._folder / "deaths"
        return len(path.read_text()) if path.exists() else 0

    def start(self) -> None:
        with (self._folder / "worker.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self) -> None:
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(30) == 0


def _work(folder: Path, url: str, driver: str) -> None:
    """One life of the worker."""
    import pytest

    from lifecycle.engine import Engine
    from tests.api.client import configured
    from tests.crash.faults import Faults
    from tests.crash.volume_cloud import configure, make_worker
    from volume import service

    faults = Faults(folder)
    for name in ("ACTIONS", "MOVE_ACTIONS", "BACKUP_ACTIONS"):
        setattr(service, name, faults.wrap(getattr(service, name)))
    Engine.probe = staticmethod(faults.probe)  # type: ignore[assignment]
    conf = configured(url)
    configure(conf, folder, driver, LEASE_S)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    role = make_worker(conf, folder, pytest.MonkeyPatch())
    role.start()
    stop.wait()
    role.stop()


def main() -> None:
    folder, url, driver = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    import tests.crash.volume_cloud  # noqa: F401 - imported once, for all that are forked

    ending, child = threading.Event(), 0

    def end(*_: object) -> None:
        ending.set()
        if child:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    while not ending.is_set():
        child = os.fork()
        if child == 0:
            try:
                _work(folder, url, driver)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return
        with (folder / "deaths").open("a") as file:
            file.write("x")


if __name__ == "__main__":
    main()
