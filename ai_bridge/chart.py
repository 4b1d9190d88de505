"""A small plot as SVG: lines over time, one panel below the other."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, PANEL, GAP, LEFT, TOP = 720, 180, 46, 70, 34
Points = Sequence[tuple[float, float]]


def plot(title: str, panels: Sequence[tuple[str, Points]]) -> str:
    """An SVG document with a panel for each named line; points are (x, y), ascending by x."""
    height = TOP + len(panels) * (PANEL + GAP)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    for number, (name, points) in enumerate(panels):
        body += _panel(name, points, TOP + number * (PANEL + GAP))
    return "\n".join([*body, "</svg>", ""])


def _panel(name: str, points: Points, top: float) -> list[str]:
    values = [y for _, y in points] or [0.0]
    low, high = min(0.0, *values), max(0.0, *values)
    spread = (high - low) or 1.0
    begin, end = (points[0][0], points[-1][0]) if points else (0.0, 1.0)
    width, length = WIDTH - LEFT - 16, (end - begin) or 1.0

    def at(x: float, y: float) -> str:
        across = LEFT + width * (x - begin) / length
        return f"{across:.1f},{top + 20 + (PANEL - 20) * (high - y) / spread:.1f}"

    zero = at(begin, 0.0).split(",")[1]
    line = " ".join(at(x, y) for x, y in points)
    return [
        f'<text x="{LEFT}" y="{top + 12:.0f}">{escape(name)}</text>',
        f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{zero}" y2="{zero}" stroke="#999"/>',
        f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>',
        *(
            f'<text x="{LEFT - 6}" y="{float(at(begin, y).split(",")[1]) + 4:.1f}" '
            f'text-anchor="end">{y:.4g}</text>'
            for y in sorted({low, 0.0, high})
        ),
    ]
