"""What the image role will verify an image's data with, fetched while the asker's token is at hand."""

from __future__ import annotations

import base64
from typing import Any

from api.common.operations import Call
from api.image.common import find, permit
from image.signatures import NAMES, Verifier


def signature_of(call: Call) -> dict[str, Any] | None:
    """{"properties": of the signature, "certificate": base64}; None for an image that is not signed.

    :raises NotFound: no such image. :raises Forbidden: the asker may not change it.
    :raises SignatureMismatch: it can't be verified.
    """
    with call.services.databases.global_.read() as connection:
        image = find(call, connection)
    permit(call, image)
    found = call.services.data.certificate(image, call.context.auth_token or "")
    if found is None:
        return None
    properties = {name: image["properties"][name] for name in NAMES}
    Verifier(properties, found)  # what can't be verified is refused now
    return {"properties": properties, "certificate": base64.b64encode(found).decode()}
