"""Tasks as the API shows them: imports are intents, and intents are the only tasks."""

from __future__ import annotations

from typing import Any

from api.image.common import timestamp
from core.intents import IntentState
from db.image_imports import Row
from image.imports import ADD_LOCATION

_STATUSES = {
    IntentState.WAITING: "pending",
    IntentState.RUNNING: "processing",
    IntentState.ENDING: "processing",
    IntentState.DONE: "success",
}


def _type(arguments: dict[str, Any]) -> str:
    if "task" in arguments["request"]:
        return "import"
    return "location_import" if arguments["method"] == ADD_LOCATION else "api_image_import"


def task_view(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "type": _type(row["arguments"]),
        "status": _STATUSES.get(IntentState(row["state"]), "failure"),
        "owner": row["project_id"],
        "expires_at": None,
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "self": f"/v2/tasks/{row['id']}",
        "schema": "/v2/schemas/task",
    }


def task_details(row: Row) -> dict[str, Any]:
    arguments = row["arguments"]
    return {
        "image_id": row["resource_id"],
        "request_id": row["request_id"],
        "user_id": row["user_id"],
        "input": arguments["request"].get("task")
        or {
            "image_id": row["resource_id"],
            "import_req": arguments["request"],
            "backend": arguments["stores"],
        },
        "result": {"image_id": row["resource_id"]} if row["state"] == IntentState.DONE else None,
        "message": (row["error"] or {}).get("message", ""),
    }
