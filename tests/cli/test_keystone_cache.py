"""The embedded Keystone's cache keeps copies and a bounded number of them."""

from __future__ import annotations

from dogpile.cache import make_region
from dogpile.cache.api import NO_VALUE

from cli import keystone_cache


def test_what_is_changed_after_it_was_read_stays_as_it_was_in_the_cache() -> None:
    keystone_cache.register()
    region = make_region().configure(keystone_cache.NAME, expiration_time=60)
    roles = region.get_or_create("roles", lambda: ["member"])
    roles.append("manager")
    region.get("roles").append("admin")
    assert region.get("roles") == ["member"]
    region.delete("roles")
    assert region.get("roles") is NO_VALUE


def test_what_was_not_used_for_longest_goes_first() -> None:
    backend = keystone_cache.LruBackend({"size": 3})
    backend.set_multi({"a": 1, "b": 2, "c": 3})
    assert backend.get("a") == 1
    backend.set("d", 4)
    assert backend.get_multi(["a", "b", "c", "d"]) == [1, NO_VALUE, 3, 4]
