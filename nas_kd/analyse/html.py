"""Parts of an HTML page: tables, figures, the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --soft: #59636e; --line: #e4e7eb; --panel: #f6f8fa;
  --given: #fbe9df; --mark: #d55e00; --bar: #0072b2; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 1060px; margin: 32px auto 64px; padding: 0 20px; overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p, ul { margin: 6px 0; } .soft, figcaption { color: var(--soft); font-size: 13.5px; }
table { border-collapse: collapse; font-size: 13.5px; margin: 10px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
th { font-weight: 600; border-bottom: 1.5px solid var(--soft); }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
tr.handed td { background: var(--given); } tr.teacher td { color: var(--soft); }
figure { margin: 12px 0 20px; overflow-x: auto; } figure svg { display: block; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px 14px; }
.samples figure { margin: 0; } .samples p { font-size: 13.5px; }
.samples img { width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated; }
.caveat { border-left: 4px solid var(--mark); padding: 2px 12px; margin: 8px 0; }
.missing { border-left: 4px solid var(--soft); padding: 2px 12px; margin: 12px 0; }
.wide { overflow-x: auto; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 12px;
  margin: 16px 0; }
.answers section { background: var(--panel); border-radius: 6px; padding: 10px 14px; min-width: 0; font-size: 14px; }
.answers h2 { font-size: 16px; margin: 0 0 4px; } .answers p { margin: 4px 0; } .answers table { font-size: 13px; }
.funnel { list-style: none; margin: 8px 0; padding: 0; font-size: 14px; }
.funnel li { display: grid; grid-template-columns: 116px 150px minmax(76px, auto) 1fr; gap: 2px 12px; padding: 4px 0;
  border-bottom: 1px solid var(--line); align-items: baseline; }
.funnel .count { text-align: right; font-variant-numeric: tabular-nums; } .funnel .step { font-weight: 600; }
.funnel li .soft { grid-column: 4; }
.funnel .bar .fill { display: block; height: 10px; background: var(--bar); border-radius: 2px; }
code, pre { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
pre { columns: 3 240px; column-gap: 28px; background: var(--panel); padding: 12px; margin: 8px 0;
  white-space: pre-wrap; }
@media (max-width: 720px) {
  body { margin: 16px auto 40px; padding: 0 12px; }
  figure svg { max-width: none !important; }
  .funnel li { grid-template-columns: 1fr auto; } .funnel .bar { grid-column: 1 / -1; order: 1; }
  .funnel li > span:not(.step):not(.bar):not(.count) { grid-column: 1 / -1; order: 2; }
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9aa4af; --line: #30363d; --panel: #161b22; --given: #3d2716;
    --mark: #ff8a3d; --bar: #4aa3df; }
  svg [fill="#fff"] { fill: #0d1117; } svg [stroke="#fff"] { stroke: #0d1117; }
  svg [fill="#1f2328"] { fill: #e6edf3; } svg [stroke="#1f2328"] { stroke: #e6edf3; }
  svg [fill="#59636e"] { fill: #9aa4af; } svg [stroke="#59636e"] { stroke: #9aa4af; }
  svg [fill="#e4e7eb"] { fill: #30363d; } svg [stroke="#e4e7eb"] { stroke: #30363d; }
  svg [fill="#eef1f4"], svg [fill="#f6f8fa"] { fill: #21262d; }
  svg [fill="#fbe9df"] { fill: #3d2716; } svg [fill="#0072b2"] { fill: #4aa3df; }
  svg [stroke="#0072b2"] { stroke: #4aa3df; } svg [fill="#9a5a8b"] { fill: #cc79a7; }
  svg [stroke="#9a5a8b"] { stroke: #cc79a7; } svg [stroke="#7a6a00"] { stroke: #f0e442; }
}
@media print {
  body { margin: 0; max-width: none; font-size: 11pt; } figure, table, .caveat { break-inside: avoid; }
  h2 { break-after: avoid; } pre { columns: 2; font-size: 8pt; } tr.handed td { print-color-adjust: exact; }
}
"""


def page(title: str, body: Sequence[str]) -> str:
    """Return a self-contained HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def table(
    frame: pd.DataFrame,
    heads: Mapping[str, str],
    formats: Mapping[str, Callable[[Any], str]],
    row_class: Callable[[Mapping[str, Any]], str] = lambda row: "",
) -> str:
    """Return a table.

    Args:
        frame: its rows.
        heads: column to heading; other columns are dropped.
        formats: column to a function that formats a value; such columns are aligned as numbers.
        row_class: CSS class of a row.
    """
    columns = [name for name in heads if name in frame]
    kinds = {name: ' class="number"' if name in formats else "" for name in columns}
    head = "".join(f"<th{kinds[name]}>{escape(heads[name])}</th>" for name in columns)
    rows = []
    for row in frame.to_dict("records"):
        cells = "".join(f"<td{kinds[name]}>{_breakable(cell(row[name], formats.get(name)))}</td>" for name in columns)
        kind = row_class({str(key): value for key, value in row.items()})
        rows.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    body = "\n".join(rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _breakable(content: str) -> str:
    """Allow line breaks after the slashes of a long path."""
    return escape(content).replace("/", "/<wbr>")


def cell(value: Any, form: Callable[[Any], str] | None = None) -> str:
    """Format a value; a missing one is a dash."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "–"
    return str(value) if form is None else form(value)


def own_words(text: str) -> str:
    """Return words of the user, such as a class or a text, which stay as they are (see `spoken_page`)."""
    return f"<bdi>{escape(text)}</bdi>"


def figure(svg: str, caption: str) -> str:
    """Return a figure with its caption."""
    figcaption = f"<figcaption>{escape(caption)}</figcaption>\n" if caption else ""
    return f"<figure>\n{svg}{figcaption}</figure>"


def paragraphs(lines: Sequence[str]) -> list[str]:
    """Return sentences as paragraphs; those that start with ``Caveat:`` are highlighted."""
    caveat = "Caveat:"
    return [
        f'<p class="caveat"><strong>Caveat.</strong> {escape(_upper(sentence.removeprefix(caveat).strip()))}</p>'
        if sentence.startswith(caveat)
        else f"<p>{escape(sentence)}</p>"
        for sentence in lines
    ]


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def whole(value: Any) -> str:
    """Format an integer with thousands separators."""
    return f"{int(value):,}"


def fixed(digits: int) -> Callable[[Any], str]:
    """Return a function that formats a number with this many decimals."""
    return lambda value: f"{float(value):,.{digits}f}"
