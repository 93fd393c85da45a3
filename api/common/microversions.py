"""Microversions: one machine for all APIs (API-WG guideline on microversions).

A request names a version by ``OpenStack-API-Version: SERVICE X.Y`` or by the
service's legacy header; none means the minimum, ``latest`` the maximum.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import webob

from core.errors import BadRequest, HaneulError

_PATTERN = re.compile(r"^([1-9]\d*)\.([1-9]\d*|0)$")


class NotAcceptable(HaneulError):
    """The version is well-formed, but outside of what is served."""

    code = "haneul.microversion"
    http_status = 406


class Microversion(NamedTuple):
    """Compares as numbers: 2.9 < 2.10."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> Microversion:
        match = _PATTERN.match(text)
        if match is None:
            raise BadRequest(
                f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            )
        return cls(int(match[1]), int(match[2]))


class VersionRange:
    """What one API serves, and under which header names."""

    def __init__(self, service: str, minimum: str, maximum: str, legacy_header: str | None = None) -> None:
        self.service = service
        self.minimum = Microversion.parse(minimum)
        self.maximum = Microversion.parse(maximum)
        self.legacy_header = legacy_header

    def select(self, request: webob.Request) -> Microversion:
        """The version that a request asks for.

        :raises BadRequest: malformed. :raises NotAcceptable: outside the range.
        """
        text = self._asked(request)
        if text is None:
            return self.minimum
        if text == "latest":
            return self.maximum
        version = Microversion.parse(text)
        if not self.minimum <= version <= self.maximum:
            raise NotAcceptable(
                f"Version {version} is not supported by the API. Minimum is {self.minimum} and maximum is"
                f" {self.maximum}."
            )
        return version

    def _asked(self, request: webob.Request) -> str | None:
        header = request.headers.get("OpenStack-API-Version", "")
        for part in header.split(","):
            words = part.split()
            if len(words) == 2 and words[0].lower() == self.service:
                return words[1].lower()
            if len(words) == 1 and len(header.split(",")) == 1 and words[0]:
                # "OpenStack-API-Version: 2.1" names no service: not ours to read
                break
        if self.legacy_header and (text := request.headers.get(self.legacy_header)):
            return text.strip().lower()
        return None

    def headers(self, version: Microversion) -> dict[str, str]:
        """What every answer carries."""
        result = {"OpenStack-API-Version": f"{self.service} {version}", "Vary": "OpenStack-API-Version"}
        if self.legacy_header:
            result[self.legacy_header] = str(version)
            result["Vary"] += f", {self.legacy_header}"
        return result
