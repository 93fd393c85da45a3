"""What one project has does not exist for another: every declared operation, asked by a stranger.

Operations whose path names something of project p1 are asked by a member of p2, with a body that
the schema takes: 404.  403 passes where p1's own members get 403, too: such calls are for
administrators, and upstream asks the policy before it looks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import webtest

from api.common.app import Api
from api.common.microversions import Microversion
from api.common.operations import Operation
from core.context import RequestContext
from tests.api.client import MEMBER, OTHER
from tests.api.common.bad_input import Maker
from tests.api.identity import IMPLIED

Headers = Callable[[Microversion | None], dict[str, str]]


def check(
    app: webtest.TestApp,
    api: Api,
    prefix: str,
    path_of: Callable[[Operation], str | None],
    headers: Headers = lambda _: {},
    latest: str | None = None,
    unlike: Mapping[str, Collection[int]] | None = None,
    bodies: Mapping[str, Any] | None = None,
) -> None:
    """Ask them all. ``path_of``: an operation's path with p1's things in it, None if it names none.

    ``unlike``: {"METHOD /path [action]": answers that are right there}; ``bodies``: where the
    schema's shortest is not good enough.
    """
    bodies = bodies or {}
    unlike, wrong, asked = unlike or {}, [], 0
    owner = RequestContext(user_id="member-of-p1", project_id="p1", roles=IMPLIED["member"], overwrite=False)
    for found in api.operations:
        path = path_of(found)
        if path is None or found.status == 410:
            continue
        name = " ".join(filter(None, (found.method, found.path, found.action)))
        top = Microversion.parse(latest) if latest else None
        version = min((each for each in (found.max_version, top) if each), default=None)
        body = _body(found, version, bodies.get(name))
        if found.method == "GET":
            # what is not there for its owner proves nothing
            seen = _ask(app, found, prefix + path, {**headers(version), "X-Auth-Token": "admin@p1"}, body)
            if seen.status_int == 404:
                wrong.append(f"{name} ({path}) is not there for its own administrator: {seen.text[:200]}")
        answer = _ask(app, found, prefix + path, {**headers(version), "X-Auth-Token": OTHER}, body)
        right = set(unlike.get(name, {404}))
        if not api.services.policy.allowed(owner, found.policy, _OWNERS):
            right.add(403)
        asked += 1
        if answer.status_int not in right:
            wrong.append(f"{name} ({path}): {answer.status} {answer.text[:200]}")
    assert not wrong, f"{len(wrong)} of {asked} for {OTHER}, who is no {MEMBER}:\n" + "\n".join(wrong)
    assert asked


_OWNERS = {"project_id": "p1", "tenant_id": "p1", "user_id": "member-of-p1", "owner": "p1"}


def _body(found: Operation, version: Microversion | None, given: Any) -> bytes:
    if given is not None:
        return json.dumps(given).encode()
    if found.body:
        schema = found.schema("body", version) if version is not None else found.body[-1][1]
        assert schema is not None
        return json.dumps(Maker(schema).example(schema)).encode()
    if found.raw_body and found.method in ("PUT", "POST"):
        return b"x"
    return json.dumps({found.action: None}).encode() if found.action else b""


def _ask(
    app: webtest.TestApp, found: Operation, path: str, headers: dict[str, str], body: bytes
) -> webtest.TestResponse:
    headers = {"Content-Type": found.media_types[0], **headers}
    return app.request(path, method=found.method, body=body, headers=headers, status="*")
