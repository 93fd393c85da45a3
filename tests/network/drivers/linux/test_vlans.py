"""VLAN networks (``inside_vlans.py``): on this machine's kernel if it has 802.1Q, else in a guest with Debian's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab import kernel_guest
from tests.network.drivers.linux import inside_vlans, lab

pytestmark = lab.needs_lab

if lab.has_vlans():
    from tests.network.drivers.linux.inside_vlans import *  # noqa: F403
else:

    @pytest.mark.xdist_group("kernel-guest")
    @pytest.mark.timeout(900)
    def test_vlans_in_a_kernel_guest(tmp_path: Path) -> None:
        if why := kernel_guest.missing(("ip", "iproute2"), ("nft", "nftables"), ("ping", "iputils-ping")):
            pytest.skip(why)
        # the folder's conftest imports the whole Network API, which takes an emulated processor a minute
        said = kernel_guest.run(
            "--noconftest",
            inside_vlans.__file__,
            work=tmp_path,
            modules=("tun", "br_netfilter", "8021q"),
            timeout_s=840,
        )
        assert " passed" in said
        assert " skipped" not in said, said
