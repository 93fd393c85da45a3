"""What vouches for a guest between the metadata proxy on its host and the metadata service.

The proxy knows which port a request came from; it signs the server's id with a secret that both
share (HMAC-SHA256, as upstream's agent does, so either side may be upstream's).
"""

from __future__ import annotations

import hashlib
import hmac

from oslo_config import cfg

GROUP = "metadata"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "shared_secret",
        default="",
        secret=True,
        help="The secret that metadata proxies sign with; the same for all hosts and the metadata service."
        " Without one no request is passed on or answered.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def signature(secret: str, server_id: str) -> str:
    """The value of X-Instance-ID-Signature."""
    return hmac.new(secret.encode(), server_id.encode(), hashlib.sha256).hexdigest()


def vouched(secret: str, server_id: str, claimed: str) -> bool:
    """Is this the signature of somebody who knows the secret? Never with an empty one."""
    return bool(secret) and hmac.compare_digest(signature(secret, server_id), claimed)
