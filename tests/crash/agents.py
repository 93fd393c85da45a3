"""Starts ``agent_process`` for a cloud, and again when it has killed itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.stack.cloud import Cloud, wait_for

ROOT = Path(__file__).resolve().parents[2]


class AgentProcess:
    """One compute role, with the cloud's options for its hosts and no database."""

    def __init__(self, cloud: Cloud, folder: Path, *, faults: Path | None = None, **more: Any) -> None:
        self.deaths = 0
        self._log = folder / "agent.log"
        self._config = folder / "agent.json"
        options = {
            name: value
            for name, value in cloud.values.items()
            if name.partition(".")[0] in ("compute", "simulated", "transport_url", "state_path")
        }
        options["host"] = "agents"
        settings = {"options": options, "faults": str(faults) if faults else None, **more}
        if cloud.plane is not None:
            settings["network"] = cloud.plane.url
        if cloud.images is not None:
            settings["image"] = cloud.images.url
        if cloud.volumes is not None:
            settings["volume"] = cloud.volumes.url
        self._config.write_text(json.dumps(settings))
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        self._start_one()
        self._thread.start()

    def _start_one(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.agent_process", str(self._config)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _keep(self) -> None:
        """A service manager: start it again when it dies of a signal."""
        while not self._closing.is_set():
            assert self._process is not None
            if self._process.wait() == -signal.SIGKILL:
                self.deaths += 1
                if not self._closing.is_set():
                    self._start_one()
            else:
                return

    def kill(self) -> None:
        """kill -9, from outside."""
        before = self.deaths
        assert self._process is not None
        self._process.kill()
        wait_for(lambda: self.deaths > before, "the agent is dead")

    def stop(self) -> str:
        """End it; returns what it has written."""
        self._closing.set()
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(20)
        return self._log.read_text()
