"""REST calls on nodes and on the emergency stop."""

from __future__ import annotations

from server.api.operations import Operation

OPERATIONS = (
    Operation("GET", "/api/nodes", "All nodes and the leader", call="nodes"),
    Operation("GET", "/api/nodes/self", "This node", call="node_self"),
    Operation(
        "POST",
        "/api/nodes/<node_id>/lead",
        "Hand leadership to a node",
        call="lead",
        answers={200: "it leads", 404: "unknown node"},
    ),
    Operation(
        "POST",
        "/api/control/emergency-stop",
        "Stop trading actions on every node, durably",
        call="emergency_stop",
    ),
    Operation("POST", "/api/control/resume", "End the emergency stop", call="resume"),
    Operation("GET", "/api/control", "Whether trading actions are stopped", call="control"),
)
