"""The machine that all APIs share: routing, versions, tokens, policy, schemas, faults."""

from __future__ import annotations

import types

import pytest
import webtest
from oslo_policy import policy as oslo_policy

from api.common import app as common_app
from api.common import validation as v
from api.common.microversions import VersionRange
from api.common.operations import Call, Controller, operation
from core import config
from core.policy import ADMIN, PROJECT_READER_OR_ADMIN, Policy
from tests.api.identity import authenticate

RULES = [
    oslo_policy.DocumentedRuleDefault(
        "things:read", PROJECT_READER_OR_ADMIN, "Read.", [{"path": "/things", "method": "GET"}]
    ),
    oslo_policy.DocumentedRuleDefault(
        "things:admin", ADMIN, "Make.", [{"path": "/things", "method": "POST"}]
    ),
]


class Things(Controller):
    @operation("GET", "/things/{thing_id}", policy="things:read")
    def show(self, call: Call) -> dict:
        """Show a thing."""
        return {"id": call.params["thing_id"], "by": call.context.user_id}

    @operation(
        "GET", "/things/detail", policy="things:read", query=v.query({"limit": v.LIMIT}, additional=False)
    )
    def detail(self, call: Call) -> dict:
        return {"things": [], "query": call.query}

    @operation("GET", "/new", policy="things:read", since="2.5", until="2.7")
    def new(self, call: Call) -> dict:
        return {"version": str(call.version)}

    @operation("POST", "/things", policy="things:admin", status=202, body=v.obj({"name": v.NAME}, ["name"]))
    def create(self, call: Call) -> dict:
        return call.body

    @operation(
        "POST",
        "/things/{thing_id}/action",
        policy="things:read",
        action="poke",
        status=202,
        body=v.obj({"poke": {"type": "null"}}, ["poke"]),
    )
    def poke(self, call: Call) -> None:
        """Poke it."""

    @operation(
        "POST", "/things/{thing_id}/action", policy="things:read", action="tickle", since="2.3", status=202
    )
    def tickle(self, call: Call) -> None:
        """Tickle it."""

    @operation("GET", "/broken", policy="things:read")
    def broken(self, call: Call) -> dict:
        raise RuntimeError("secret inside")


@pytest.fixture(scope="module")
def client() -> webtest.TestApp:
    services = types.SimpleNamespace(policy=Policy(config.load(), RULES), auth_uri="http://127.0.0.1:5000")
    api = common_app.Api(
        "things",
        services,
        [Things(services)],
        prefixes=("v2.1",),
        versions=VersionRange("compute", "2.1", "2.96", "X-OpenStack-Nova-API-Version"),
        project_prefix=True,
    )
    return webtest.TestApp(common_app.make_wsgi(api, authenticate))


READER = {"X-Auth-Token": "reader@p1"}
ADMINISTRATOR = {"X-Auth-Token": "admin@p1"}


def test_fixed_segments_win_over_parameters(client: webtest.TestApp) -> None:
    assert client.get("/v2.1/things/7", headers=READER).json == {"id": "7", "by": "reader-of-p1"}
    assert client.get("/v2.1/things/detail?limit=3", headers=READER).json["query"] == {"limit": ["3"]}


def test_project_in_the_path_is_optional_and_must_be_the_tokens(client: webtest.TestApp) -> None:
    assert client.get("/v2.1/p1/things/7", headers=READER).status_int == 200
    client.get("/v2.1/p2/things/7", headers=READER, status=400)


def test_without_token_401_says_where_to_get_one(client: webtest.TestApp) -> None:
    answer = client.get("/v2.1/things/7", status=401)
    assert answer.headers["WWW-Authenticate"] == "Keystone uri='http://127.0.0.1:5000'"
    assert answer.json["unauthorized"]["code"] == 401
    client.get("/v2.1/no/such/path", status=401)


def test_unknown_path_404_and_unknown_method_405(client: webtest.TestApp) -> None:
    assert "itemNotFound" in client.get("/v2.1/nothing", headers=READER, status=404).json
    answer = client.delete("/v2.1/things/7", headers=READER, status=405)
    assert answer.headers["Allow"] == "GET"


