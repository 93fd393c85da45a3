"""What this service offers: stores, import methods, usage; and removal from a store."""

from __future__ import annotations

from typing import Any

from api.common.app import project_of
from api.common.operations import NO_POLICY, Call, Controller, operation
from api.image.common import find, permit
from api.image.services import ImageServices
from core.errors import Conflict, Forbidden, NotFound
from db import image_imports
from db.images import Image
from db.sessions import retrying
from image.imports import METHODS


class InfoController(Controller):
    """/v2/info and /v2/stores."""

    services: ImageServices

    @operation("GET", "/info/import", policy=NO_POLICY)
    def import_methods(self, call: Call) -> dict[str, Any]:
        """List import methods."""
        methods = {"description": "Import methods available.", "type": "array", "value": list(METHODS)}
        return {"import-methods": methods}

    @operation("GET", "/info/stores", policy=NO_POLICY)
    def stores(self, call: Call) -> dict[str, Any]:
        """List the stores."""
        return {"stores": [self._store(store_id) for store_id in self.services.data.stores.ids()]}

    @operation("GET", "/info/stores/detail", policy="stores_info_detail")
    def stores_detail(self, call: Call) -> dict[str, Any]:
        """List the stores with their properties."""
        found = []
        for store_id in self.services.data.stores.ids():
            configured = self.services.data.stores.configured(store_id)
            found.append(
                {
                    **self._store(store_id),
                    "type": configured.store.kind,
                    "weight": configured.weight,
                    "properties": configured.store.properties(),
                }
            )
        return {"stores": found}

    def _store(self, store_id: str) -> dict[str, Any]:
        stores = self.services.data.stores
        shown = {"id": store_id}
        if description := stores.configured(store_id).description:
            shown["description"] = description
        if stores.get(store_id).read_only:
            shown["read-only"] = "true"
        if store_id == stores.default:
            shown["default"] = "true"
        return shown

    @operation("GET", "/info/usage", policy=NO_POLICY)
    def usage(self, call: Call) -> dict[str, Any]:
        """Show the project's limits and what it uses of them."""
        with self.services.databases.global_.read() as connection:
            return {"usage": self.services.limits.usage(connection, project_of(call.context))}

    @operation(
        "DELETE",
        "/stores/{store_id}/{image_id}",
        policy="delete_image_location",
        late_policy=True,
        status=204,
    )
    def delete_from_store(self, call: Call) -> None:
        """Remove the data of an image from one of the stores that have it."""
        store_id = call.params["store_id"]
        if store_id not in self.services.data.stores:
            raise Conflict(f"The selected store {store_id} is not available on this node.")

        @retrying
        def remove() -> str:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image, "get_image_location")
                permit(call, image)
                self._check_removable(image, store_id)
                image_imports.remove_from_store(connection, image, store_id)
                return str(image["id"])

        self.services.data.remove_soon(remove())

    def _check_removable(self, image: Image, store_id: str) -> None:
        if image["status"] != "active":
            raise Conflict("It's not allowed to remove image data from store if image status is not 'active'")
        stores = [found["store"] for found in image["locations"]]
        if store_id not in stores:
            raise NotFound(f"Image {image['id']} is not stored in store {store_id}.")
        if image["properties"].get(image_imports.IMPORTING):
            raise Conflict("The image is being copied to further stores, perhaps from this one.")
        if len(stores) == 1:
            raise Forbidden(
                "Cannot delete image data from the only store containing it."
                " Consider deleting the image instead."
            )
