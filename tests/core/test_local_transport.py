"""The in-process transport behaves like a broker: queues, round robin, fanout, no lost wake-up."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import oslo_messaging
import pytest

from core import config
from core.context import RequestContext
from core.messaging import Messaging
from tests.stack.cloud import wait_for

CONTEXT = RequestContext(user_id="u", project_id="p", request_id="req-7", overwrite=False)


class Listener:
    target = oslo_messaging.Target(version="1.0")

    def __init__(self) -> None:
        self.heard: list[tuple[str | None, int]] = []

    @oslo_messaging.rpc.expose
    def note(self, context: RequestContext, number: int) -> None:
        self.heard.append((context.request_id, number))

    @oslo_messaging.rpc.expose
    def double(self, context: RequestContext, number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    def hidden(self, context: RequestContext) -> str:
        return "not exposed"


@pytest.fixture
def messaging() -> Iterator[Messaging]:
    conf = config.load()
    transport = Messaging(conf, f"local:///{uuid.uuid4().hex}")
    yield transport
    transport.close()


def test_call_and_cast_carry_the_context(messaging: Messaging) -> None:
    listener = Listener()
    server = messaging.server("topic", "here", [listener])
    server.start()
    client = messaging.client("topic", 5)
    assert client.call(CONTEXT, "double", number=21) == 42
    client.cast(CONTEXT, "note", number=1)
    client.prepare(server="here").cast(CONTEXT, "note", number=2)
    wait_for(lambda: len(listener.heard) == 2, "both casts")
    assert sorted(listener.heard) == [("req-7", 1), ("req-7", 2)]
    with pytest.raises(ValueError):
        client.call(CONTEXT, "double", number=-1)
    with pytest.raises(Exception, match="hidden"):
        client.call(CONTEXT, "hidden")
    server.stop()
    server.wait()


def test_messages_wait_for_a_listener(messaging: Messaging) -> None:
    client = messaging.client("topic", 5)
    for number in range(3):
        client.prepare(server="later").cast(CONTEXT, "note", number=number)
    listener = Listener()
    server = messaging.server("topic", "later", [listener])
    server.start()
    wait_for(lambda: len(listener.heard) == 3, "what was sent before")
    server.stop()
    server.wait()


def test_two_servers_share_a_topic_and_both_hear_a_fanout(messaging: Messaging) -> None:
    listeners = [Listener(), Listener()]
    servers = [messaging.server("topic", f"s{n}", [listener]) for n, listener in enumerate(listeners)]
    for server in servers:
        server.start()
    client = messaging.client("topic", 5)
    threads = [
        threading.Thread(target=client.cast, args=(CONTEXT, "note"), kwargs={"number": n}) for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for(lambda: sum(len(listener.heard) for listener in listeners) == 50, "each message once")
    client.prepare(fanout=True).cast(CONTEXT, "note", number=99)
    wait_for(lambda: all(("req-7", 99) in listener.heard for listener in listeners), "fanout")
    for server in servers:
        server.stop()
        server.wait()


def test_brokers_of_different_names_do_not_hear_each_other() -> None:
    conf = config.load()
    one, other = Messaging(conf, "local:///one"), Messaging(conf, "local:///other")
    listener = Listener()
    server = one.server("topic", "s", [listener])
    server.start()
    other.client("topic").cast(CONTEXT, "note", number=1)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        other.client("topic", 0.3).call(CONTEXT, "double", number=1)
    assert listener.heard == []
    server.stop()
    server.wait()
    one.close()
    other.close()