def test_microversions(client: webtest.TestApp) -> None:
    def get(version: str, status: int, header: str = "X-OpenStack-Nova-API-Version") -> webtest.TestResponse:
        return client.get("/v2.1/new", headers={**READER, header: version}, status=status)

    get("2.4", 404)
    assert get("2.6", 200).json == {"version": "2.6"}
    get("2.8", 404)
    assert get("2.100", 406).headers["OpenStack-API-Version"] == "compute 2.1"
    get("two", 400)
    assert get("latest", 404).headers["X-OpenStack-Nova-API-Version"] == "2.96"
    assert get("compute 2.6", 200, "OpenStack-API-Version").json == {"version": "2.6"}
    answer = client.get("/v2.1/things/1", headers=READER)
    assert answer.headers["OpenStack-API-Version"] == "compute 2.1"
    assert "OpenStack-API-Version" in answer.headers["Vary"]
    assert answer.headers["x-openstack-request-id"].startswith("req-")


def test_policy_and_schema(client: webtest.TestApp) -> None:
    client.post_json("/v2.1/things", {"name": "x"}, headers=READER, status=403)
    assert client.post_json("/v2.1/things", {"name": "x"}, headers=ADMINISTRATOR, status=202).json == {
        "name": "x"
    }
    answer = client.post_json("/v2.1/things", {"name": " x", "colour": 1}, headers=ADMINISTRATOR, status=400)
    assert "colour" in answer.json["badRequest"]["message"] or "name" in answer.json["badRequest"]["message"]
    client.post(
        "/v2.1/things", "{nonsense", headers=ADMINISTRATOR, content_type="application/json", status=400
    )
    client.post(
        "/v2.1/things",
        "a=b",
        headers=ADMINISTRATOR,
        content_type="application/x-www-form-urlencoded",
        status=415,
    )
    client.post("/v2.1/things", "", headers=ADMINISTRATOR, status=400)
    client.get("/v2.1/things/detail?colour=red", headers=READER, status=400)


def test_actions_are_chosen_by_the_bodys_key(client: webtest.TestApp) -> None:
    assert client.post_json("/v2.1/things/1/action", {"poke": None}, headers=READER, status=202).body == b""
    client.post_json("/v2.1/things/1/action", {"tickle": None}, headers=READER, status=404)
    client.post_json("/v2.1/things/1/action", {"kick": None}, headers=READER, status=400)
    client.post_json("/v2.1/things/1/action", {"poke": None, "tickle": None}, headers=READER, status=400)


def test_an_unexpected_error_says_nothing_of_its_inside(client: webtest.TestApp) -> None:
    answer = client.get("/v2.1/broken", headers=READER, status=500)
    assert "secret" not in answer.text
    assert answer.json["computeFault"]["code"] == 500


@pytest.mark.parametrize(
    "accept", ["application/json", "text/html,application/xml;q=0.9", "image/png", "nonsense"]
)
def test_any_accept_header_gets_json(client: webtest.TestApp, accept: str) -> None:
    answer = client.get("/v2.1/things/7", headers={**READER, "Accept": accept})
    assert answer.content_type == "application/json"


def test_what_no_database_can_hold_is_400(client: webtest.TestApp) -> None:
    client.get("/v2.1/things/7%00", headers=READER, status=400)
    client.get("/v2.1/things/7%ff", headers=READER, status=400)
    client.get("/v2.1/things/7?a=%00", headers=READER, status=400)
    client.get("/v2.1/things/7?a=%ff", headers=READER, status=400)
    for text in (r'"a\u0000b"', r'"a\\\u0000b"'):
        body = '{"name": ' + text + "}"
        client.post("/v2.1/things", body, headers=ADMINISTRATOR, content_type="application/json", status=400)
    # a backslash and the word u0000 are no NUL
    body = r'{"name": "a\\u0000b"}'
    answer = client.post("/v2.1/things", body, headers=ADMINISTRATOR, content_type="application/json")
    assert answer.status_int == 202
