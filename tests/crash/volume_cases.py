"""Every step of every action of the volume worker: where it starts, how it is asked for, what the data must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from core.volume_states import GONE, PREVIOUS, TABLES
from db.volume_base import TABLES as TABLES_OF_ROWS
from lifecycle.steps import Registry
from tests.api.volume.conftest import IMAGE
from tests.crash.volume_cloud import ADMIN, VolumeCloud, snapshot, volume
from volume import service
from volume.actions import backups, moves, volumes

assert service.KINDS  # they add their actions to volumes.ACTIONS
ACTIONS = Registry(
    *(each[kind] for each in (volumes.ACTIONS, moves.MOVES, backups.ACTIONS) for kind in each.kinds())
)
OLD, NEW = b"old content", b"later content"
IMAGE_DATA = b"an image's content"
_V = {"version": "3.20"}
ANY = frozenset({OLD, NEW, IMAGE_DATA, b"", None})


@dataclasses.dataclass
class Scene:
    """What there is before an intent, and what must be true behind it. Contents: None is no data."""

    resource: str = ""
    volume: str = ""
    keeps: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """volumes that must hold this whatever happens"""
    done: dict[str, bytes | None] = dataclasses.field(default_factory=dict)
    """volumes that hold this after success"""
    more: dict[str, str] = dataclasses.field(default_factory=dict)
    before: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True)
class Case:
    """How one kind starts."""

    prepare: Callable[[VolumeCloud], Scene]
    begin: Callable[[VolumeCloud, Scene], None]
    check: Callable[[VolumeCloud, Scene], None] = lambda _cloud, _scene: None
    """beyond status and contents, after success"""


def every_step() -> list[tuple[str, str]]:
    return [(kind, step.name) for kind in ACTIONS.kinds() for step in ACTIONS[kind].steps]


def every_undo() -> list[tuple[str, str]]:
    return [(kind, step.name) for kind in ACTIONS.kinds() for step in ACTIONS[kind].steps if step.undo]


def last_step(kind: str) -> str:
    return ACTIONS[kind].steps[-1].name


def table_of(kind: str) -> str:
    type_ = kind.partition(".")[0]
    return {"group": "volume_groups"}.get(type_, f"{type_}s")


def status_after(kind: str, done: bool) -> str:
    """The resource's status by the state table; "deleted" when the row goes."""
    transition = TABLES[kind.partition(".")[0]][kind]
    to = transition.done if done else transition.failed
    return {GONE: "deleted", PREVIOUS: "available"}.get(str(to), str(to))


# -- where they start ----------------------------------------------------------------


def _nothing(cloud: VolumeCloud) -> Scene:
    return Scene()


def _one(cloud: VolumeCloud) -> Scene:
    made = volume(cloud, OLD)
    return Scene(made, made)


def _kept(cloud: VolumeCloud) -> Scene:
    scene = _one(cloud)
    scene.keeps[scene.volume] = OLD
    return scene


def _with_snapshot(cloud: VolumeCloud) -> Scene:
    """The snapshot holds OLD, the volume NEW."""
    scene = _one(cloud)
    scene.more["snapshot"] = snapshot(cloud, scene.volume)
    cloud.write(scene.volume, NEW)
    return scene


def _snapshotted(cloud: VolumeCloud) -> Scene:
    scene = _with_snapshot(cloud)
    scene.keeps[scene.volume] = NEW
    scene.resource = scene.more["snapshot"]
    return scene


def _delete_case(cloud: VolumeCloud) -> Scene:
    """A copy of the volume lives on."""
    scene = _with_snapshot(cloud)
    scene.keeps[volume(cloud, None, snapshot_id=scene.more["snapshot"])] = OLD
    cloud.settle()
    return scene


def _a_group(cloud: VolumeCloud) -> Scene:
    types = cloud.api.get("/group_types", as_=ADMIN, version="3.11")["group_types"]
    if not types:
        body = {"group_type": {"name": "crash"}}
        types = [cloud.api.post("/group_types", body, as_=ADMIN, version="3.11")["group_type"]]
    (type_,) = (
        each["id"] for each in cloud.api.get("/types")["volume_types"] if each["name"] == "__DEFAULT__"
    )
    asked = {"group": {"group_type": types[0]["id"], "volume_types": [type_], "name": "g"}}
    group = cloud.api.post("/groups", asked, **_V)["group"]["id"]
    cloud.settle()
    member = cloud.api.post("/volumes", {"volume": {"size": 1, "group_id": group}}, **_V)["volume"]["id"]
    cloud.settle()
    cloud.write(member, OLD)
    return Scene(group, member, more={"group": group})


