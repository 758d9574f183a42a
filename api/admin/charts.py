"""Charts as SVG inside the page.

pygal draws them; what it adds for browsers is taken out: scripts, styles, and addresses of its own. So the
panel's policy stays as strict as it is, and `panel.css` gives them their colours, in light and dark. Each
stands beside a table with its numbers, so to screen readers it is one picture with a name.
"""

import sys
from collections.abc import Sequence
from xml.etree import ElementTree as Tree

import pygal
from markupsafe import Markup
from pygal.graph.graph import Graph

from shared.money import rupees_text

# pygal adds a finder of plug-ins, of an old kind that Python warns about at each import. There are none.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

Series = Sequence[tuple[str, Sequence[float | None]]]

WIDTH, HEIGHT = 480, 280
ROW_HEIGHT = 24  # of a bar that lies
MOST_LABELS = 12
LABELS_WIDTH, LETTER_WIDTH, GAP_WIDTH = 400, 7, 12  # what there is below a chart; what a label takes of it
MOST_DOTS = 60  # more of them are a thick line
LEFT_OUT = ("script", "style", "desc", "title")  # what a page may not have, and hover texts of single bars


def lying(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """Bars that lie, one for each label, the series behind each other."""
    chart = pygal.HorizontalStackedBar(height=120 + ROW_HEIGHT * len(labels), **_settings(unit))
    # pygal begins below.
    chart.x_labels = list(reversed(labels))
    for title, values in series:
        chart.add(title, list(reversed(values)))
    return _drawn(chart, name)


def standing(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """Bars that stand, one for each label, the series on top of each other."""
    return _drawn(_filled(pygal.StackedBar(height=HEIGHT, **_settings(unit)), labels, series), name)


def lines(name: str, labels: Sequence[str], series: Series, *, unit: str = "rupees") -> Markup:
    """A line for each series, with a dot at each point: one that stands alone has no line to be seen by."""
    has_dots = len(labels) <= MOST_DOTS or any(_stands_alone(values) for _, values in series)
    chart = pygal.Line(height=HEIGHT, show_dots=has_dots, dots_size=3, **_settings(unit))
    return _drawn(_filled(chart, labels, series), name)


def _stands_alone(values: Sequence[float | None]) -> bool:
    """Whether some value has none beside it."""
    around = [None, *values, None]
    beside = zip(around, around[1:], around[2:], strict=False)
    return any(value is not None and before is after is None for before, value, after in beside)


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
        "margin_bottom": 24,  # or the legend is cut off
        "margin_right": 20,
        "include_x_axis": True,
        "value_formatter": UNITS[unit],
        "style": pygal.style.Style(label_font_size=11, major_label_font_size=11, legend_font_size=12),
    }


def _filled(chart: Graph, labels: Sequence[str], series: Series) -> Graph:
    chart.x_labels = list(labels)
    chart.show_minor_x_labels = False
    chart.x_labels_major = list(labels)[:: max(1, -(-len(labels) // _most(labels)))]
    for title, values in series:
        chart.add(title, list(values))
    return chart


def _most(labels: Sequence[str]) -> int:
    """How many of these stand beside each other without touching."""
    width = GAP_WIDTH + LETTER_WIDTH * max(map(len, labels), default=0)
    return min(MOST_LABELS, LABELS_WIDTH // width)


def _drawn(chart: Graph, name: str) -> Markup:
    root = chart.render_tree()
    for parent in list(root.iter()):
        parent.attrib.pop("style", None)
        parent.attrib.pop("id", None)  # the same in each chart, and a page has an id once
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.rpartition("}")[2] in LEFT_OUT:
                parent.remove(child)
    # Without its namespace it has no addresses at all; inside a page it needs none.
    root.attrib = {
        "class": f"chart {root.get('class', '')}",
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": name,
    }
    return Markup(Tree.tostring(root, encoding="unicode"))  # noqa: S704  ElementTree escapes what is told


def _rupees(paise: float | None) -> str:
    return rupees_text(int(paise or 0)).removesuffix(".00")


def _percent(percent: float | None) -> str:
    return f"{percent or 0:.0f} %"


def _minutes(seconds: float | None) -> str:
    return f"{(seconds or 0) / 60:,.0f} min" if (seconds or 0) >= 120 else f"{seconds or 0:,.0f} s"


UNITS = {"rupees": _rupees, "percent": _percent, "seconds": _minutes}
