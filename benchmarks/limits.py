"""Draws what an update gives away against tokens and rank, from the journal of the suite span-limits.

qlorabench run span-limits
python -m benchmarks.limits runs/span-limits docs/span-limits.svg
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from qlorabench.records.record import Record
from qlorabench.records.results import read_results

RANKS, TEXTS = (4, 8, 64), (1, 2, 4)
ROWS = (("both", "A and B train"), ("frozen", "A is frozen"))
COLUMNS = (("span", "span: rows of the update"), ("attention-span", "attention-span: columns of dB"))
EXTRAS = {
    "t4-rounds24": "4 texts, 24 rounds",
    "t1-q8": "1 text, 8-bit upload",
    "t1-q4": "1 text, 4-bit upload",
    "t1-dp": "1 text, DP epsilon 8",
    "t1-adamw": "1 text, AdamW",
}
METRIC = "token_recall_clients"
CELL, HIGH, LEFT = 62, 30, 96
WIDTH, PANEL = 760, 366
FONT = "font-family='system-ui, sans-serif'"


def recalls(records: Iterable[Record]) -> dict[tuple[str, str], Record]:
    """Return the row of `METRIC`, or the one that says why there is none, by (system, attack)."""
    rows = [r for r in records if r.kind == "leakage" and (r.metric == METRIC or r.status != "ok")]
    return {(row.system, str(row.attack)): row for row in rows}


def colour(value: float) -> str:
    """Return white at 0 to dark red at 1."""
    low, high = (250, 250, 250), (178, 34, 34)
    return "#" + "".join(f"{round(a + (b - a) * value):02x}" for a, b in zip(low, high, strict=True))


def text(x: float, y: float, words: str, *, size: int = 12, anchor: str = "start", fill: str = "#222") -> str:
    """Return one line of text."""
    return (
        f"<text x='{x}' y='{y}' font-size='{size}' text-anchor='{anchor}' fill='{fill}' {FONT}>{escape(words)}</text>"
    )


def box(x: float, y: float, row: Record | None) -> str:
    """Return a cell with its share; a dash where the attack says that it sees no signal."""
    if row is None or row.value is None:
        return f"<rect x='{x}' y='{y}' width='{CELL}' height='{HIGH}' fill='#e8e8e8' stroke='#fff'/>" + text(
            x + CELL / 2, y + 20, "-", anchor="middle"
        )
    fill = "#fff" if row.value > 0.5 else "#222"
    return f"<rect x='{x}' y='{y}' width='{CELL}' height='{HIGH}' fill='{colour(row.value)}' stroke='#fff'/>" + text(
        x + CELL / 2, y + 20, f"{row.value:.2f}", anchor="middle", fill=fill
    )


def panel(x: float, y: float, factor: str, attack: str, found: Mapping[tuple[str, str], Record]) -> list[str]:
    """Return the shares by rank and texts an update, and under them the other axes at rank 8."""
    parts = []
    for i, rank in enumerate(RANKS):
        parts.append(text(x + LEFT + (i + 0.5) * CELL, y + 12, f"r = {rank}", anchor="middle"))
        for j, texts in enumerate(TEXTS):
            row = found.get((f"{factor}-r{rank}-t{texts}", attack))
            parts.append(box(x + LEFT + i * CELL, y + 18 + j * HIGH, row))
    for j, texts in enumerate(TEXTS):
        parts.append(text(x + LEFT - 8, y + 38 + j * HIGH, f"{texts} text{'s' * (texts > 1)}", anchor="end"))
    below = y + 18 + len(TEXTS) * HIGH + 10
    for k, (suffix, words) in enumerate(EXTRAS.items()):
        top = below + k * HIGH
        parts.append(text(x + LEFT + 2 * CELL - 8, top + 20, f"r = 8, {words}", anchor="end"))
        parts.append(box(x + LEFT + 2 * CELL, top, found.get((f"{factor}-r8-{suffix}", attack))))
    return parts


def picture(found: Mapping[tuple[str, str], Record]) -> str:
    """Return the SVG."""
    tall = 18 + (len(TEXTS) + len(EXTRAS)) * HIGH + 54
    height = 74 + len(ROWS) * tall
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}'>",
        f"<rect width='{WIDTH}' height='{height}' fill='#fff'/>",
        text(14, 24, "Share of a text's tokens that a server reads out of the updates", size=16),
        text(14, 44, "MiniLM, film reviews of at most 20 tokens, 8 companies, 2 rounds of SGD; mean over companies."),
    ]
    for j, (factor, said) in enumerate(ROWS):
        for i, (attack, words) in enumerate(COLUMNS):
            x, y = 14 + i * PANEL, 74 + j * tall
            parts += [text(x, y, f"{said}; {words}", size=13), *panel(x, y + 10, factor, attack, found)]
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Draw the journal of the run folder named first into the file named second."""
    run, out = Path(sys.argv[1]), Path(sys.argv[2])
    found = recalls(record for part in read_results(run) for record in part.records)
    if not found:
        sys.exit(f"{run} holds no results of span-limits: run `qlorabench run span-limits` and name runs/span-limits")
    out.write_text(picture(found))


if __name__ == "__main__":
    main()