def _group_kept(cloud: VolumeCloud) -> Scene:
    scene = _a_group(cloud)
    scene.keeps[scene.volume] = OLD
    return scene


def _group_taken(cloud: VolumeCloud) -> Scene:
    scene = _group_kept(cloud)
    _take_group(cloud, scene)
    cloud.settle()
    return scene


def _unmanaged(cloud: VolumeCloud) -> Scene:
    """The data of a volume that nobody knows any more."""
    scene = _one(cloud)
    row = cloud.row("volumes", scene.volume)
    assert row is not None
    scene.more["host"] = row["host"]
    cloud.api.action(scene.volume, "os-unmanage", {}, as_=ADMIN, status=202)
    cloud.settle()
    return scene


def _for_upload(cloud: VolumeCloud) -> Scene:
    return _kept(cloud)


def _for_image(cloud: VolumeCloud) -> Scene:
    _store_image(cloud)
    return _one(cloud)


def _store_image(cloud: VolumeCloud) -> None:
    cloud.services.images.images[IMAGE]["disk_format"] = "raw"  # type: ignore[attr-defined]
    (cloud.images.folder / IMAGE).write_bytes(IMAGE_DATA.ljust(1 << 20, b"\0"))


# -- how they are asked for ------------------------------------------------------------


def _create(cloud: VolumeCloud, scene: Scene) -> None:
    _store_image(cloud)
    scene.resource = scene.volume = volume(cloud, None, imageRef=IMAGE)
    scene.done[scene.volume] = IMAGE_DATA


def _act(name: str, body: Any = None, **options: Any) -> Callable[[VolumeCloud, Scene], None]:
    def begin(cloud: VolumeCloud, scene: Scene) -> None:
        cloud.api.action(scene.volume, name, body or {}, as_=ADMIN, status=202, **options)

    return begin


def _manage(cloud: VolumeCloud, scene: Scene) -> None:
    driver = cloud.looking[scene.more["host"].partition("#")[0]].driver
    driver.start()
    (free,) = (row for row in driver.manageable_volumes() if scene.volume in row["reference"]["source-name"])
    asked = {"host": scene.more["host"], "ref": free["reference"]}
    made = cloud.api.post("/manageable_volumes", {"volume": asked}, as_=ADMIN, version="3.8", status=202)
    scene.resource = made["volume"]["id"]
    scene.done[scene.resource] = OLD


def _revert(cloud: VolumeCloud, scene: Scene) -> None:
    body = {"snapshot_id": scene.more["snapshot"]}
    cloud.api.action(scene.volume, "revert", body, version="3.40", status=202)
    scene.done[scene.volume] = OLD


def _other_pool(cloud: VolumeCloud, scene: Scene) -> str:
    (other,) = (each["name"] for each in cloud.rows("volume_pools") if each["name"] != scene.more["host"])
    return str(other)


def _move_begins(cloud: VolumeCloud, scene: Scene) -> None:
    scene.more["to"] = _other_pool(cloud, scene)
    scene.before = {row["id"] for row in cloud.rows("volumes")}


def _migrate(cloud: VolumeCloud, scene: Scene) -> None:
    _move_begins(cloud, scene)
    scene.keeps[scene.volume] = OLD
    cloud.api.action(scene.volume, "os-migrate_volume", {"host": scene.more["to"]}, as_=ADMIN, status=202)


def _retype(cloud: VolumeCloud, scene: Scene) -> None:
    """To a type of the other backend."""
    _move_begins(cloud, scene)
    scene.keeps[scene.volume] = OLD
    name = scene.more["to"].partition("#")[0].partition("@")[2]
    if name not in {each["name"] for each in cloud.api.get("/types")["volume_types"]}:
        type_ = {"name": name, "extra_specs": {"volume_backend_name": name}}
        cloud.api.post("/types", {"volume_type": type_}, as_=ADMIN)
    asked = {"new_type": name, "migration_policy": "on-demand"}
    cloud.api.action(scene.volume, "os-retype", asked, status=202)


def _moved(cloud: VolumeCloud, scene: Scene) -> None:
    """The rows say so, and nothing of it is left at the old place."""
    row = cloud.row("volumes", scene.volume)
    assert row is not None
    assert (row["host"], row["migration_status"]) == (scene.more["to"], "success")
    new = [row for row in cloud.rows("volumes") if row["id"] not in scene.before]
    assert not new, new
    looking = cloud.looking[scene.more["host"].partition("#")[0]]
    looking.driver.start()
    old = dataclasses.replace(looking.volume(scene.volume), id=scene.volume)
    assert not looking.driver.exists(old), "the old data are still there"


