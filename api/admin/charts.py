"""Charts as inline SVG.

pygal draws them. Its scripts, styles and URLs are removed, so that the panel's content security policy stays
strict; `panel.css` sets the colours for light and dark. Each chart has a table with its numbers, so screen
readers see one named image.
"""

import sys
from collections.abc import Sequence
from xml.etree import ElementTree as Tree

import pygal
from markupsafe import Markup
from pygal.graph.graph import Graph

from shared.money import rupees_text

# pygal adds an outdated plug-in finder that makes Python warn at each import. No plug-ins are used.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

Series = Sequence[tuple[str, Sequence[float | None]]]

# Sizes in SVG units.
WIDTH = 480
HEIGHT = 280
BAR_HEIGHT = 24  # of a horizontal bar
LABELS_WIDTH = 400  # below a chart
LETTER_WIDTH = 7  # of a label
GAP_WIDTH = 12  # between labels
MAX_LABELS = 12
MAX_DOTS = 60  # more would look like a thick line
REMOVED_TAGS = ("script", "style", "desc", "title")  # forbidden by the policy, or hover texts of single bars


def horizontal_bars(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """Horizontal bars, one per label, with the series stacked."""
    chart = pygal.HorizontalStackedBar(height=120 + BAR_HEIGHT * len(labels), **_settings(unit))
    # pygal starts at the bottom.
    chart.x_labels = list(reversed(labels))
    for title, values in series:
        chart.add(title, list(reversed(values)))
    return _render(chart, name)


def vertical_bars(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """Vertical bars, one per label, with the series stacked."""
    return _render(_add_data(pygal.StackedBar(height=HEIGHT, **_settings(unit)), labels, series), name)


def lines(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """A line per series, with a dot at each point, because a single point has no visible line."""
    has_dots = len(labels) <= MAX_DOTS or any(_has_isolated_value(values) for _, values in series)
    chart = pygal.Line(height=HEIGHT, show_dots=has_dots, dots_size=3, **_settings(unit))
    return _render(_add_data(chart, labels, series), name)


def _has_isolated_value(values: Sequence[float | None]) -> bool:
    """True if a value has no neighbour."""
    padded = [None, *values, None]
    neighbours = zip(padded, padded[1:], padded[2:], strict=False)
    return any(value is not None and before is after is None for before, value, after in neighbours)


def _settings(unit: str) -> dict[str, object]:
    return {
        "width": WIDTH,
        "js": [],
        "css": [],
        "no_prefix": True,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": 3,
        "legend_box_size": 10,
        "truncate_legend": -1,
        "truncate_label": -1,
        "min_scale": 2,
        "max_scale": 5,
        "margin": 8,
        "margin_bottom": 24,  # less would cut off the legend
        "margin_right": 20,
        "include_x_axis": True,
        "value_formatter": UNITS[unit],
        "style": pygal.style.Style(label_font_size=11, major_label_font_size=11, legend_font_size=12),
    }


def _add_data(chart: Graph, labels: Sequence[str], series: Series) -> Graph:
    chart.x_labels = list(labels)
    chart.show_minor_x_labels = False
    chart.x_labels_major = list(labels)[:: max(1, -(-len(labels) // _max_labels(labels)))]
    for title, values in series:
        chart.add(title, list(values))
    return chart


def _max_labels(labels: Sequence[str]) -> int:
    """The number of labels that fit side by side."""
    width = GAP_WIDTH + LETTER_WIDTH * max(map(len, labels), default=0)
    return min(MAX_LABELS, LABELS_WIDTH // width)


def _render(chart: Graph, name: str) -> Markup:
    root = chart.render_tree()
    for parent in list(root.iter()):
        parent.attrib.pop("style", None)
        parent.attrib.pop("id", None)  # equal in all charts, but ids must be unique in a page
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in REMOVED_TAGS:
                parent.remove(child)
    # Inline SVG needs no namespace, and without it no URL is left.
    root.attrib = {
        "class": f"chart {root.get('class', '')}",
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": name,
    }
    return Markup(Tree.tostring(root, encoding="unicode"))  # noqa: S704  ElementTree escapes all text


def _rupees(paise: float | None) -> str:
    return rupees_text(int(paise or 0)).removesuffix(".00")


def _percent(percent: float | None) -> str:
    return f"{percent or 0:.0f} %"


def _duration(seconds: float | None) -> str:
    return f"{(seconds or 0) / 60:,.0f} min" if (seconds or 0) >= 120 else f"{seconds or 0:,.0f} s"


UNITS = {"rupees": _rupees, "percent": _percent, "seconds": _duration}
