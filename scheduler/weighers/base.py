"""What a weigher is: a number per host, of which more is better once multiplied.

A pass takes the raw numbers of the hosts that passed all filters, brings them to 0..1 (least to
most; all 0 when they are equal), multiplies and adds up, as upstream does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from oslo_config import cfg
from oslo_log import log as logging

from scheduler.columns import FloatArray
from scheduler.filters.base import Watch
from scheduler.host_view import Hosts, HostView
from scheduler.request import PlacementRequest

LOG = logging.getLogger(__name__)


class Weigher:
    """Gives a raw number for each of many hosts at once.

    ``option`` names the multiplier: an option in ``[filter_scheduler]`` and the metadata key with
    which an aggregate overrides it for its hosts (the smallest value counts).  A class without such
    an option has the multiplier ``default_multiplier``.  ``watches`` and ``personal`` mean what they
    mean for filters.
    """

    option: ClassVar[str | None] = None
    default_multiplier: ClassVar[float] = 1.0
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
        """False when the weigher has nothing to say about this request."""
        return True

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        """The raw number of each host of the view, in its order (any unit; floats)."""
        raise NotImplementedError

    def multiplier(self) -> float:
        """The configured multiplier."""
        if self.option is not None and self.option in self.conf.filter_scheduler:
            return float(self.conf.filter_scheduler[self.option])
        return self.default_multiplier

    def signed(self, multiplier: float) -> float:
        """The multiplier as it is applied (BuildFailureWeigher turns it round)."""
        return multiplier

    def multipliers(self, hosts: Hosts) -> float | FloatArray:
        """One number when no aggregate overrides it, else one per host of the view."""
        default = self.multiplier()
        option = self.option
        if option is None or not any(option in item.metadata for item in hosts.table.aggregates.values()):
            return self.signed(default)

        def of_aggregates(ids: frozenset[int]) -> float:
            numbers = []
            for value in hosts.metadata(ids, option):
                try:
                    numbers.append(float(value))
                except ValueError:
                    LOG.warning("Aggregate metadata %s=%r is no number and is ignored", option, value)
            return self.signed(min(numbers, default=default))

        return hosts.aggregates.map(of_aggregates, np.float64)


class HostWeigher(Weigher):
    """A weigher that looks at hosts one by one."""

    watches = Watch.HOST

    def weigh(self, host: HostView, request: PlacementRequest) -> float:
        """The raw number of one host."""
        raise NotImplementedError

    def weights(self, hosts: Hosts, request: PlacementRequest) -> FloatArray:
        numbers: Any = (self.weigh(host, request) for host in hosts)
        return np.fromiter(numbers, dtype=np.float64, count=len(hosts))
