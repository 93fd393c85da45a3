"""Keys of images that encrypted volumes were uploaded to: they go with the image, when that says so, and only its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.image.services import ImageServices
from core.errors import Unavailable
from core.keys import KeyManager, name_of_image
from tests.api.image.conftest import Api
from tests.api.key_manager.conftest import client_of, make_services


@pytest.fixture
def keys(services: ImageServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyManager:
    """The key manager that the image service speaks with."""
    made = make_services(f"sqlite:///{tmp_path}/keys.sqlite", tmp_path / "secrets.keys")
    return client_of(made, monkeypatch)


def encrypted(api: Api, keys: KeyManager, policy: str, *, key: str | None = None) -> str:
    """An image that names its key, as the volume worker leaves it."""
    image_id = str(api.image()["id"])
    properties = {
        "cinder_encryption_key_id": key or keys.create(name_of_image(image_id)),
        "cinder_encryption_key_deletion_policy": policy,
    }
    api.patch(
        image_id, [{"op": "add", "path": f"/{name}", "value": value} for name, value in properties.items()]
    )
    return image_id


def test_the_key_goes_with_the_image(api: Api, keys: KeyManager) -> None:
    image_id, other = encrypted(api, keys, "on_image_deletion"), encrypted(api, keys, "on_image_deletion")
    api.delete(f"/images/{image_id}", status=204)
    assert keys.find(name_of_image(image_id)) is None
    assert keys.find(name_of_image(other))


def test_it_stays_when_the_image_says_so(api: Api, keys: KeyManager) -> None:
    image_id = encrypted(api, keys, "do_not_delete")
    api.delete(f"/images/{image_id}", status=204)
    assert keys.find(name_of_image(image_id))


def test_no_image_takes_the_key_of_something_else_along(api: Api, keys: KeyManager) -> None:
    key = keys.create("volume-of-somebody")
    image_id = encrypted(api, keys, "on_image_deletion", key=key)
    api.delete(f"/images/{image_id}", status=204)
    assert keys.find("volume-of-somebody") == key


def test_the_janitor_does_what_could_not_be_done_at_once(
    api: Api, services: ImageServices, keys: KeyManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_id = encrypted(api, keys, "on_image_deletion")

    def refuse(*_: object) -> None:
        raise Unavailable("The key manager can't be reached.")

    with monkeypatch.context() as away:
        away.setattr(KeyManager, "delete", refuse)
        api.delete(f"/images/{image_id}", status=204)
        with pytest.raises(Unavailable):
            services.data.sweep()
    assert keys.find(name_of_image(image_id))
    assert services.data.sweep() == 1
    assert keys.find(name_of_image(image_id)) is None
    assert services.data.sweep() == 0
