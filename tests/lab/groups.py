"""Refuses to run when pytest-xdist's groups have no effect: nobody would notice, but all would take long.

Tests of one group share what is dear (hosts with guests, a Keystone). xdist keeps them together by
their names, which some releases of pytest do not let it change.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") is not None and "@" not in item.nodeid:
            raise pytest.UsageError(
                f"pytest {pytest.__version__} and this pytest-xdist do not keep groups of tests together: "
                "install what setup.cfg names (pip install 'pytest<9.2')"
            )
