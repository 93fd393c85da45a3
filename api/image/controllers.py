"""All controllers of the Image API, in one place."""

from __future__ import annotations

from typing import Any

from api.common.operations import Controller
from api.image.actions import ActionsController
from api.image.cache import CacheController
from api.image.image_data import ImageDataController
from api.image.images import ImagesController
from api.image.imports import ImportsController
from api.image.info import InfoController
from api.image.locations import LocationsController
from api.image.members import MembersController
from api.image.metadef_items import (
    MetadefObjectsController,
    MetadefPropertiesController,
    MetadefTagsController,
)
from api.image.metadef_namespaces import MetadefNamespacesController, MetadefResourceTypesController
from api.image.schema_documents import SchemasController
from api.image.services import ImageServices
from api.image.tags import TagsController
from api.image.tasks import TasksController
from api.image.versions import VersionsController

CONTROLLERS: tuple[Any, ...] = (
    VersionsController,
    ImagesController,
    ImageDataController,
    MembersController,
    TagsController,
    ActionsController,
    InfoController,
    ImportsController,
    TasksController,
    CacheController,
    LocationsController,
    SchemasController,
    MetadefNamespacesController,
    MetadefResourceTypesController,
    MetadefObjectsController,
    MetadefPropertiesController,
    MetadefTagsController,
)


def all_controllers(services: ImageServices) -> list[Controller]:
    """One object of each, made with what the API has."""
    return [controller(services) for controller in CONTROLLERS]
