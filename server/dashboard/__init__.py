"""The first page: what a node takes in, finds, decides and how it is doing, live in a browser.

The page is a client of the public API like any other: a template, plain ES modules and one vendored
chart library (docs/vendored.md), no build step, nothing loaded from elsewhere.
"""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, render_template

HERE = Path(__file__).parent
# Nothing inline, nothing from elsewhere, and no way at all for text to be parsed as HTML: what an
# item holds can never become script, style or a request to another machine.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

dashboard = Blueprint(
    "dashboard",
    __name__,
    template_folder=HERE / "templates",
    static_folder=HERE / "static",
    static_url_path="/dashboard/static",
)


@dashboard.get("/")
def page() -> Response:
    """The page itself; everything on it comes from the API."""
    answer = Response(render_template("dashboard.html"), mimetype="text/html")
    answer.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["Cache-Control"] = "no-cache"
    return answer
