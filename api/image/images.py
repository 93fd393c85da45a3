"""Images: create, list, show, update, delete."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

import orjson
import webob

from api.common.app import CONTENT_TYPE
from api.common.operations import Call, Controller, operation
from api.common.validation import Validators
from api.image import patches, schemas
from api.image.common import (
    BASE,
    asker,
    find,
    permit,
    permit_visibility,
    refuse_nul,
    refused,
    target,
)
from api.image.services import ImageServices
from api.image.views import image_view
from core.errors import BadRequest, Forbidden, TooLarge
from db import images
from db.image_filters import SORT_KEYS
from db.images import Image
from db.sessions import retrying
from image.imports import METHODS

_MEMBER_STATUSES = (*schemas.MEMBER_STATUSES, "all")
_VISIBILITIES = (*schemas.VISIBILITIES, "all")


class ImagesController(Controller):
    """/v2/images and /v2/images/{image_id}."""

    services: ImageServices

    def __init__(self, services: ImageServices) -> None:
        super().__init__(services)
        self._validators = Validators()
        self._schema: dict[str, Any] = {}
        if services is not None:
            options = services.options
            self._schema = schemas.request_schema(
                schemas.base_properties(options.container_formats, options.disk_formats)
            )

    def _view(self, image: Image) -> dict[str, Any]:
        return image_view(image, self.services.data.stores, bool(self.services.options.show_image_direct_url))

    # -- create ----------------------------------------------------------------

    @operation(
        "POST",
        "/images",
        policy="add_image",
        late_policy=True,
        status=201,
        body=schemas.request_schema(schemas.base_properties()),
    )
    def create(self, call: Call) -> dict[str, Any]:
        """Register an image."""
        image = self.register(call, dict(call.body))
        call.response.headers["Location"] = f"{call.request.application_url.rstrip('/')}{BASE}/{image['id']}"
        call.response.headers["OpenStack-image-import-methods"] = ",".join(METHODS)
        call.response.headers["OpenStack-image-store-ids"] = ",".join(self.services.data.stores.ids())
        return self._view(image)

    def register(self, call: Call, body: dict[str, Any]) -> Image:
        """A new image of these attributes and properties.

        :raises BadRequest: :raises Forbidden: :raises TooLarge: over a quota. :raises Conflict: the id was used.
        """
        for name in schemas.READ_ONLY:
            if name in body:
                raise Forbidden(f"Attribute '{name}' is read-only.")
        self._validators.check(self._schema, body)
        refuse_nul(body)
        if "locations" in body:
            raise Forbidden("It's not allowed to add locations if locations are invisible.")
        tags = set(body.pop("tags", []))
        values = {name: body.pop(name) for name in schemas.WRITABLE if name in body}
        values["id"] = body.pop("id", str(uuid.uuid4())).lower()
        for name in body:
            patches.refuse_reserved(name)
        values.setdefault("visibility", "shared")
        values.setdefault("owner", call.context.project_id)
        self._permit_create(call, values)
        self._check_amounts(len(body), len(tags))
        return self._insert(call, values, body, tags)

    def _permit_create(self, call: Call, values: dict[str, Any]) -> None:
        where = {"project_id": values["owner"], "owner": values["owner"], "visibility": values["visibility"]}
        if values["owner"] != call.context.project_id and not asker(call).is_admin:
            raise Forbidden(f"You are not permitted to create images owned by '{values['owner']}'.")
        call.authorize(where, "add_image")
        permit_visibility(call, values["visibility"], where)

    def _check_amounts(self, properties: int, tags: int) -> None:
        options = self.services.limits.options
        for amount, limit, what in (
            (properties, options.image_property_quota, "properties"),
            (tags, options.image_tag_quota, "tags"),
        ):
            if 0 <= limit < amount:
                raise TooLarge(f"The limit has been exceeded on the number of allowed image {what}: {limit}.")

    def _insert(
        self, call: Call, values: dict[str, Any], properties: dict[str, Any], tags: set[str]
    ) -> Image:
        @retrying
        def insert() -> Image:
            with self.services.databases.global_.write() as connection:
                if values["owner"] is not None:
                    self.services.limits.check_count(connection, values["owner"])
                return images.create(connection, values, properties, tags)

        return insert()

    # -- read ------------------------------------------------------------------

    @operation("GET", "/images", policy="get_images")
    def index(self, call: Call) -> dict[str, Any]:
        """List images."""
        query = {name: list(values) for name, values in call.query.items()}
        refuse_nul(list(query.values()))
        limit = self._limit(query.pop("limit", []))
        marker = query.pop("marker", [None])[0]
        member_status = _choice("status", query.pop("member_status", ["accepted"])[0], _MEMBER_STATUSES)
        visibility = query.pop("visibility", [None])[0] or None
        if visibility is not None:
            _choice("visibility value", visibility, _VISIBILITIES)
        if "changes-since" in query:
            raise BadRequest('The "changes-since" filter is no longer available on v2.')
        sort = _sorting(query)
        tags = [tag.strip() for tag in query.pop("tag", [])]
        filters = {name: values[-1] for name, values in query.items()}
        filters.setdefault("os_hidden", "false")
        with self.services.databases.global_.read() as connection:
            found = images.list_(
                connection,
                asker(call),
                filters=filters,
                tags=tags,
                visibility=visibility,
                member_status=member_status,
                sort=sort,
                marker=marker,
                limit=limit,
            )
        shown = [image for image in found if call.allowed("get_image", target(call, image))]
        return self._page(call, shown, bool(shown) and len(found) == limit)

    def _limit(self, values: list[str]) -> int:
        options = self.services.options
        if not values:
            return min(int(options.limit_param_default), int(options.api_limit_max))
        try:
            limit = int(values[0])
        except ValueError as error:
            raise BadRequest("limit param must be an integer") from error
        if limit < 0:
            raise BadRequest("limit param must be positive")
        return min(limit, int(options.api_limit_max))

    def _page(self, call: Call, shown: list[Image], more: bool) -> dict[str, Any]:
        query = [(name, value) for name, values in call.query.items() if name != "marker" for value in values]
        page: dict[str, Any] = {
            "images": [self._view(image) for image in shown],
            "first": f"{BASE}?{urlencode(query)}" if query else BASE,
            "schema": "/v2/schemas/images",
        }
        if more:
            page["next"] = f"{BASE}?{urlencode([*query, ('marker', shown[-1]['id'])])}"
        return page

    @operation("GET", "/images/{image_id}", policy="get_image", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """Show an image."""
        with self.services.databases.global_.read() as connection:
            return self._view(find(call, connection))

    # -- update ----------------------------------------------------------------

    @operation(
        "PATCH",
        "/images/{image_id}",
        policy="modify_image",
        late_policy=True,
        raw_body=True,
        media_types=patches.MEDIA_TYPES,
        body=schemas.PATCH_DOCUMENT,
    )
    def update(self, call: Call) -> dict[str, Any] | webob.Response:
        """Change attributes and properties of an image."""
        media_type = call.request.environ.get(CONTENT_TYPE, "").split(";")[0].strip().lower()
        if media_type not in patches.MEDIA_TYPES:
            allowed = ", ".join(sorted(patches.MEDIA_TYPES))
            return refused(415, f"Image PATCH expects Content-Type one of: {allowed}", Accept_Patch=allowed)
        changes = patches.read(_json(call), media_type, self._schema, self._validators)

        @retrying
        def change() -> Image:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                if not changes:
                    return image
                self._write(call, connection, image, changes)
                return find(call, connection)

        return self._view(change())

    def _write(self, call: Call, connection: Any, image: Image, changes: list[patches.Change]) -> None:
        def allow(change: patches.Change) -> None:
            if change.name == "locations":
                rule = "delete_image_location" if change.op == "remove" else "set_image_location"
                permit(call, image, rule)
                return
            if change.name == "visibility" and change.op != "remove":
                permit_visibility(call, change.value, target(call, image))
            permit(call, image)

        changed = patches.apply(image, changes, asker(call).is_admin, allow)
        if len(changed["properties"]) > len(image["properties"]) or len(changed["tags"]) > len(image["tags"]):
            self._check_amounts(len(changed["properties"]), len(changed["tags"]))
        values = {
            name: changed[name]
            for name in schemas.WRITABLE
            if name != "tags" and changed[name] != image[name]
        }
        tags = changed["tags"] if changed["tags"] != image["tags"] else None
        images.update(connection, image, values, changed["properties"], tags)

    # -- delete ----------------------------------------------------------------

    @operation("DELETE", "/images/{image_id}", policy="delete_image", late_policy=True, status=204)
    def delete(self, call: Call) -> None:
        """Delete an image and its data."""

        @retrying
        def delete() -> str:
            with self.services.databases.global_.write() as connection:
                image = find(call, connection)
                permit(call, image)
                if image["protected"]:
                    raise Forbidden(f"Image {image['id']} is protected and cannot be deleted.")
                images.delete(connection, image)
                return str(image["id"])

        image_id = delete()
        self.services.cache.delete(image_id)  # other hosts' copies of it grow old, and go
        self.services.data.remove_soon(image_id)


def _json(call: Call) -> Any:
    """The parsed body of a call that reads it itself."""
    data = call.request.body_file.read((1 << 20) + 1)
    if len(data) > 1 << 20:
        raise TooLarge("Request is too large: at most 1048576 bytes.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"Malformed request body: not JSON: {error}") from error


def _choice(what: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise BadRequest(f"Invalid {what}: {value}")
    return value


def _sorting(query: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Both syntaxes: sort=name:asc,size and sort_key=name&sort_dir=asc.

    Whatever is asked for, created_at and id follow, so that every page has an end.
    """
    keys = [key.strip() for key in query.pop("sort_key", [])]
    directions = [direction.strip() for direction in query.pop("sort_dir", [])]
    if "sort" in query:
        if keys or directions:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        for part in query.pop("sort")[0].strip().split(","):
            key, _, direction = part.partition(":")
            keys.append(key.strip())
            directions.append(direction.strip() or "desc")
    for key in keys:
        if key not in SORT_KEYS:
            raise BadRequest(
                f"Invalid sort key: {key}. It must be one of the following: {', '.join(SORT_KEYS)}."
            )
    for direction in directions:
        _choice("sort direction", direction, ("asc", "desc"))
    keys = keys or ["created_at"]
    if len(directions) > 1 and len(directions) != len(keys):
        raise BadRequest("Number of sort dirs does not match the number of sort keys")
    default = directions[0] if len(directions) == 1 else "desc"
    sort = list(zip(keys, directions if len(directions) == len(keys) else [default] * len(keys), strict=True))
    for key in ("created_at", "id"):
        if key not in keys:
            sort.append((key, default))
    return sort
