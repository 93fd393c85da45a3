"""``make up`` in a fresh Debian 12: debootstrap's minimal root, a clone, and nothing else.

Everything happens in a mount and pid namespace of its own, so whatever make up
starts ends with it.  The root gets this machine's settings for apt and pip, so
that it works behind a mirror.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import packages
from tests.lab.install import FRESH

pytestmark = [pytest.mark.fresh, pytest.mark.timeout(3600)]
CHECKOUT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("inside.sh")
BASE = "ca-certificates,make,python3,python3-pip,python3-venv"
# the machine's own way to packages: files that a fresh root gets as they are here
MIRROR_FILES = (
    "/etc/pip.conf",
    "/etc/apt/apt.conf",
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A minimal Debian with a clone of this checkout in /haneul."""
    if os.geteuid() != 0:
        pytest.skip("a fresh Debian root can be made by root only")
    lacking = packages.missing(FRESH)
    if lacking:
        pytest.skip(f"missing: {' '.join(lacking)} ({packages.how_to_install(lacking)})")
    root = tmp_path_factory.mktemp("fresh") / "root"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={BASE}", "bookworm", root, _mirror()], check=True
    )
    _give_mirror(root)
    subprocess.run(["git", "clone", "--quiet", CHECKOUT, root / "haneul"], check=True)
    yield root
    shutil.rmtree(root)


def _mirror() -> str:
    """The Debian mirror that this machine uses."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(file.read_text() for file in sources if file.is_file())
    for word in text.split():
        if word.startswith("http") and word.rstrip("/").endswith("/debian"):
            return word
    return "http://deb.debian.org/debian"


def _give_mirror(root: Path) -> None:
    for name in MIRROR_FILES:
        source, target = Path(name), root / name.lstrip("/")
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
    settings = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True
    ).stdout
    chosen = [line for line in settings.splitlines() if "Proxy" in line or "CaInfo" in line]
    (root / "etc/apt/apt.conf.d/90machine").write_text("\n".join(chosen) + "\n")
    for line in Path("/etc/hosts").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            with (root / "etc/hosts").open("a") as hosts:
                hosts.write(f"{line}\n")


def _inside(root: Path, *arguments: str) -> str:
    """Run inside.sh in the root, in namespaces of its own; returns what it printed."""
    machine = {
        name: value for name, value in os.environ.items() if name in VARIABLES or name.startswith("PIP_")
    }
    environment = {
        **machine,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--", "bash", INSIDE, root, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_make_up_boots_a_server_and_goes_on_where_it_was(root: Path) -> None:
    output = _inside(root)
    assert "GUEST-READY" in output
    assert "The cloud is up" in output
    first, again = output.split("=== again")
    assert "first | ACTIVE" in first
    # the second run installs and makes nothing: it finds everything
    assert "(kept)" in again
    assert "apt-get install" not in again
    assert "The cloud is up" in again
