"""Images for POST /servers: the asker's token, kept for seconds, failures told apart."""

from __future__ import annotations

from typing import Any

import pytest
from keystoneauth1 import exceptions as ks_exc

from api.compute import image_client
from api.compute.image_client import ImageClient, properties_of
from core import config
from core.context import RequestContext
from core.errors import NotFound, Unavailable
from tests.api.compute.fakes import IMAGE, Answer, image


class Adapter:
    """keystoneauth's adapter: gives ``answer`` and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = Answer(200, image())
        self.asked: list[tuple[str, str]] = []

    def request(self, path: str, _method: str, headers: dict[str, str], **_options: Any) -> Any:
        self.asked.append((path, headers["X-Auth-Token"]))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Adapter:
    made = Adapter()
    monkeypatch.setattr(image_client, "service_adapter", lambda _conf, _service: made)
    return made


def asker(project: str) -> RequestContext:
    return RequestContext(project_id=project, auth_token=f"token-{project}", overwrite=False)


def test_an_active_image_is_kept_for_a_while_per_project(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(image_client.time, "monotonic", lambda: clock[0])
    client = ImageClient(config.load())
    for _ in range(3):
        assert client.recent(asker("p1"), IMAGE)["id"] == IMAGE
    client.recent(asker("p2"), IMAGE)
    assert adapter.asked == [(f"/v2/images/{IMAGE}", "token-p1"), (f"/v2/images/{IMAGE}", "token-p2")]
    clock[0] += 60
    client.recent(asker("p1"), IMAGE)
    assert len(adapter.asked) == 3


def test_what_may_change_is_asked_for_again(adapter: Adapter) -> None:
    adapter.answer = Answer(200, image(status="saving"))
    client = ImageClient(config.load())
    client.recent(asker("p1"), IMAGE)
    adapter.answer = Answer(200, image())
    assert client.recent(asker("p1"), IMAGE)["status"] == "active"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), NotFound),
        (Answer(403), NotFound),
        (Answer(500), Unavailable),
        (ks_exc.ConnectFailure("refused"), Unavailable),
        (ks_exc.EndpointNotFound("none"), Unavailable),
    ],
)
def test_failures(adapter: Adapter, answer: Any, error: type[Exception]) -> None:
    adapter.answer = answer
    with pytest.raises(error):
        ImageClient(config.load()).recent(asker("p1"), IMAGE)


def test_properties_are_what_not_every_image_has() -> None:
    assert properties_of(image(os_distro="debian", nothing=None)) == {
        "hw_machine_type": "q35",
        "os_distro": "debian",
    }
