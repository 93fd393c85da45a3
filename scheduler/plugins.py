"""Finding filters and weighers by entry point, ours and those of other packages.

The entry point's name is the class name that operators write into ``enabled_filters`` and
``weight_classes``.  Our own are registered in setup.cfg like anybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import stevedore
from oslo_config import cfg

from core import errors
from scheduler.filters.base import Filter
from scheduler.weighers.base import Weigher

FILTERS = "haneul.scheduler.filters"
WEIGHERS = "haneul.scheduler.weighers"
ALL_WEIGHERS = frozenset({"all", "nova.scheduler.weights.all_weighers"})


def load_filters(conf: cfg.ConfigOpts) -> list[Filter]:
    """The enabled filters in their configured order.

    Raises errors.BadRequest, naming what there is, for a name that no entry point has.
    """
    known = _known(FILTERS, Filter)
    names = [_class_name(name) for name in conf.filter_scheduler.enabled_filters]
    return [known[name](conf) for name in _checked(names, known, "enabled_filters")]


def load_weighers(conf: cfg.ConfigOpts) -> list[Weigher]:
    """The weighers of ``weight_classes``, or all; raises as ``load_filters`` does."""
    known = _known(WEIGHERS, Weigher)
    names = list(conf.filter_scheduler.weight_classes)
    if ALL_WEIGHERS & set(names):
        names = sorted(known)
    names = [_class_name(name) for name in names]
    return [known[name](conf) for name in _checked(names, known, "weight_classes")]


def _class_name(name: str) -> str:
    """The last part of a dotted name, so that upstream's full paths are understood, too."""
    return name.strip().rpartition(".")[2]


def _checked(names: Iterable[str], known: dict[str, Any], option: str) -> list[str]:
    chosen = list(dict.fromkeys(name for name in names if name))
    missing = [name for name in chosen if name not in known]
    if missing:
        raise errors.BadRequest(
            f"[filter_scheduler] {option} names {', '.join(missing)}, which no installed package provides. "
            f"There are: {', '.join(sorted(known))}."
        )
    return chosen


def _known(namespace: str, base: type) -> dict[str, Any]:
    """Classes by entry point name; one that can't be imported stops the start and says why."""

    def failed(_manager: Any, entry_point: Any, error: BaseException) -> None:
        raise errors.BadRequest(f"The scheduler plugin {entry_point} can't be loaded: {error}") from error

    manager = stevedore.ExtensionManager(namespace, on_load_failure_callback=failed)
    known: dict[str, Any] = {}
    for extension in manager:
        if not (isinstance(extension.plugin, type) and issubclass(extension.plugin, base)):
            raise errors.BadRequest(
                f"The entry point {extension.name} in {namespace} is no subclass of "
                f"{base.__module__}.{base.__name__}."
            )
        known[extension.name] = extension.plugin
    return known
