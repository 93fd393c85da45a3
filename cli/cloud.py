"""The cloud as its clients see it: connections, waiting for answers, following a console."""

from __future__ import annotations

import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from cli import settings
from cli.state import StateFolder
from core.errors import DriverError, Unavailable

READY_WORD = "GUEST-READY"


def connect(state: StateFolder, cloud: str = settings.CLOUD) -> Any:
    """An openstacksdk connection by the state folder's clouds.yaml, whatever the environment says."""
    import openstack
    from openstack.config import loader

    config = loader.OpenStackConfig(
        config_files=[str(state / "clouds.yaml")], secure_files=[], vendor_files=[], load_envvars=False
    )
    return openstack.connection.Connection(config=config.get_one(cloud=cloud))


def answers(url: str, cafile: str | None = None) -> bool:
    """Whether a service answers there with anything but a server error.

    ``cafile``: what its certificate is checked with, for https.
    """
    context = ssl.create_default_context(cafile=cafile) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(url, timeout=5, context=context):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def wait_for_answers(
    urls: dict[str, str], check: Callable[[], None], timeout_s: float = 240, cafile: str | None = None
) -> None:
    """Until every URL answers; ``check`` is called meanwhile and may raise.

    :raises Unavailable: the time is over; names what does not answer.
    """
    deadline = time.monotonic() + timeout_s
    waiting = dict(urls)
    while waiting:
        waiting = {name: url for name, url in waiting.items() if not answers(url, cafile)}
        if not waiting:
            return
        check()
        if time.monotonic() > deadline:
            names = ", ".join(f"{name} ({url})" for name, url in waiting.items())
            raise Unavailable(f"no answer after {timeout_s:.0f} s from {names}: see 'haneul logs'")
        time.sleep(0.05)


def wait_for_server(connection: Any, server_id: str, timeout_s: float = 300) -> Any:
    """Until a server is ACTIVE.

    :raises DriverError: it went to ERROR; the message is the server's fault.
    :raises Unavailable: the time is over.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        server = connection.compute.get_server(server_id)
        if server.status == "ACTIVE":
            return server
        if server.status == "ERROR":
            fault = server.fault or {}
            raise DriverError(f"the server went to ERROR: {fault.get('message', 'no fault was recorded')}")
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the server is still {server.status} ({server.task_state}) after {timeout_s:.0f} s"
            )
        time.sleep(0.2)


_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def _printable(line: str) -> str:
    """A guest's words without what would steer the reader's terminal."""
    return _CONTROL.sub("", line)


def console_lines(connection: Any, server_id: str, until: str, timeout_s: float) -> Iterator[str]:
    """Lines of a server's serial console as they appear, up to the one with ``until``.

    :raises Unavailable: the time is over.
    """
    shown, deadline = 0, time.monotonic() + timeout_s
    while True:
        output = connection.compute.get_server_console_output(server_id)["output"] or ""
        # the last line may still grow
        lines = [_printable(line) for line in output.replace("\r", "").split("\n")]
        complete = lines[:-1]
        for line in complete[shown:]:
            yield line
            if until in line:
                return
        shown = max(shown, len(complete))
        if time.monotonic() > deadline:
            raise Unavailable(f"the console did not say {until} within {timeout_s:.0f} s")
        time.sleep(0.3)
