"""REST calls on the hashes of tensor calculations."""

from __future__ import annotations

from server.api.operations import Operation, Param

_LOOKUP_BODY = {
    "type": "object",
    "required": ["hashes"],
    "properties": {
        "hashes": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": 200,
            "description": "hashes, or beginnings of them with at least 6 hex digits",
        }
    },
}

OPERATIONS = (
    Operation(
        "GET",
        "/api/context/tensors",
        "What the hashes mean that an item carries",
        call="tensors",
        params=(Param("offset", "of the item", "integer", required=True),),
        answers={200: "the known hashes in it", 404: "there is no such item"},
    ),
    Operation(
        "GET",
        "/api/context/tensors/<hash>",
        "What a tensor hash means, and the items that carry it, newest first",
        call="tensor",
        params=(Param("limit", "at most so many items (0 to 100, default 10)", "integer"),),
        answers={
            200: "the hash",
            404: "unknown",
            409: "several hashes begin so; `errors` names them",
        },
    ),
    Operation(
        "POST",
        "/api/context/tensors/lookup",
        "What many tensor hashes mean",
        call="tensors_lookup",
        body=_LOOKUP_BODY,
        answers={200: "found, unknown and ambiguous ones"},
    ),
)