def _reimage(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.api.action(scene.volume, "os-reimage", {"image_id": IMAGE}, version="3.68", status=202)
    scene.done[scene.volume] = IMAGE_DATA


def _upload(cloud: VolumeCloud, scene: Scene) -> None:
    body = {"image_name": "i", "disk_format": "raw", "container_format": "bare"}
    made = cloud.api.action(scene.volume, "os-volume_upload_image", body, status=202)
    scene.more["image"] = made["os-volume_upload_image"]["image_id"]


def _uploaded(cloud: VolumeCloud, scene: Scene) -> None:
    data = cloud.images.data(scene.more["image"])
    assert data is not None and data.startswith(OLD)


def _snapshot(cloud: VolumeCloud, scene: Scene) -> None:
    scene.resource = snapshot(cloud, scene.volume, wait=False)


def _restorable(cloud: VolumeCloud, scene: Scene) -> None:
    """The snapshot holds what the volume held, whatever was written since."""
    cloud.write(scene.volume, NEW)
    scene.keeps[scene.volume] = NEW
    copy = volume(cloud, None, snapshot_id=scene.resource)
    cloud.settle()
    assert cloud.read(copy) == OLD


def _delete_snapshot(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.api.delete(f"/snapshots/{scene.resource}", status=202)


def _force_snapshot(cloud: VolumeCloud, scene: Scene) -> None:
    path = f"/snapshots/{scene.resource}/action"
    cloud.api.post(path, {"os-force_delete": {}}, as_=ADMIN, status=202)


def _take_group(cloud: VolumeCloud, scene: Scene) -> None:
    body = {"group_snapshot": {"group_id": scene.more["group"]}}
    taken = cloud.api.post("/group_snapshots", body, **_V)["group_snapshot"]["id"]
    scene.resource = scene.more["group_snapshot"] = taken


def _copy_group(cloud: VolumeCloud, scene: Scene) -> None:
    before = {row["id"] for row in cloud.rows("volumes")}
    copy = {"create-from-src": {"name": "two", "group_snapshot_id": scene.more["group_snapshot"]}}
    scene.resource = cloud.api.post("/groups/action", copy, **_V)["group"]["id"]
    (made,) = {row["id"] for row in cloud.rows("volumes")} - before
    scene.done[made] = OLD


def _delete_group(cloud: VolumeCloud, scene: Scene) -> None:
    path = f"/groups/{scene.resource}/action"
    cloud.api.post(path, {"delete": {"delete-volumes": True}}, status=202, **_V)


def _delete_group_snapshot(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.api.delete(f"/group_snapshots/{scene.resource}", status=202, **_V)


def _cascade(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.api.delete(f"/volumes/{scene.volume}?cascade=true", status=202)


def _with_size(cloud: VolumeCloud, scene: Scene) -> None:
    row = cloud.row("volumes", scene.volume)
    assert row is not None and row["size_gib"] == 2


def _is_free(cloud: VolumeCloud, scene: Scene) -> None:
    """Unmanaged data can be taken over again."""
    _manage(cloud, scene)
    cloud.settle()
    assert cloud.read(scene.resource) == OLD


def _with_host(cloud: VolumeCloud) -> Scene:
    scene = _one(cloud)
    scene.more["host"] = str((cloud.row("volumes", scene.volume) or {})["host"])
    return scene


def _back_up(cloud: VolumeCloud, scene: Scene) -> None:
    asked = {"volume_id": scene.volume, "name": "b", "incremental": bool(scene.more.get("parent"))}
    scene.resource = cloud.api.post("/backups", {"backup": asked})["backup"]["id"]


def _backed_up(cloud: VolumeCloud) -> Scene:
    """The backup holds OLD, the volume NEW."""
    scene = _one(cloud)
    _back_up(cloud, scene)
    cloud.settle()
    scene.more["backup"] = scene.resource
    cloud.write(scene.volume, NEW)
    return scene


def _incremental(cloud: VolumeCloud) -> Scene:
    """The parent holds OLD; NEW is to be backed up."""
    scene = _backed_up(cloud)
    scene.more["parent"] = scene.resource
    scene.keeps[scene.volume] = NEW
    return scene


def _holds_new(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.write(scene.volume, OLD)
    scene.keeps.clear()
    _restore(cloud, scene)
    cloud.settle()
    assert cloud.read(scene.volume) == NEW


def _restore(cloud: VolumeCloud, scene: Scene) -> None:
    body = {"restore": {"volume_id": scene.volume}}
    cloud.api.post(f"/backups/{scene.resource}/restore", body, status=202)
    scene.done[scene.volume] = OLD


def _delete_backup(cloud: VolumeCloud, scene: Scene) -> None:
    cloud.api.delete(f"/backups/{scene.resource}", status=202)


def _force_backup(cloud: VolumeCloud, scene: Scene) -> None:
    path = f"/backups/{scene.resource}/action"
    cloud.api.post(path, {"os-force_delete": {}}, as_=ADMIN, status=202)


def _exported(cloud: VolumeCloud) -> Scene:
    """A backup that is not known here any more."""
    scene = _backed_up(cloud)
    record = cloud.api.get(f"/backups/{scene.resource}/export_record", as_=ADMIN)["backup-record"]
    scene.more.update(record)
    with cloud.services.databases.global_.write() as connection:
        table = TABLES_OF_ROWS["backups"]
        connection.execute(table.delete().where(table.c.id == scene.resource))
    return scene


def _import(cloud: VolumeCloud, scene: Scene) -> None:
    record = {key: scene.more[key] for key in ("backup_service", "backup_url")}
    cloud.api.post("/backups/import_record", {"backup-record": record}, as_=ADMIN, status=201)


def _let_go_snapshot(cloud: VolumeCloud, scene: Scene) -> None:
    path = f"/snapshots/{scene.resource}/action"
    cloud.api.post(path, {"os-unmanage": {}}, as_=ADMIN, status=202)


def _take_snapshot_over(cloud: VolumeCloud, scene: Scene) -> None:
    host = str((cloud.row("volumes", scene.volume) or {})["host"])
    driver = cloud.looking[host.partition("#")[0]].driver
    driver.start()
    gone = scene.more["snapshot"]
    (free,) = (each for each in driver.manageable_snapshots() if gone in each["reference"]["source-name"])
    assert scene.volume in free["source_reference"]["source-name"]
    asked = {"volume_id": scene.volume, "ref": free["reference"]}
    made = cloud.api.post("/manageable_snapshots", {"snapshot": asked}, as_=ADMIN, version="3.8", status=202)
    scene.resource = made["snapshot"]["id"]


def _unmanaged_snapshot(cloud: VolumeCloud) -> Scene:
    scene = _snapshotted(cloud)
    _let_go_snapshot(cloud, scene)
    cloud.settle()
    return scene


def _is_still_there(cloud: VolumeCloud, scene: Scene) -> None:
    """What was let go can be taken over again, with what it held."""
    _take_snapshot_over(cloud, scene)
    cloud.settle()
    _restorable(cloud, scene)


CASES: dict[str, Case] = {
    "backup.create": Case(_incremental, _back_up, _holds_new),
    "backup.restore": Case(_backed_up, _restore),
    "backup.delete": Case(_backed_up, _delete_backup),
    "backup.force_delete": Case(_backed_up, _force_backup),
    "backup.import": Case(_exported, _import),
    "volume.create": Case(_nothing, _create),
    "volume.manage": Case(_unmanaged, _manage),
    "volume.unmanage": Case(_with_host, _act("os-unmanage"), _is_free),
    "volume.delete": Case(_delete_case, _cascade),
    "volume.force_delete": Case(_one, _act("os-force_delete")),
    "volume.extend": Case(_kept, _act("os-extend", {"new_size": 2}), _with_size),
    "volume.revert": Case(_with_snapshot, _revert),
    "volume.migrate": Case(_with_host, _migrate, _moved),
    "volume.retype": Case(_with_host, _retype, _moved),
    "volume.upload_image": Case(_for_upload, _upload, _uploaded),
    "volume.reimage": Case(_for_image, _reimage),
    "snapshot.create": Case(_kept, _snapshot, _restorable),
    "snapshot.delete": Case(_snapshotted, _delete_snapshot),
    "snapshot.manage": Case(_unmanaged_snapshot, _take_snapshot_over, _restorable),
    "snapshot.unmanage": Case(_snapshotted, _let_go_snapshot, _is_still_there),
    "snapshot.force_delete": Case(_snapshotted, _force_snapshot),
    "group.create": Case(_group_taken, _copy_group),
    "group.delete": Case(_a_group, _delete_group),
    "group_snapshot.create": Case(_group_kept, _take_group),
    "group_snapshot.delete": Case(_group_taken, _delete_group_snapshot),
}
"""A kind that is missing here fails ``test_every_kind_has_a_case``."""
