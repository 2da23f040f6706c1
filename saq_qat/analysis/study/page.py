"""A study as one HTML file: no script, nothing from outside, light and dark, from a telephone's width up."""

import shlex
from collections.abc import Sequence
from html import escape

from saq_qat.analysis.study.pictures import (
    ARMS_LEGEND,
    DIFFERENCES_LEGEND,
    Panel,
    arm_panels,
    difference_panels,
    inline_svg,
)
from saq_qat.analysis.study.result import StudyResult
from saq_qat.analysis.study.text import Cells, headline, notes, tables

__all__ = ["page"]

_CSS = """
:root { color-scheme: light dark; --ink: #1a1a1f; --soft: #5c5c66; --line: #d9d9e0; --ground: #fdfdfd; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ec; --soft: #a3a3ae; --line: #3a3a44; --ground: #16161a; }
}
body { margin: 0 auto; padding: 1rem; max-width: 68rem; color: var(--ink); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
p, li { color: var(--soft); max-width: 46rem; overflow-wrap: anywhere; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots figure { margin: 0; flex: 1 1 20rem; max-width: 30rem; min-width: 0; }
.plots svg { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
code { font-size: 0.85rem; overflow-wrap: anywhere; }
""".strip()


def page(result: StudyResult) -> str:
    """The page of a study, as UTF-8 text; every string of the study is escaped."""
    differences = difference_panels(result)
    first = arm_panels(result, [headline(result)])
    others = [panel for panel in arm_panels(result) if panel.title != first[0].title]
    panels = [*differences, *first, *others]
    drawn = [inline_svg(panel, number) for number, panel in enumerate(panels)]
    split = len(differences)
    found = tables(result)
    body = [
        f"<h1>{escape(result.name)}</h1>",
        f"<p>{escape(result.created)}, {escape(result.created_by)}</p>",
        *_plots("Paired differences", differences, drawn[:split]),
        f"<p>{DIFFERENCES_LEGEND}</p>" if split else "",
        *_plots("Arms", first, drawn[split : split + 1]),
        f"<p>{ARMS_LEGEND}</p>",
        *(line for table in found for line in _table(table)),
        *_plots("All else", others, drawn[split + 1 :]),
        "<h2>How to read this</h2>",
        *(f"<p>{escape(note)}</p>" for note in notes(result)),
        "<h2>How arms were trained</h2>",
        *_arms(result),
    ]
    return "\n".join([*_head(result.name), *filter(None, body), "</body>", "</html>", ""])


def _head(name: str) -> list[str]:
    return [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(name)}: a study</title>",
        f"<style>\n{_CSS}\n</style>",
        "</head>",
        "<body>",
    ]


def _plots(title: str, panels: Sequence[Panel], drawn: Sequence[str]) -> list[str]:
    if not panels:
        return []
    figures = [
        f'<figure aria-label="{escape(panel.title)}">{svg}</figure>'
        for panel, svg in zip(panels, drawn, strict=True)
    ]
    return [f"<h2>{escape(title)}</h2>", '<div class="plots">', *figures, "</div>"]


def _table(table: Cells) -> list[str]:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows]
    return [
        f"<h2>{escape(table.title)}</h2>",
        '<div class="wide" tabindex="0"><table>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        "</table></div>",
    ]


def _arms(result: StudyResult) -> list[str]:
    commands = [shlex.join(("saq-qat", "train", arm.recipe, *arm.overrides)) for arm in result.arms]
    pairs = zip(result.arms, commands, strict=True)
    items = [f"<li>{escape(arm.name)}: <code>{escape(command)}</code></li>" for arm, command in pairs]
    return ["<ul>", *items, "</ul>"]
