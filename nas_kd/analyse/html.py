"""Parts of an HTML page: tables, figures, the style sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1f2328;
  background: #fff; max-width: 1060px; margin: 32px auto 64px; padding: 0 20px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; }
p, ul { margin: 6px 0; } .soft, figcaption { color: #59636e; font-size: 13.5px; }
table { border-collapse: collapse; font-size: 13.5px; margin: 10px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; border-bottom: 1px solid #e4e7eb; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1.5px solid #59636e; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
tr.handed td { background: #fbe9df; } tr.teacher td { color: #59636e; }
figure { margin: 12px 0 20px; } figure svg { display: block; }
.caveat { border-left: 4px solid #d55e00; padding: 2px 12px; margin: 8px 0; }
.missing { border-left: 4px solid #aab2bb; padding: 2px 12px; margin: 12px 0; }
.wide { overflow-x: auto; }
code, pre { font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
pre { columns: 3 240px; column-gap: 28px; background: #f6f8fa; padding: 12px; margin: 8px 0;
  white-space: pre-wrap; }
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
