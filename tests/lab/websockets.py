"""A websocket client of a few lines, for tests."""

from __future__ import annotations

import base64
import os
import socket
import struct


class WebSocketClient:
    """Binary messages of less than 64 KiB, one frame each. :raises ConnectionError: it was refused."""

    def __init__(self, address: str, path: str, timeout_s: float = 120) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout_s)
        self._rest = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {address}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: binary"]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._rest:
            self._fill()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ConnectionError(head.decode(errors="replace"))

    def _fill(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the other side has closed the connection")
        self._rest += data

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._fill()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def recv(self) -> bytes:
        """The next message's data."""
        while True:
            first, length = self._take(2)
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2))
            data = self._take(length)
            if first & 0x0F in (1, 2):
                return data
            if first & 0x0F == 8:
                raise ConnectionError("the other side has said good-bye")

    def send(self, data: bytes) -> None:
        mask = os.urandom(4)
        length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        self._socket.sendall(b"\x82" + length + mask + masked)

    def close(self) -> None:
        self._socket.close()
