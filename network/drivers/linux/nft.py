"""haneul's own nftables tables: what is wanted is compared with what is there, and the difference is one transaction.

``nft`` speaks JSON in both directions. Its output words things in its own way, so rules are not compared by
their expressions: each bears, in its comment, a checksum of the expression that it was made from. A rule that was removed, added or
replaced by hand breaks its chain's sequence of comments, and the chain is written anew; chains that are right are not touched, and their
counters go on. The kernel counts the changes of a namespace's rulesets (the generation): as long as nobody else
has made one, nothing needs to be read.

No other table is ever touched.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
import json
import socket
import struct
import subprocess
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import DriverError

TABLE = "haneul"
Key = tuple[str, str]
"""(family, name of a chain or set)"""
Element = str | int | tuple[str, ...]
Value = str | int | None
"""of a map: a chain to jump to, or a number; None in sets"""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule: nft's JSON expressions, and a word for people."""

    label: str
    expressions: tuple[Any, ...]

    @functools.cached_property
    def comment(self) -> str:
        text = json.dumps(self.expressions, sort_keys=True)
        return f"{self.label} {hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:12]}"


@dataclasses.dataclass(frozen=True)
class Chain:
    """Rules in their order; with ``hook`` = (type, hook, priority) a base chain."""

    rules: tuple[Rule, ...]
    hook: tuple[str, str, int] | None = None

    @functools.cached_property
    def comments(self) -> tuple[str, ...]:
        return tuple(rule.comment for rule in self.rules)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Of a set or map: the type of its elements, of a map's values; interval: elements are CIDRs."""

    type: str | tuple[str, ...]
    value: str | None = None
    interval: bool = False

    def declaration(self, key: Key) -> dict[str, Any]:
        family, name = key
        made: dict[str, Any] = {"family": family, "table": TABLE, "name": name}
        made["type"] = list(self.type) if isinstance(self.type, tuple) else self.type
        if self.interval:
            made["flags"] = ["interval"]
        if self.value is None:
            return {"set": made}
        return {"map": {**made, "map": self.value}}


@dataclasses.dataclass
class Elements:
    """What a set holds; not ``whole``: only these elements are looked at, those with GONE removed."""

    items: dict[Element, Any]
    whole: bool = False


class _Gone:
    """The value of an element that is to be removed."""


GONE = _Gone()


@dataclasses.dataclass
class Wanted:
    """A part of the tables; ``whole``: what is not named here goes. None: to be removed."""

    sets: dict[Key, Kind | None] = dataclasses.field(default_factory=dict)
    chains: dict[Key, Chain | None] = dataclasses.field(default_factory=dict)
    elements: dict[Key, Elements] = dataclasses.field(default_factory=dict)
    whole: bool = False

    def put(self, family: str, name: str, element: Element, value: Any = None) -> None:
        """One element of a set that is otherwise left as it is."""
        self.elements.setdefault((family, name), Elements({})).items[element] = value


