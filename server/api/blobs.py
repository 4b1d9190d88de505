"""REST calls on blobs: files that every node reaches, by the SHA-256 of what they hold."""

from __future__ import annotations

from server.api.operations import Operation

BYTES = "application/octet-stream"

OPERATIONS = (
    Operation(
        "POST",
        "/api/blobs",
        "Store the body's bytes as they are; durable when answered, at most `max_body_bytes`",
        call="blob_put",
        answers={201: "its digest and size", 413: "too large", 507: "the disk is nearly full"},
    ),
    Operation("GET", "/api/blobs", "Digest and size of every blob", call="blobs"),
    Operation(
        "GET",
        "/api/blobs/<sha256>",
        "The bytes of a blob",
        call="blob",
        answers={200: "the bytes", 404: "there is none"},
        media=BYTES,
    ),
    Operation(
        "DELETE",
        "/api/blobs/<sha256>",
        "Remove a blob from every node",
        call="blob_delete",
        answers={200: "it is gone", 404: "there is none"},
    ),
)
