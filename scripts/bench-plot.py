#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""Plots of the benches as SVG files: bars with their spread, and lines. Nothing but the standard library.

A script in Python takes the functions by path (the name of this file is none that `import` could read):

    plot = runpy.run_path("scripts/bench-plot.py")
    plot["plot_bars"](path, title, unit, rows=[(label, value, low, high)], log=False)
    plot["plot_lines"](path, title, xlabel, ylabel, series={name: [(x, y)]}, logx=False, logy=False)

From a shell: `bench-plot.py FILE.svg < figure.json` with an object of the same arguments and "kind": "bars" or "lines".

The text is drawn in system fonts; colours follow the reader's light or dark scheme. A value must be finite, and above zero on a
logarithmic axis: anything else is a ValueError that names it. `low` and `high` may be None: no whisker is drawn then.
"""
import json
import math
import sys
import xml.sax.saxutils

WIDTH = 860
MARGIN = 16
TITLE_HEIGHT = 40
BAR_PITCH = 30
BAR_HEIGHT = 16
AXIS_HEIGHT = 44
CHARACTER = 7.2  # mean width of a character at 13 px, on the wide side: labels must not run into the bars
LINES_HEIGHT = 420
TICKS = 6
# Told apart by most colour-blind eyes and legible on white and on black (Okabe and Ito 2008, the darker ones).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#a06030")

STYLE = """<style>
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#24292f}
.title{font-size:16px;font-weight:600}.small{font-size:11px;fill:#57606a}
.ground{fill:#fff}.grid{stroke:#d0d7de;stroke-width:1}.whisker{stroke:#24292f;stroke-width:1.5}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9da7b3}.ground{fill:#0d1117}
.grid{stroke:#30363d}.whisker{stroke:#e6edf3}}
</style>"""


def number(value):
    """As a person would write it: three significant digits, thousands parted."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    rounded = round(value, 2 - magnitude)
    return f"{rounded:,.0f}" if magnitude >= 2 else f"{rounded:.{2 - magnitude}f}".rstrip("0").rstrip(".")


def tick_text(value):
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def check(value, what, log):
    if not isinstance(value, (int, float)) or not math.isfinite(value) or (log and value <= 0):
        raise ValueError(f"{what}: {value!r} cannot be drawn on a {'logarithmic' if log else 'linear'} axis")
    return value


class Axis:
    """Turns values into pixels from `start` to `end` (which may be the smaller: y grows downwards)."""

    def __init__(self, values, log, start, end, zero=True):
        self.log, self.start, self.end = log, start, end
        low, high = min(values), max(values)
        if log:
            self.low = 10.0 ** math.floor(math.log10(low))
            self.high = 10.0 ** math.ceil(math.log10(high) + 1e-9)
            if self.high <= self.low:
                self.high = self.low * 10
            decades = round(math.log10(self.high / self.low))
            every = max(1, math.ceil(decades / TICKS))
            self.ticks = [self.low * 10.0 ** n for n in range(0, decades + 1, every)]
            return
        low = min(low, 0.0) if zero else low
        span = (high - low) or abs(high) or 1.0
        step = 10.0 ** math.floor(math.log10(span / TICKS))
        step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= TICKS)
        self.low = math.floor(low / step) * step
        self.high = math.ceil(high / step - 1e-9) * step
        if self.high <= self.low:
            self.high = self.low + step
        self.ticks = [self.low + step * n for n in range(round((self.high - self.low) / step) + 1)]

    def at(self, value):
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        share = ((math.log10(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def text(x, y, what, css="", anchor="start", more=""):
    css = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{css}{more}>{xml.sax.saxutils.escape(str(what))}</text>'


def line(x1, y1, x2, y2, css):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{css}"/>'


def write(path, height, title, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
            f'role="img" aria-label={xml.sax.saxutils.quoteattr(title)}>')
    body = [head, STYLE, f'<rect width="{WIDTH}" height="{height:.0f}" class="ground"/>',
            text(MARGIN, MARGIN + 14, title, "title"), *parts, "</svg>"]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(body) + "\n")


def plot_bars(path, title, unit, rows, log=False):
    """One horizontal bar a row: (label, value, low, high), value written at its end, a whisker from low to high."""
    if not rows:
        raise ValueError(f"{title}: nothing to draw")
    spread = [check(value, label, log) for label, *values in rows for value in values if value is not None]
    left = min(MARGIN + 8 + CHARACTER * max(len(label) for label, *_ in rows), WIDTH * 0.55)
    axis = Axis(spread, log, left, WIDTH - MARGIN - 70)
    bottom = TITLE_HEIGHT + BAR_PITCH * len(rows)
    parts = []
    for tick in axis.ticks:
        parts += [line(axis.at(tick), TITLE_HEIGHT, axis.at(tick), bottom, "grid"),
                  text(axis.at(tick), bottom + 15, tick_text(tick), "small", "middle")]
    for index, (label, value, low, high) in enumerate(rows):
        top = TITLE_HEIGHT + BAR_PITCH * index + (BAR_PITCH - BAR_HEIGHT) / 2
        middle = top + BAR_HEIGHT / 2
        zero = axis.at(axis.low if log else max(axis.low, 0.0))
        end = axis.at(value)
        parts += [text(left - 8, middle + 4.5, label, anchor="end"),
                  f'<rect x="{min(zero, end):.1f}" y="{top:.1f}" width="{max(abs(end - zero), 1):.1f}" height="{BAR_HEIGHT}" rx="2" '
                  f'fill="{COLOURS[index % len(COLOURS)]}"/>']
        if low is not None and high is not None:
            parts += [line(axis.at(low), middle, axis.at(high), middle, "whisker"),
                      line(axis.at(low), middle - 4, axis.at(low), middle + 4, "whisker"),
                      line(axis.at(high), middle - 4, axis.at(high), middle + 4, "whisker")]
            end = max(end, axis.at(high))
        parts.append(text(end + 6, middle + 4.5, number(value)))
    parts.append(text(axis.start, bottom + 34, unit + (", logarithmic" if log else ""), "small"))
    write(path, bottom + AXIS_HEIGHT, title, parts)


def plot_lines(path, title, xlabel, ylabel, series, logx=False, logy=False):
    """One line a series, {name: [(x, y)]}, with its points marked; the legend stands on the right."""
    if not series or not all(series.values()):
        raise ValueError(f"{title}: a series has no points")
    points = [(check(x, f"{name}, x", logx), check(y, f"{name}, y", logy)) for name, line_ in series.items() for x, y in line_]
    right = WIDTH - MARGIN - 34 - CHARACTER * max(len(name) for name in series)
    bottom = LINES_HEIGHT - AXIS_HEIGHT
    across = Axis([x for x, _ in points], logx, MARGIN + 56, max(right, WIDTH * 0.5), zero=False)
    up = Axis([y for _, y in points], logy, bottom, TITLE_HEIGHT + 24)
    parts = [text(MARGIN, TITLE_HEIGHT + 8, ylabel, "small")]
    for tick in up.ticks:
        parts += [line(across.start, up.at(tick), across.end, up.at(tick), "grid"),
                  text(across.start - 6, up.at(tick) + 4, tick_text(tick), "small", "end")]
    for tick in across.ticks:
        parts += [line(across.at(tick), up.end, across.at(tick), bottom, "grid"),
                  text(across.at(tick), bottom + 15, tick_text(tick), "small", "middle")]
    parts.append(text((across.start + across.end) / 2, bottom + 34, xlabel, "small", "middle"))
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [(across.at(x), up.at(y)) for x, y in sorted(values)]
        path_text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path_text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(places) <= 40:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        legend = TITLE_HEIGHT + 30 + index * 20
        parts += [f'<rect x="{across.end + 14:.1f}" y="{legend - 9}" width="12" height="12" rx="2" fill="{colour}"/>',
                  text(across.end + 32, legend + 2, name)]
    write(path, LINES_HEIGHT, title, parts)


def main():
    if len(sys.argv) != 2:
        print("usage: bench-plot.py FILE.svg < figure.json", file=sys.stderr)
        return 2
    try:
        figure = json.load(sys.stdin)
        kind = {"bars": plot_bars, "lines": plot_lines}[figure.pop("kind")]
        kind(sys.argv[1], **figure)
    except (ValueError, KeyError, TypeError, OSError) as error:
        print(f"bench-plot: cannot draw {sys.argv[1]}: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
