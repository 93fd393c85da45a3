"""/images: the image API as the compute API showed it before there was one. Until 2.35, metadata 2.38."""

from __future__ import annotations

from typing import Any

from api.common import validation as v
from api.common.operations import NO_POLICY, Call, Controller, operation
from api.common.paging import next_link
from api.compute import common, image_client
from core.errors import BadRequest, NotFound, OverQuota

_STATUS = {
    "active": "ACTIVE",
    "queued": "SAVING",
    "saving": "SAVING",
    "uploading": "SAVING",
    "importing": "SAVING",
    "killed": "ERROR",
    "deleted": "DELETED",
    "pending_delete": "DELETED",
}
_ASKED_STATUS = {"ACTIVE": "active", "SAVING": "saving", "ERROR": "killed", "DELETED": "deleted"}
_PROGRESS = {"queued": 25, "saving": 50, "active": 100}
_FILTERS = {
    "name": "name",
    "minRam": "min_ram",
    "minDisk": "min_disk",
    "type": "image_type",
    "limit": "limit",
    "marker": "marker",
}
LIST = v.query({"limit": v.LIMIT, "marker": {"type": "string"}})
_VALUES = {
    "type": "object",
    "patternProperties": {r"^[a-zA-Z0-9-_:. ]{1,255}$": {"type": "string", "maxLength": 255}},
    "additionalProperties": False,
}
METADATA = v.obj({"metadata": _VALUES}, ["metadata"])
ITEM = v.obj({"meta": {**_VALUES, "minProperties": 1, "maxProperties": 1}}, ["meta"])
_UNTIL, _META_UNTIL = "2.35", "2.38"
_META = "/images/{image_id}/metadata"


def metadata_of(image: dict[str, Any]) -> dict[str, str]:
    """An image's properties, as texts."""
    return {key: str(value) for key, value in image_client.properties_of(image).items()}


def filters_of(call: Call) -> dict[str, str]:
    """The query as the image API understands it."""
    result = {}
    for key, name in _FILTERS.items():
        if (text := call.first(key)) is not None:
            result[name] = text
    if (status := call.first("status")) is not None:
        result["status"] = _ASKED_STATUS.get(status.upper(), status.lower())
    if (since := call.first("changes-since")) is not None:
        result["updated_at"] = f"gte:{since}"
    if (server := call.first("server")) is not None:
        # an id, or the URL of a server
        result["instance_uuid"] = server.rstrip("/").rpartition("/")[2]
    for key in call.query:
        if key.startswith("property-"):
            result[key.removeprefix("property-").replace("-", "_")] = call.query[key][0]
    return result


