"""Encrypted logical volumes: what a guest writes through LUKS; ``test_lvm.py`` runs this in a kernel guest."""

from __future__ import annotations

import pytest

from tests.lab import kernel_guest
from tests.volume.drivers.contract import MIB
from tests.volume.drivers.encrypted_contract import EncryptedContract
from tests.volume.drivers.lvm.inside import driver, groups  # noqa: F401 - fixtures

pytestmark = pytest.mark.skipif(not kernel_guest.inside(), reason="run in a kernel guest by test_lvm.py")


@pytest.mark.parametrize("driver", ["thick", "thin"], indirect=True)
class TestEncrypted(EncryptedContract):
    """Thick and thin volumes keep the contract."""

    extent_bytes = 4 * MIB
