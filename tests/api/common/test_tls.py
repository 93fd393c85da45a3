"""An API served over TLS, by its options, as clients see it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from oslo_config import cfg

from api.common.server import ApiRole, server_opts
from core import config
from core.errors import Unavailable
from tests.lab.certificates import HOST, make_certificate
from tests.lab.processes import free_port


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Says over what it was asked, and gives the body back."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["wsgi.url_scheme"].encode() + b" " + body]


def make_role(certificate: Path | None, key: Path | None, threads: int = 2) -> tuple[ApiRole, str]:
    conf = config.load()
    port = free_port()

    def make_app(conf: cfg.ConfigOpts) -> Any:
        conf.register_opts(server_opts(port), group="test_api")
        config.override(conf, "test_api.threads", threads)
        config.override(conf, "test_api.ssl_certificate", certificate and str(certificate))
        config.override(conf, "test_api.ssl_key", key and str(key))
        return application

    return ApiRole("test", conf, "test_api", make_app), f"https://{HOST}:{port}/"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def url(certificate: tuple[Path, Path]) -> Iterator[str]:
    role, url = make_role(*certificate)
    role.start()
    yield url
    role.stop()


def test_clients_that_trust_the_certificate_are_served(url: str, certificate: tuple[Path, Path]) -> None:
    ca = str(certificate[0])
    with requests.Session() as session:
        for body in (b"one", b"x" * (1 << 20)):
            assert session.post(url, data=body, timeout=30, verify=ca).content == b"https " + body


def test_others_do_not_trust_it(url: str) -> None:
    with pytest.raises(requests.exceptions.SSLError, match="certificate verify failed"):
        requests.get(url, timeout=30, verify=True)


def test_plain_http_is_told_what_is_wrong(url: str) -> None:
    answer = requests.get(url.replace("https", "http"), timeout=30)
    assert (answer.status_code, answer.text) == (400, "This server speaks HTTPS only on this port.\n")


def test_old_protocols_are_refused(url: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    port = int(url.rpartition(":")[2].rstrip("/"))
    with socket.create_connection((HOST, port), 30) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain)


def test_a_client_that_never_shakes_hands_keeps_nobody_out(url: str, certificate: tuple[Path, Path]) -> None:
    port = int(url.rpartition(":")[2].rstrip("/"))
    with socket.create_connection((HOST, port)):
        answer = requests.get(url, timeout=5, verify=str(certificate[0]))
    assert answer.text == "https "


def test_key_and_certificate_in_one_file(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificate[1].read_bytes() + certificate[0].read_bytes())
    role, url = make_role(both, None)
    role.start()
    try:
        assert requests.get(url, timeout=30, verify=str(certificate[0])).text == "https "
    finally:
        role.stop()


def test_files_that_are_missing_or_do_not_fit_are_said_in_one_line(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    other = make_certificate(tmp_path)
    for files in ((tmp_path / "none.crt", None), (certificate[0], other[1])):
        role, _url = make_role(*files)
        with pytest.raises(Unavailable, match="TLS can't be served with .*") as error:
            role.start()
        assert "\n" not in error.value.message
