"""All controllers of the Compute API, in one place."""

from __future__ import annotations

from api.common.operations import Controller
from api.compute.flavor_access import FlavorAccessController
from api.compute.flavor_extra_specs import FlavorExtraSpecsController
from api.compute.flavors import FlavorsController
from api.compute.keypairs import KeypairsController
from api.compute.limits import LimitsController
from api.compute.quota_class_sets import QuotaClassSetsController
from api.compute.quota_sets import QuotaSetsController
from api.compute.services import ComputeServices
from api.compute.versions import VersionsController

CONTROLLERS: tuple[type[Controller], ...] = (
    VersionsController,
    FlavorsController,
    FlavorExtraSpecsController,
    FlavorAccessController,
    KeypairsController,
    QuotaSetsController,
    QuotaClassSetsController,
    LimitsController,
)


def all_controllers(services: ComputeServices) -> list[Controller]:
    """One object of each, made with what the API has."""
    return [controller(services) for controller in CONTROLLERS]
