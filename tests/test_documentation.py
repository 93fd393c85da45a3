"""The pages of doc/ hang together: every link leads somewhere, and the index names every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "doc").glob("*.md"))]


def links(page: Path) -> list[str]:
    """What a page refers to within this tree."""
    text = re.sub(r"(?s)```.*?```", "", page.read_text())
    found = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    return [target for target in found if target and not target.startswith(("http:", "https:"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths of this tree in code marks: `db/sessions.py`, `tests/crash/`."""
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"volume", "baremetal"}
    named = re.findall(r"`([a-z_]+/[\w./-]*[\w/])`", page.read_text())
    ours = [name for name in named if name.partition("/")[0] in folders and "…" not in name]
    missing = [name for name in ours if not (ROOT / name).exists()]
    assert missing == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "doc" / "index.md"
    named = {(index.parent / target).resolve() for target in links(index)}
    assert set(PAGES) - {index} - named == set()
