"""What a filter is: vectorised (``Filter.mask``) or host by host (``HostFilter.passes``).

A pass evaluates a filter over all hosts once per kind of request and then, after each placement,
only where its answer may have changed.  ``watches`` says where that is.  Out-of-tree classes that
say nothing get the safe answer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from oslo_config import cfg

from scheduler.columns import BoolArray
from scheduler.host_view import Hosts, HostView
from scheduler.request import PlacementRequest


class Watch(enum.IntEnum):
    """What a placement on one host may change in the answer of a filter or weigher."""

    NOTHING = 0  # it reads nothing that a placement changes
    HOST = 1  # the answer for that host
    ALL = 2  # the answer for any host


class Filter:
    """Answers for many hosts at once which of them may take a request.

    ``personal``: whether the answer may depend on the request's project or user; requests that
    differ only there share their answers when no loaded filter or weigher is personal.
    """

    watches: ClassVar[Watch] = Watch.ALL
    personal: ClassVar[bool] = True

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @property
    def name(self) -> str:
        return type(self).__name__

    def watch(self, request: PlacementRequest) -> Watch:
        """What must be asked again after a placement while serving ``request``."""
        return self.watches

    def applies(self, request: PlacementRequest) -> bool:
        """False when the filter lets every host pass for this request; it is not asked then."""
        return True

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        """True where a host passes; one entry per host of the view, in its order."""
        raise NotImplementedError

    def reason(self, request: PlacementRequest) -> str:
        """Why hosts are removed, as it goes after a number: '4 *disabled or down*'. No host names."""
        return "refused"

    def reasons(self, rejected: Hosts, request: PlacementRequest) -> Iterator[tuple[str, BoolArray]]:
        """Reasons with the removed hosts that each fits; by default one reason for all.

        A host counts for the first reason that fits it; hosts left over count for ``reason``.
        """
        yield self.reason(request), np.ones(len(rejected), dtype=bool)


class HostFilter(Filter):
    """A filter that looks at hosts one by one; slower (a Python call per host)."""

    watches = Watch.HOST

    def passes(self, host: HostView, request: PlacementRequest) -> bool:
        """Whether this host may take the request."""
        raise NotImplementedError

    def mask(self, hosts: Hosts, request: PlacementRequest) -> BoolArray:
        answers: Any = (bool(self.passes(host, request)) for host in hosts)
        return np.fromiter(answers, dtype=bool, count=len(hosts))
