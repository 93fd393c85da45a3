"""The embedded Keystone: made once, served, kept alive, ended with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from keystoneauth1 import exceptions as ks_exc
from keystoneauth1 import session as ks_session
from keystoneauth1.identity import v3
from oslo_config import cfg

from cli import identity, plan
from core import config
from core.errors import Unavailable
from tests.lab.processes import alive, free_port, listens


def make_conf(folder: Path, port: int) -> cfg.ConfigOpts:
    conf = config.load()
    conf.register_opts(identity.OPTS, group="identity")
    conf.set_override("folder", str(folder), "identity")
    conf.set_override("port", port, "identity")
    return conf


def make_plan(url: str, compute: str = "http://127.0.0.1:8774/v2.1") -> plan.Plan:
    return plan.Plan(
        url=url,
        region="RegionOne",
        admin_password="admin-password",
        projects=("service", "demo"),
        users=(
            plan.User("nova", "nova-password", {"service": ("service",)}),
            plan.User("demo", "demo-password", {"demo": ("member",)}),
        ),
        endpoints=(plan.Endpoint("nova", "compute", compute),),
    )


def login(url: str, user: str, project: str) -> ks_session.Session:
    auth = v3.Password(
        auth_url=url,
        username=user,
        password=f"{user}-password",
        project_name=project,
        user_domain_id="default",
        project_domain_id="default",
    )
    return ks_session.Session(auth=auth)


# one Keystone for the file, which takes seconds to come up
pytestmark = pytest.mark.xdist_group("identity")


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Iterator[identity.IdentityRole]:
    conf = make_conf(tmp_path_factory.mktemp("state") / "identity", free_port())
    role = identity.IdentityRole(conf, make_plan(identity.identity_url(conf)))
    role.start()
    role.wait()
    yield role
    role.stop()
    assert not listens(conf.identity.port)


@pytest.fixture
def url(role: identity.IdentityRole) -> str:
    return identity.identity_url(role._conf)


def test_version_documents_need_no_token(url: str) -> None:
    assert requests.get(url, timeout=10).json()["version"]["id"].startswith("v3.")
    assert requests.get(url.removesuffix("/v3"), timeout=10).status_code == 300


def test_a_member_gets_a_token_with_the_catalog(url: str) -> None:
    session = login(url, "demo", "demo")
    access = session.auth.get_access(session)
    assert set(access.role_names) == {"member", "reader"}
    assert session.get_endpoint(service_type="compute") == "http://127.0.0.1:8774/v2.1"


def test_a_service_user_may_validate_tokens_and_a_member_may_not(url: str) -> None:
    token = login(url, "demo", "demo").get_token()
    headers = {"X-Subject-Token": token}
    service = login(url, "nova", "service")
    answer = service.get(f"{url}/auth/tokens", headers=headers).json()
    assert answer["token"]["user"]["name"] == "demo"
    other = login(url, "nova", "service").get_token()
    with pytest.raises(ks_exc.Forbidden):
        login(url, "demo", "demo").get(f"{url}/auth/tokens", headers={"X-Subject-Token": other})


def test_every_persona_is_there(url: str) -> None:
    roles = login(url, "admin", "admin").get(f"{url}/roles").json()["roles"]
    assert {"admin", "manager", "member", "reader", "service"} <= {role["name"] for role in roles}


def test_a_wrong_password_is_refused(url: str) -> None:
    auth = v3.Password(auth_url=url, username="admin", password="x", user_domain_id="default")
    with pytest.raises(ks_exc.Unauthorized):
        ks_session.Session(auth=auth).get_token()


def test_secrets_are_readable_by_the_owner_only(role: identity.IdentityRole) -> None:
    folder = Path(role._conf.identity.folder)
    for path in [folder / "keystone.conf", *folder.glob("fernet/*"), *folder.glob("credential/*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_killed_child_comes_back_and_tokens_stay_valid(role: identity.IdentityRole, url: str) -> None:
    session = login(url, "demo", "demo")
    session.get_token()
    killed = role.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while role.pid == killed or not listens(role._conf.identity.port):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert session.get(f"{url}/auth/projects").json()["projects"][0]["name"] == "demo"


def test_a_changed_plan_is_carried_out_at_the_next_start(tmp_path: Path) -> None:
    conf = make_conf(tmp_path / "identity", free_port())
    url = identity.identity_url(conf)
    moved = "http://127.0.0.1:9999/v2.1"
    for wanted in (make_plan(url), make_plan(url, compute=moved)):
        role = identity.IdentityRole(conf, wanted)
        role.start()
        role.wait()
        try:
            session = login(url, "demo", "demo")
            assert session.get_endpoint(service_type="compute") == wanted.endpoints[0].url
            services = login(url, "admin", "admin").get(f"{url}/services").json()["services"]
            assert sorted(row["type"] for row in services) == ["compute", "identity"]
        finally:
            role.stop()


def test_a_taken_port_is_named(role: identity.IdentityRole, tmp_path: Path) -> None:
    conf = make_conf(tmp_path / "identity", role._conf.identity.port)
    with pytest.raises(Unavailable, match=f"port {conf.identity.port} is taken"):
        identity.IdentityRole(conf, make_plan("http://unused/v3")).start()


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.cli.test_identity import identity, make_conf, make_plan\n"
        f"conf = make_conf(Path({str(tmp_path)!r}) / 'identity', {port})\n"
        "role = identity.IdentityRole(conf, make_plan(identity.identity_url(conf)))\n"
        "role.start(); role.wait(); print(role.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while alive(child):
        assert time.monotonic() < deadline, "the orphan goes on"
        time.sleep(0.05)