class ImagesController(Controller):
    """List, show, delete."""

    def _links(self, call: Call, image_id: str) -> list[dict[str, str]]:
        endpoint = self.services.images.endpoint()
        alternate = {
            "rel": "alternate",
            "type": "application/vnd.openstack.image",
            "href": f"{endpoint}/images/{image_id}",
        }
        return [*common.resource_links(call, f"images/{image_id}"), alternate]

    def _brief(self, call: Call, image: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": image["id"],
            "name": image.get("name"),
            "links": self._links(call, image["id"]),
        }

    def _view(self, call: Call, image: dict[str, Any]) -> dict[str, Any]:
        metadata = metadata_of(image)
        result = {
            **self._brief(call, image),
            "minRam": int(image.get("min_ram") or 0),
            "minDisk": int(image.get("min_disk") or 0),
            "metadata": metadata,
            "created": image.get("created_at"),
            "updated": image.get("updated_at"),
            "status": _STATUS.get(image["status"], "UNKNOWN"),
            "progress": _PROGRESS.get(image["status"], 0),
            "OS-EXT-IMG-SIZE:size": int(image.get("size") or 0),
        }
        if (server := metadata.get("instance_uuid")) is not None:
            result["server"] = {"id": server, "links": common.resource_links(call, f"servers/{server}")}
        if (disk := metadata.get("auto_disk_config")) is not None:
            result["OS-DCF:diskConfig"] = "AUTO" if disk.lower() in ("true", "1") else "MANUAL"
        return result

    def _page(self, call: Call, path: str, shape: Any) -> dict[str, Any]:
        images = self.services.images.list_(call.context, filters_of(call))
        result: dict[str, Any] = {"images": [shape(call, image) for image in images]}
        limit = call.first("limit")
        if images and limit is not None and len(images) == int(limit):
            url = common.collection_url(call, path)
            result["images_links"] = [next_link(call, url, images[-1]["id"])]
        return result

    @operation("GET", "/images", policy=NO_POLICY, until=_UNTIL, query=LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List images, briefly."""
        return self._page(call, "images", self._brief)

    @operation("GET", "/images/detail", policy=NO_POLICY, until=_UNTIL, query=LIST)
    def detail(self, call: Call) -> dict[str, Any]:
        """List images with everything."""
        return self._page(call, "images/detail", self._view)

    @operation("GET", "/images/{image_id}", policy=NO_POLICY, until=_UNTIL)
    def show(self, call: Call) -> dict[str, Any]:
        """Show an image."""
        image_id = image_id_of(call)
        return {"image": self._view(call, self.services.images.get(call.context, image_id))}

    @operation("DELETE", "/images/{image_id}", policy=NO_POLICY, until=_UNTIL, status=204)
    def delete(self, call: Call) -> None:
        """Delete an image."""
        self.services.images.delete(call.context, image_id_of(call))


def image_id_of(call: Call) -> str:
    """The id in the path; what can't be one is not asked for. :raises NotFound:"""
    text = call.params["image_id"]
    try:
        return common.uuid_of(text, "")
    except BadRequest:
        raise NotFound(f"Image {text} could not be found.") from None


class ImageMetadataController(Controller):
    """An image's properties."""

    def _read(self, call: Call) -> dict[str, str]:
        return metadata_of(self.services.images.get(call.context, image_id_of(call)))

    def _write(
        self, call: Call, new: dict[str, str], old: dict[str, str], *, replace: bool = False
    ) -> dict[str, str]:
        """Set what is new; ``replace``: and drop the rest."""
        after = dict(new) if replace else {**old, **new}
        with self.services.databases.global_.read() as connection:
            most = self.services.quotas.limits(connection, call.context.project_id or "")["metadata_items"]
        if 0 <= most < len(after):
            raise OverQuota("Image metadata limit exceeded")
        changes = [
            {"op": "replace" if key in old else "add", "path": f"/{_escape(key)}", "value": value}
            for key, value in after.items()
            if old.get(key) != value
        ]
        changes += [{"op": "remove", "path": f"/{_escape(key)}"} for key in old if key not in after]
        self.services.images.patch(call.context, image_id_of(call), changes)
        return after

    @operation("GET", _META, policy=NO_POLICY, until=_META_UNTIL)
    def index(self, call: Call) -> dict[str, Any]:
        """List an image's metadata."""
        return {"metadata": self._read(call)}

    @operation("POST", _META, policy=NO_POLICY, until=_META_UNTIL, body=METADATA)
    def create(self, call: Call) -> dict[str, Any]:
        """Set metadata; other keys stay."""
        return {"metadata": self._write(call, call.body["metadata"], self._read(call))}

    @operation("PUT", _META, policy=NO_POLICY, until=_META_UNTIL, body=METADATA)
    def update_all(self, call: Call) -> dict[str, Any]:
        """Replace all metadata."""
        return {"metadata": self._write(call, call.body["metadata"], self._read(call), replace=True)}

    @operation("GET", _META + "/{key}", policy=NO_POLICY, until=_META_UNTIL)
    def show(self, call: Call) -> dict[str, Any]:
        """Show one item."""
        metadata, key = self._read(call), call.params["key"]
        if key not in metadata:
            raise NotFound("Metadata item was not found")
        return {"meta": {key: metadata[key]}}

    @operation("PUT", _META + "/{key}", policy=NO_POLICY, until=_META_UNTIL, body=ITEM)
    def update(self, call: Call) -> dict[str, Any]:
        """Set one item."""
        meta = call.body["meta"]
        if call.params["key"] not in meta:
            raise BadRequest("Request body and URI mismatch")
        self._write(call, meta, self._read(call))
        return {"meta": meta}

    @operation("DELETE", _META + "/{key}", policy=NO_POLICY, until=_META_UNTIL, status=204)
    def delete(self, call: Call) -> None:
        """Remove one item."""
        metadata, key = self._read(call), call.params["key"]
        if key not in metadata:
            raise NotFound("Invalid metadata key")
        rest = {name: value for name, value in metadata.items() if name != key}
        self._write(call, rest, metadata, replace=True)


def _escape(key: str) -> str:
    """A key within a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
