"""Talks to the root shell on a guest's serial console: commands in, output and exit status out."""

from __future__ import annotations

import itertools
import os
import re
import select
import time
import tty
from types import TracebackType

import libvirt
from lxml import etree


class Shell:
    """The tiny guest's shell. One at a time per guest; the guest has said GUEST-READY."""

    def __init__(self, uri: str, server_id: str) -> None:
        connection = libvirt.open(uri)
        try:
            xml = connection.lookupByUUIDString(server_id).XMLDesc(0)
        finally:
            connection.close()
        pty = etree.fromstring(xml.encode()).find("devices/serial/source").get("path")
        self._file = os.open(pty, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._file)
        self._marks = itertools.count(1)
        self.run("stty -echo; PS1=")

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def run(self, command: str, timeout_s: float = 180) -> str:
        """What the command printed. AssertionError when it fails or does not end in time."""
        mark = f"=={next(self._marks)}"
        # the mark is put together by the shell: an echo of the command is no answer
        os.write(self._file, f"{command}\necho '='{mark[1:]}:$?:\n".encode())
        seen, deadline = "", time.monotonic() + timeout_s
        while (match := re.search(f"{mark}:(\\d+):", seen)) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"{command!r} did not end in {timeout_s} s: {seen[-500:]!r}")
            if select.select([self._file], [], [], 0.1)[0]:
                seen += os.read(self._file, 65536).decode(errors="replace")
        lines = seen[: match.start()].replace("\r", "").splitlines()
        # the guest's own news come on the same line
        output = "\n".join(line for line in lines if not line.startswith("GUEST-")).strip("\n")
        if match[1] != "0":
            raise AssertionError(f"{command!r} failed: {output[-500:]!r}")
        return output

    def disks(self) -> dict[str, str]:
        """{serial number: name} of the disks that have one."""
        lines = self.run(
            "for d in /sys/block/*; do [ -e $d/serial ] && echo ${d##*/} $(cat $d/serial); done; true"
        )
        found = (line.split() for line in lines.splitlines())
        return {words[1]: words[0] for words in found if len(words) == 2}
