"""Network namespaces of the data plane: made, entered, removed; seen by ``ip netns`` when they lie in /run/netns.

A thread enters a namespace for the time of a ``with`` block: sockets that it opens, programs that it starts
and /proc/sys/net are that namespace's. A socket stays in the namespace where it was opened.

No fork and no child process: an agent has many threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from core.errors import DriverError
from network.drivers.linux.netlink import Link, Links

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise DriverError(f"{what}: {os.strerror(number)}", cause=OSError(number, what))


def _setns(handle: int, what: str) -> None:
    _check(_libc.setns(handle, _CLONE_NEWNET), what)


class Namespaces:
    """The named namespaces in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / name

    def names(self, prefix: str) -> set[str]:
        """Of those that begin with ``prefix``."""
        with contextlib.suppress(FileNotFoundError):
            return {entry.name for entry in self._folder.iterdir() if entry.name.startswith(prefix)}
        return set()

    def pids(self, name: str) -> list[int]:
        """Processes that live in a namespace; [] if there is none."""
        found = []
        with contextlib.suppress(OSError):
            wanted = self.path(name).stat()
            for entry in Path("/proc").glob("[0-9]*/ns/net"):
                with contextlib.suppress(OSError):
                    here = entry.stat()
                    if (here.st_dev, here.st_ino) == (wanted.st_dev, wanted.st_ino):
                        found.append(int(entry.parts[2]))
        return found

    def ours(self, prefix: str, links: Links) -> set[str]:
        """Of those that begin with ``prefix``: ids of the ones that no other network namespace's agent has wired.

        Two agents on one machine (a lab's hosts) may keep their namespaces in the same folder.
        """
        here = {link.index: link for link in links.all()}
        return {
            name.removeprefix(prefix) for name in self.names(prefix) if not self._wired_elsewhere(name, here)
        }

    def _wired_elsewhere(self, name: str, here: Mapping[int, Link]) -> bool:
        """Does a veth of the namespace end in a network namespace that is not this one?"""
        if not self.exists(name):
            return False
        with self.links(name) as inside:
            ends = [link for link in inside.all() if link.kind == "veth"]
        # indexes alone may be the same by chance: both ends bear the same port's id (ns-ID and nsID)
        return any(end.parent not in here or here[end.parent].name[2:] != end.name[3:] for end in ends)

    def exists(self, name: str) -> bool:
        """There, and no file that a crash left before the namespace was bound to it."""
        try:
            with self.entered(name):
                return True
        except DriverError:
            return False

    def ensure(self, name: str) -> bool:
        """Make it unless it is there; True if it was made."""
        if self.exists(name):
            return False
        self._share_folder()
        path = self.path(name)
        path.touch(mode=0o444)
        failure: list[DriverError] = []
        # a thread of its own, which never serves anybody else: it stays in the new namespace until it ends
        maker = threading.Thread(target=self._make, args=(path, failure), name=f"make-{name}"[:15])
        maker.start()
        maker.join()
        if failure:
            path.unlink(missing_ok=True)
            raise failure[0]
        with self.links(name) as links:
            links.change(links.need("lo"), state="up")
        return True

    @staticmethod
    def _make(path: Path, failure: list[DriverError]) -> None:
        try:
            _check(_libc.unshare(_CLONE_NEWNET), f"make namespace {path.name}")
            source = b"/proc/thread-self/ns/net"
            bound = _libc.mount(source, os.fsencode(path), b"none", _MS_BIND, None)
            _check(bound, f"name namespace {path.name}")
        except DriverError as error:
            failure.append(error)

    def _share_folder(self) -> None:
        """As ``ip netns`` does: what is bound here is seen by other mount namespaces, and its end, too."""
        folder = os.fsencode(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        if _libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None) == 0:
            return
        _check(_libc.mount(folder, folder, b"none", _MS_BIND | _MS_REC, None), f"mount {self._folder}")
        _check(_libc.mount(b"", folder, b"none", _MS_SHARED | _MS_REC, None), f"share {self._folder}")

    def remove(self, name: str) -> None:
        """Gone, with the devices in it once nothing holds it any more."""
        path = self.path(name)
        _libc.umount2(os.fsencode(path), _MNT_DETACH)
        path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """This thread works in the namespace.

        :raises DriverError: there is none.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            try:
                target = os.open(self.path(name), os.O_RDONLY)
            except OSError as error:
                raise DriverError(f"there is no namespace {name}", cause=error) from error
            try:
                _setns(target, f"enter namespace {name}")
            finally:
                os.close(target)
            try:
                yield
            finally:
                _setns(home, "come back from a namespace")
        finally:
            os.close(home)

    @contextlib.contextmanager
    def links(self, name: str) -> Iterator[Links]:
        """The devices in a namespace."""
        with self.entered(name):
            links = Links()
        try:
            yield links
        finally:
            links.close()

    def run(
        self, name: str, arguments: Sequence[str], *, text: str | None = None, accept: Sequence[int] = (0,)
    ) -> str:
        """The output of a program in a namespace. :raises DriverError: what it said when it failed."""
        with self.entered(name):
            return run(arguments, text=text, accept=accept)

    def call(self, name: str, function: Callable[[], None]) -> None:
        with self.entered(name):
            function()


def run(arguments: Sequence[str], *, text: str | None = None, accept: Sequence[int] = (0,)) -> str:
    """The output of a short-lived program.

    :raises DriverError: it is missing, failed (with its last line) or did not come to an end.
    """
    program = arguments[0]
    try:
        done = subprocess.run(
            list(arguments),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except FileNotFoundError as error:
        raise DriverError(f"{program} is not installed", cause=error) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"{program} could not be run: {error}", cause=error) from error
    if done.returncode not in accept:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise DriverError(f"{program} failed: {lines[0]}", cause=RuntimeError(done.stderr))
    return done.stdout


def veth(
    links: Links, inside: Links, path: Path, outer: str, inner: str, *, alias: str, mac: str, mtu: int
) -> None:
    """A veth pair, ``outer`` here and ``inner`` in the namespace at ``path``, made or mended.

    The inner end gets its MAC and MTU; who plugs the outer one sets the rest of it.
    """
    here = links.get(outer)
    there = inside.get(inner)
    if here is None or there is None:
        if here is not None:
            links.delete(outer)
        if there is not None:
            inside.delete(inner)
        handle = os.open(path, os.O_RDONLY)
        try:
            # the peer is born in the namespace: a name that is taken here is no matter
            links.add(outer, "veth", peer={"ifname": inner, "net_ns_fd": handle, "address": mac})
        finally:
            os.close(handle)
        links.change(links.need(outer), ifalias=alias)
        there = inside.need(inner)
    if there.mac != mac:
        inside.change(there, state="down")
        inside.change(there, address=mac)
        there = inside.need(inner)
    inside.settle(there, mtu=mtu, up=True)


def configure(inside: Links, device: str, wanted: set[str]) -> set[str]:
    """Give a device exactly these addresses ("192.0.2.1/24"); link-local IPv6 ones of the kernel stay.

    Returns those that were added. What is right is not touched: connections live on.
    """
    link = inside.need(device)
    with inside.route(f"configure addresses of {device}") as route:

        def present() -> set[tuple[str, int]]:
            return {(each.get("address"), each["prefixlen"]) for each in route.get_addr(index=link.index)}

        # first what is to go: the kernel takes along those that are secondary to it
        for ip, length in present():
            if f"{ip}/{length}" not in wanted and not ip.startswith("fe80:"):
                try:
                    route.addr("del", index=link.index, address=ip, prefixlen=length)
                except NetlinkError as error:
                    if error.code != errno.EADDRNOTAVAIL:
                        raise
        missing = wanted - {f"{ip}/{length}" for ip, length in present()}
        for address in sorted(missing):
            ip, _, bits = address.partition("/")
            # NODAD: the same DHCP address is on many hosts on purpose, a router's is the port's alone
            flags = {"flags": 0x02} if ":" in ip else {}
            try:
                route.addr("add", index=link.index, address=ip, prefixlen=int(bits), **flags)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
    return missing
