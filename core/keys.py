"""Keys of encrypted volumes, at whatever speaks Barbican's v1 API: Barbican, or haneul's own key manager.

Keys are made and read with haneul's service user, so they belong to the services' project: no token
of a user is kept for later, whoever deletes a volume, its key goes with it, and no project reads a key
of another's volume. A key is *named* after what it opens (``volume-ID``, ``backup-ID``, ``image-ID``):
making one again finds the first, so a repeat after a crash makes no second one.

What is stored are 32 random bytes, as upstream stores them; the passphrase of LUKS is their hexadecimal
form, as upstream's, too. A passphrase is never logged, and stands in no message and no intent.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from keystoneauth1 import exceptions as ks_exc
from keystoneauth1.adapter import Adapter
from oslo_config import cfg

from core.clients import service_adapter
from core.errors import NotFound, Unavailable

SERVICE = "key-manager"
_BYTES = 32
_PAGE = 100
_TIMEOUT_S = 60


def name_of_volume(volume_id: str) -> str:
    return f"volume-{volume_id}"


def name_of_backup(backup_id: str) -> str:
    return f"backup-{backup_id}"


def name_of_image(image_id: str) -> str:
    return f"image-{image_id}"


class KeyManager:
    """:raises Unavailable: (every method) the key manager does not answer, or refuses haneul's user."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._adapter: Adapter | None = None

    def create(self, name: str) -> str:
        """The id of the key of this name, made unless there is one."""
        return self.find(name) or self._store(name, os.urandom(_BYTES))

    def copy(self, key_id: str, name: str) -> str:
        """The id of a key of this name with what ``key_id`` holds; made unless there is one.

        :raises NotFound: there is no key of this id.
        """
        return self.find(name) or self._store(name, self._content(key_id))

    def passphrase(self, key_id: str) -> str:
        """What opens a LUKS volume. Keep it in memory only. :raises NotFound: there is no such key."""
        return self._content(key_id).hex()

    def name(self, key_id: str) -> str:
        """What the key was named. :raises NotFound: there is no such key."""
        answer = self._call("GET", f"/secrets/{key_id}", what=f"Key {key_id}")
        return str(answer.json().get("name"))

    def certificate(self, key_id: str, token: str) -> bytes:
        """The content of a certificate that the owner of ``token`` may read.

        :raises NotFound: there is none of this id, or not for them.
        """
        headers = {
            "Accept": "application/octet-stream, application/pkix-cert, text/plain",
            "X-Auth-Token": token,
        }
        answer = self._call(
            "GET",
            f"/secrets/{quote(key_id, safe='')}/payload",
            allowed=(200, 400, 401, 403, 404, 406),
            headers=headers,
            authenticated=False,
        )
        if answer.status_code != 200:
            raise NotFound(f"Certificate {key_id} could not be read at the key manager.")
        return bytes(answer.content)

    def find(self, name: str) -> str | None:
        """The id of the key of this name; of several the first that was made."""
        found = self._named(name)
        return found[0] if found else None

    def delete(self, name: str) -> None:
        """No key of this name is left."""
        for key_id in self._named(name):
            self._call("DELETE", f"/secrets/{key_id}", allowed=(204, 404))

    # -- the wire ------------------------------------------------------------------

    def _named(self, name: str) -> list[str]:
        answer = self._call("GET", "/secrets", params={"name": name, "limit": _PAGE})
        rows = [row for row in answer.json()["secrets"] if row.get("name") == name]
        rows.sort(key=lambda row: (str(row.get("created")), row["secret_ref"]))
        return [str(row["secret_ref"]).rstrip("/").rpartition("/")[2] for row in rows]

    def _store(self, name: str, content: bytes) -> str:
        body = {
            "name": name,
            "secret_type": "symmetric",
            "algorithm": "aes",
            "bit_length": 8 * len(content),
            "payload": base64.b64encode(content).decode(),
            "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
        }
        answer = self._call("POST", "/secrets", json=body, allowed=(201,))
        return str(answer.json()["secret_ref"]).rstrip("/").rpartition("/")[2]

    def _content(self, key_id: str) -> bytes:
        headers = {"Accept": "application/octet-stream"}
        answer = self._call("GET", f"/secrets/{key_id}/payload", headers=headers, what=f"Key {key_id}")
        return bytes(answer.content)

    def _call(
        self,
        method: str,
        path: str,
        *,
        allowed: tuple[int, ...] = (200,),
        what: str | None = None,
        **options: Any,
    ) -> Any:
        """``log=False``: keystoneauth would write bodies into its debug log."""
        if self._adapter is None:  # one session, so that its token serves for many calls
            self._adapter = service_adapter(self._conf, SERVICE)
        headers: Mapping[str, str] = {"Accept": "application/json", **options.pop("headers", {})}
        try:
            # a catalog names the version, or leaves it to the client
            base = str(self._adapter.get_endpoint() or "").rstrip("/")
            url = path if base.endswith("/v1") else f"/v1{path}"
            answer = self._adapter.request(
                url,
                method,
                raise_exc=False,
                log=False,
                headers=dict(headers),
                timeout=_TIMEOUT_S,
                **options,
            )
        except (ks_exc.ClientException, OSError) as error:
            raise Unavailable("The key manager can't be reached.", cause=type(error).__name__) from error
        if answer.status_code in allowed:
            return answer
        if answer.status_code == 404 and what is not None:
            raise NotFound(f"{what} could not be found at the key manager.")
        raise Unavailable(f"The key manager refuses {method} {path.split('?')[0]} ({answer.status_code}).")
