"""Messaging: oslo.messaging's RPC with our context and defaults.

``transport_url = rabbit://…`` between processes; ``local://`` (see
``core.local_transport``) inside one.  Clients for what each role hears live in
``lifecycle.rpc``; this module only makes transports, clients and servers.
"""

from __future__ import annotations

import importlib
from typing import Any

import oslo_messaging
from oslo_config import cfg

from core import backend
from core.context import RequestContext

EXCHANGE = "haneul"
_THREADS = 16


class ContextSerializer(oslo_messaging.NoOpSerializer):
    """Carries the request context as its dictionary."""

    def serialize_context(self, ctxt: Any) -> dict[str, Any]:
        return ctxt.to_dict() if isinstance(ctxt, RequestContext) else dict(ctxt or {})

    def deserialize_context(self, ctxt: dict[str, Any]) -> RequestContext:
        return RequestContext.from_dict(ctxt)


def _register_library_options(conf: cfg.ConfigOpts) -> None:
    """oslo.messaging registers its tracing and metrics options on the global CONF only, and reads ours."""
    for module, group in (("_tracing", "oslo_messaging_tracing"), ("_metrics", "oslo_messaging_metrics")):
        try:
            client = importlib.import_module(f"oslo_messaging.{module}.client")
        except ImportError:  # an older release without it
            continue
        conf.register_opts(getattr(client, group), group=group)


class Messaging:
    """One transport: a cell's broker, or the global one."""

    def __init__(self, conf: cfg.ConfigOpts, url: str | None = None) -> None:
        self.conf = conf
        oslo_messaging.set_transport_defaults(EXCHANGE)
        _register_library_options(conf)
        self.transport = oslo_messaging.get_rpc_transport(
            conf, url=url, allowed_remote_exmods=["core.errors"]
        )
        self._serializer = ContextSerializer()

    def client(self, topic: str, timeout_s: float | None = None) -> Any:
        """An RPC client for ``topic``; prepare(server=…) addresses one host."""
        return oslo_messaging.get_rpc_client(
            self.transport,
            oslo_messaging.Target(topic=topic, version="1.0"),
            timeout=timeout_s,
            serializer=self._serializer,
        )

    def server(self, topic: str, host: str, endpoints: list[Any]) -> Any:
        """An RPC server that hears ``topic`` and ``topic.host``; start() and stop() it."""
        server = oslo_messaging.get_rpc_server(
            self.transport,
            oslo_messaging.Target(topic=topic, server=host, version="1.0"),
            endpoints,
            executor=backend.executor(),
            serializer=self._serializer,
            access_policy=oslo_messaging.ExplicitRPCAccessPolicy,
        )
        # what is heard is short: the library's 64 threads per listener would only cost memory
        self.conf.set_default("executor_thread_pool_size", _THREADS)
        return server

    def close(self) -> None:
        self.transport.cleanup()