@dataclasses.dataclass
class Present:
    """What the kernel has, as far as it is compared."""

    tables: set[str] = dataclasses.field(default_factory=set)
    sets: dict[Key, Kind] = dataclasses.field(default_factory=dict)
    elements: dict[Key, dict[Element, Value]] = dataclasses.field(default_factory=dict)
    chains: dict[Key, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """comments of the rules, in order"""
    hooks: dict[Key, tuple[str, str, int]] = dataclasses.field(default_factory=dict)


class Tables:
    """``table bridge haneul`` and ``table inet haneul`` of this network namespace."""

    families: tuple[str, ...] = ("bridge", "inet")

    def __init__(self, command: str = "nft") -> None:
        self.command = command
        self.present = Present()
        self._generation: int | None = None
        self._lock = threading.RLock()

    def start(self) -> None:
        """Raises DriverError if nft isn't there or may not do its work."""
        self.read()

    # -- talking to nft

    def _nft(self, *arguments: str, text: str | None = None) -> str:
        try:
            done = subprocess.run(
                [self.command, "-j", *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        except FileNotFoundError as error:
            raise DriverError(
                f"the program {self.command} is missing: install the package nftables", cause=error
            ) from error
        except subprocess.TimeoutExpired as error:
            raise DriverError(f"{self.command} hangs", cause=error) from error
        if done.returncode != 0:
            first = (done.stderr.strip() or "no reason given").splitlines()[0]
            raise DriverError(f"{self.command} refused: {first[:300]}", cause=done.stderr[:4000])
        return done.stdout

    def read(self) -> None:
        """Take what the kernel has for what is there."""
        with self._lock:
            generation = generation_id()
            present = Present()
            for entry in self._list("tables"):
                table = entry.get("table")
                if table and table["name"] == TABLE and table["family"] in self.families:
                    present.tables.add(table["family"])
            for family in sorted(present.tables):
                _understand(self._list("table", family, TABLE), present)
            self.present = present
            self._generation = generation

    def read_if_stale(self) -> None:
        """Read, unless the kernel says that nobody else has changed anything since."""
        with self._lock:
            if self._generation is None or self._generation != generation_id():
                self.read()

    def _list(self, *what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._nft("list", *what))["nftables"]
        return found

    def counters(self, family: str, chain: str) -> list[dict[str, Any]]:
        """[{"rule": label, "packets":, "bytes":}] of a chain's rules that count."""
        found = []
        for entry in self._list("chain", family, TABLE, chain):
            rule = entry.get("rule")
            if rule is None:
                continue
            for expression in rule["expr"]:
                if "counter" in expression:
                    label = rule.get("comment", "").rpartition(" ")[0]
                    found.append({"rule": label, **expression["counter"]})
        return found

    # -- making it so

    def update(self, wanted: Wanted) -> bool:
        """Make the tables hold ``wanted``, in one transaction; says whether anything had to be done.

        :raises DriverError: the kernel refused, and nothing has changed. What was taken for present is
            forgotten then: the next update reads first.
        """
        with self._lock:
            self.read_if_stale()
            commands, after = _difference(self.present, wanted, self.families)
            if not commands:
                return False
            try:
                self._nft("-f", "-", text=json.dumps({"nftables": commands}))
            except DriverError:
                self._generation = None
                raise
            known, now = self._generation, generation_id()
            self.present = after
            # one transaction is one generation: more means that somebody else has been at it, too
            self._generation = now if known is not None and now == known + 1 else None
            return True


def generation_id() -> int:
    """The number of changes that this namespace's rulesets have seen (NFT_MSG_GETGEN)."""
    request = struct.pack("=IHHIIBBH", 20, (10 << 8) | 16, 1, 1, 0, 0, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 12) as channel:
        channel.settimeout(10)
        channel.sendto(request, (0, 0))
        answer = channel.recv(8192)
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind == 2:  # NLMSG_ERROR
        code = struct.unpack_from("=i", answer, 16)[0]
        raise DriverError(f"nftables can't be used here (error {-code}): the network agent needs root")
    length, attribute = struct.unpack_from("=HH", answer, 20)
    if attribute != 1 or length != 8:
        raise DriverError("the kernel's answer about nftables is not understood")
    return int(struct.unpack_from("!I", answer, 24)[0])


# -- reading


def _understand(listing: Iterable[dict[str, Any]], present: Present) -> None:
    comments: dict[Key, list[str]] = {}
    for entry in listing:
        for what, thing in entry.items():
            if what in ("set", "map"):
                key = (thing["family"], thing["name"])
                kind = thing["type"]
                present.sets[key] = Kind(
                    tuple(kind) if isinstance(kind, list) else kind,
                    thing.get("map"),
                    "interval" in thing.get("flags", ()),
                )
                present.elements[key] = dict(_elements(thing))
            elif what == "chain":
                key = (thing["family"], thing["name"])
                comments[key] = []
                if "hook" in thing:
                    present.hooks[key] = (thing["type"], thing["hook"], thing["prio"])
            elif what == "rule":
                comments[thing["family"], thing["chain"]].append(thing.get("comment", ""))
    present.chains.update({key: tuple(each) for key, each in comments.items()})


def _elements(thing: Mapping[str, Any]) -> Iterable[tuple[Element, Value]]:
    for entry in thing.get("elem", ()):
        element, value = entry if "map" in thing else (entry, None)
        if isinstance(element, dict) and "elem" in element:
            element = element["elem"]["val"]
        if isinstance(value, dict):
            value = value.get("jump", {}).get("target", "?")
        for each in _element(element):
            yield each, value


def _element(element: Any) -> list[Element]:
    if not isinstance(element, dict):
        return [element]
    if "concat" in element:
        return [tuple(element["concat"])]
    if "prefix" in element:
        return [f"{element['prefix']['addr']}/{element['prefix']['len']}"]
    if "range" in element:
        first, last = (ipaddress.ip_address(each) for each in element["range"])
        return [str(each) for each in ipaddress.summarize_address_range(first, last)]
    return [json.dumps(element, sort_keys=True)]


def _as_json(element: Element, value: Value, kind: Kind) -> Any:
    written: Any = element
    if isinstance(element, tuple):
        written = {"concat": list(element)}
    elif kind.interval:
        address, _, length = str(element).partition("/")
        written = {"prefix": {"addr": address, "len": int(length)}}
    if kind.value is None:
        return written
    return [written, {"jump": {"target": value}} if kind.value == "verdict" else value]


# -- comparing


def _difference(
    present: Present, wanted: Wanted, families: Iterable[str]
) -> tuple[list[dict[str, Any]], Present]:
    """(commands, what will be present). Order: what others refer to comes first and goes last."""
    commands: list[dict[str, Any]] = []
    after = Present(
        present.tables | set(families),
        dict(present.sets),
        dict(present.elements),
        dict(present.chains),
        dict(present.hooks),
    )
    for family in families:
        if family not in present.tables:
            commands.append({"add": {"table": {"family": family, "name": TABLE}}})
    gone_sets = {key for key, kind in wanted.sets.items() if kind is None} & present.sets.keys()
    gone_chains = {key for key, chain in wanted.chains.items() if chain is None} & present.chains.keys()
    if wanted.whole:
        gone_sets |= present.sets.keys() - wanted.sets.keys()
        gone_chains |= present.chains.keys() - wanted.chains.keys()
    late = _gone_commands(gone_sets, gone_chains, present, after)
    commands += _set_commands(wanted, present, after)
    commands += _chain_commands(wanted, present, after)
    added, removed = _element_commands(wanted, gone_sets, after)
    return [*commands, *added, *removed, *late], after


def _named(key: Key, **more: Any) -> dict[str, Any]:
    return {"family": key[0], "table": TABLE, "name": key[1], **more}


def _gone_commands(
    gone_sets: set[Key], gone_chains: set[Key], present: Present, after: Present
) -> list[dict[str, Any]]:
    for key in gone_sets:
        del after.sets[key], after.elements[key]
    for key in gone_chains:
        del after.chains[key]
        after.hooks.pop(key, None)
    late: list[dict[str, Any]] = [{"flush": {"chain": _named(key)}} for key in sorted(gone_chains)]
    late += [
        {"flush": {"map" if present.sets[key].value else "set": _named(key)}} for key in sorted(gone_sets)
    ]
    late += [{"delete": {"chain": _named(key)}} for key in sorted(gone_chains)]
    late += [
        {"delete": {"map" if present.sets[key].value else "set": _named(key)}} for key in sorted(gone_sets)
    ]
    return late


def _set_commands(wanted: Wanted, present: Present, after: Present) -> list[dict[str, Any]]:
    commands = []
    for key, kind in wanted.sets.items():
        if kind is None or present.sets.get(key) == kind:
            continue
        if key in present.sets:
            raise DriverError(f"set {key[1]} of table {key[0]} {TABLE} has another type: remove the table")
        commands.append({"add": kind.declaration(key)})
        after.sets[key] = kind
        after.elements[key] = {}
    return commands


def _chain_commands(wanted: Wanted, present: Present, after: Present) -> list[dict[str, Any]]:
    heads: list[dict[str, Any]] = []
    bodies: list[dict[str, Any]] = []
    for key, chain in wanted.chains.items():
        if chain is None:
            continue
        comments = chain.comments
        wrong_hook = key in present.chains and present.hooks.get(key) != chain.hook
        if wrong_hook:
            heads.append({"flush": {"chain": _named(key)}})
            heads.append({"delete": {"chain": _named(key)}})
        if key not in present.chains or wrong_hook:
            heads.append({"add": {"chain": _named(key, **_hook(chain))}})
        elif present.chains[key] == comments:
            continue
        else:
            bodies.append({"flush": {"chain": _named(key)}})
        family, name = key
        bodies += [
            {
                "add": {
                    "rule": {
                        "family": family,
                        "table": TABLE,
                        "chain": name,
                        "comment": rule.comment,
                        "expr": list(rule.expressions),
                    }
                }
            }
            for rule in chain.rules
        ]
        after.chains[key] = comments
        if chain.hook:
            after.hooks[key] = chain.hook
    return heads + bodies


def _hook(chain: Chain) -> dict[str, Any]:
    if chain.hook is None:
        return {}
    kind, hook, priority = chain.hook
    return {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}


def _element_commands(
    wanted: Wanted, gone_sets: set[Key], after: Present
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(additions, removals); the removal of an element that changes its value comes first among the additions."""
    added: list[dict[str, Any]] = []
    removed: list[dict[str, Any]] = []
    for key, elements in wanted.elements.items():
        if key in gone_sets or key not in after.sets:
            continue
        kind, there = after.sets[key], after.elements[key]
        keep = {element: value for element, value in elements.items.items() if value is not GONE}
        gone = {element for element in elements.items.keys() - keep.keys() if element in there}
        if wanted.whole or elements.whole:
            gone |= there.keys() - keep.keys()
        changed = {e for e, value in keep.items() if e in there and there[e] != value}
        new = {e: value for e, value in keep.items() if e not in there or e in changed}
        if changed:
            added.append(_element_command("delete", key, {e: there[e] for e in changed}, kind))
        if gone:
            command = _element_command("delete", key, {e: there[e] for e in gone}, kind)
            # intervals may not overlap, not even for a moment
            (added if kind.interval else removed).append(command)
        if new:
            added.append(_element_command("add", key, new, kind))
        if changed or gone or new:
            after.elements[key] = {
                **{e: value for e, value in there.items() if e not in gone},
                **new,
            }
    return added, removed


def _element_command(verb: str, key: Key, items: Mapping[Element, Value], kind: Kind) -> dict[str, Any]:
    ordered = sorted(items.items(), key=lambda pair: str(pair[0]))
    return {verb: {"element": _named(key, elem=[_as_json(e, value, kind) for e, value in ordered])}}
