"""Processes below one process, and the memory that is theirs."""

from __future__ import annotations

from pathlib import Path


def children(pid: int) -> list[int]:
    """All processes below ``pid``, itself first."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += children(int(child))
    except OSError:
        return found  # it ended meanwhile
    return found


def memory(pid: int) -> dict[str, float]:
    """Proportional set size in MiB of every process below ``pid``: shared pages count once in the sum."""
    sizes: dict[str, float] = {}
    for process in children(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile
        size = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
        name = "identity" if b"cli.keystone_wsgi" in command else "services"
        sizes[name] = sizes.get(name, 0.0) + size
    return sizes
