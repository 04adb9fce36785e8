"""Reports: one page of a run, an HTML file that needs no other file and no network.

::

    cenote.report.write_report("run.html", cenote.explain())
    cenote report run.html --recording run.4711.dev0.rec          (the command)
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from cenote.explanation import KINDS_OF_HOLDERS, Explanation, text_of_step
from cenote.logs._output_file import write_whole
from cenote.logs._picture import GRID, INK, MUTED, STONE, WATER, dress
from cenote.logs.trace import path_argument
from cenote.recorder import Event, Recording
from cenote.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["table_of", "write_report"]

_MOST_CURVES = 7
_MOST_POINTS = 600
_MOST_EVENTS = 40
_MOST_HOLDERS = 20
_OF_CLIENTS = (Event.ALLOCATE, Event.FREE, Event.FAILURE)
_COLOURS = (WATER, STONE, "#e3a72f", "#5b7b3a", "#7d5ba6", "#3e6fb0", "#b0588a", MUTED)

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: {INK}; margin: 0 auto; max-width: 70rem; padding: 1.5rem; }}
h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
p.sub {{ color: {MUTED}; margin: 0 0 1rem; overflow-wrap: anywhere; }}
p.why {{ border-left: 4px solid {STONE}; padding: .5rem 1rem; background: #fbf5f3; }}
.scroll {{ overflow-x: auto; }}
.columns {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0 2.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid {GRID}; }}
th {{ color: {MUTED}; font-weight: normal; }}
td.n, th.n {{ text-align: right; white-space: nowrap; padding-right: 1.5rem; }}
td:last-child, th:last-child {{ padding-right: 0; }} td {{ overflow-wrap: break-word; }}
td:first-child {{ overflow-wrap: anywhere; min-width: 8rem; }}
summary {{ cursor: pointer; font-size: 1.1rem; font-weight: bold; margin: 2rem 0 .5rem; }}
.bar {{ display: flex; height: 1.6rem; border-radius: 4px; overflow: hidden; }} .bar span {{ min-width: 1px; }}
.key {{ display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .4rem; }}
svg {{ width: 100%; min-width: 30rem; height: auto; }}
ul.keys {{ list-style: none; margin: .25rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0 1.25rem; }}
.advice {{ border-left: 4px solid {WATER}; padding: .5rem 1rem; background: #f0f7f9; margin: .5rem 0; }}
.advice code {{ overflow-wrap: anywhere; }}
pre {{ background: #f5f7fa; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
"""


def write_report(path: str | os.PathLike[str], explanation: Explanation) -> None:
    """Write the page of an explanation.

    Parameters
    ----------
    path : path-like
        The file; what was there is replaced.
    explanation : Explanation
        What `cenote.explain` returned.

    Raises
    ------
    TypeError
        If `path` is no path, or `explanation` none.
    OSError
        If it cannot be written.
    ModuleNotFoundError
        Without matplotlib; ``pip install 'cenote[cli]'`` brings it.
    """
    file = path_argument(path)
    if not isinstance(explanation, Explanation):
        raise TypeError(f"explanation must be what cenote.explain returned, not {type(explanation).__name__}")
    write_whole(file, _page(explanation).encode())


def table_of(explanation: Explanation) -> str:
    """Give an explanation as HTML without pictures, for a notebook."""
    if not isinstance(explanation, Explanation):
        raise TypeError(f"explanation must be what cenote.explain returned, not {type(explanation).__name__}")
    return f"<p>{escape(explanation.why)}</p>{_account(explanation)}{_holders(explanation)}"


def _page(explanation: Explanation) -> str:
    recording = explanation.recording
    made = datetime.fromtimestamp(recording.time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    wrapped = ", earlier ones are overwritten" if recording.is_wrapped else ""
    subtitle = (
        f"device {recording.device}, process {recording.process}, {made}; {len(recording.events):,} events{wrapped}"
    )
    title = "Out of memory" if explanation.requested is not None else "What memory is used for"
    parts = [
        f"<h1>{title}</h1><p class=sub>{escape(subtitle)}</p>",
        f"<p class=why>{escape(explanation.why)}</p>",
        f"<p class=sub>{escape(explanation.resource)}</p>" if explanation.resource else "",
        _advice(explanation),
        _account(explanation),
        _holders(explanation),
        f"<div class=columns>{_growing(explanation)}{_steps(explanation)}</div>",
        *(_picture(f"Bytes over time, by {by}", *_curves(recording, by)) for by in ("client", "tag")),
        _picture("Where the blocks lie", *_address_map(recording)),
        _events(recording),
        f"<h2>The error</h2><pre>{escape(explanation.message)}</pre>" if explanation.message else "",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        f'initial-scale=1"><title>{title}</title><style>{_STYLE}</style></head><body>{"".join(parts)}</body></html>\n'
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table; headings that begin with a blank are of numbers."""
    classes = [" class=n" if heading.startswith(" ") else "" for heading in headings]
    head = "".join(f"<th{c}>{escape(text.strip())}</th>" for c, text in zip(classes, headings, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{escape(text)}</td>" for c, text in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _account(explanation: Explanation) -> str:
    if not explanation.account:
        return ""
    total = sum(part.bytes for part in explanation.account) or 1
    colours = [*_COLOURS[: len(explanation.account) - 1], GRID]
    spans = "".join(
        f'<span style="width:{part.bytes / total:.3%};background:{colour}" title="{escape(part.name)}"></span>'
        for part, colour in zip(explanation.account, colours, strict=True)
    )
    rows = "".join(
        f'<tr><td><span class=key style="background:{colour}"></span>{escape(part.name)}</td>'
        f"<td class=n>{format_bytes(part.bytes)}</td><td class=n>{part.bytes / total:.1%}</td></tr>"
        for part, colour in zip(explanation.account, colours, strict=True)
    )
    return f"<h2>The device's memory</h2><div class=bar>{spans}</div><div class=scroll><table>{rows}</table></div>"


def _holders(explanation: Explanation) -> str:
    pieces = []
    for kind, heading, nameless in KINDS_OF_HOLDERS:
        holders = [each for each in explanation.holders if each.kind == kind]
        rows = [
            (each.name or nameless, format_bytes(each.bytes), f"{each.blocks:,}") for each in holders[:_MOST_HOLDERS]
        ]
        if rest := holders[_MOST_HOLDERS:]:
            blocks = sum(each.blocks for each in rest)
            rows.append((f"{len(rest):,} others", format_bytes(sum(each.bytes for each in rest)), f"{blocks:,}"))
        if rows:
            table = _table((heading, " bytes", " blocks"), rows)
            pieces.append(f"<section><h2>Held by {heading}</h2>{table}</section>")
    return f"<div class=columns>{''.join(pieces)}</div>"


def _growing(explanation: Explanation) -> str:
    rows = [
        (f"{each.kind} {each.name or '(no tag)'}", format_bytes(each.bytes), format_bytes(each.held_bytes))
        for each in explanation.growing
    ]
    table = _table(("", " grown by", " now"), rows)
    return f"<section><h2>Only growing</h2>{table}</section>" if rows else ""


def _steps(explanation: Explanation) -> str:
    rows = [(step.name, text_of_step(step)) for step in explanation.steps]
    table = _table(("step", "what it gave"), rows)
    return f"<section><h2>Tried before it failed</h2>{table}</section>" if rows else ""


def _advice(explanation: Explanation) -> str:
    pieces = []
    for each in explanation.advice:
        is_another = each.specification != explanation.resource
        paste = f"<br><code>{escape(each.specification)}</code>" if is_another else ""
        pieces.append(f"<p class=advice>{escape(each.text)}{paste}</p>")
    return f"<h2>What would have helped, tried on the simulated device</h2>{''.join(pieces)}" if pieces else ""


def _events(recording: Recording) -> str:
    newest = recording.events[-_MOST_EVENTS:][::-1]
    if not len(newest):
        return ""
    rows = [
        (
            Event(event).name.lower() if event in Event._value2member_map_ else str(event),
            format_bytes(nbytes),
            _name_of(recording, client) if event in _OF_CLIENTS else "",
            recording.tags[tag] if 0 < tag < len(recording.tags) else "",
            str(thread),
            f"{(recording.time_ns - time_ns) / 1e6:,.0f}",
        )
        for time_ns, thread, event, _, nbytes, _, client, tag in newest.tolist()
    ]
    headings = ("event", " bytes", "client", "tag", " thread", " ms before the end")
    return f"<details><summary>The last {len(rows)} events</summary>{_table(headings, rows)}</details>"


def _picture(title: str, figure: Figure | None, keys: Iterable[tuple[str, str]]) -> str:
    """Put a picture and its keys, colours with their names, under a heading."""
    if figure is None:
        return ""
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    svg = picture.getvalue()
    named = "".join(
        f'<li><span class=key style="background:{colour}"></span>{escape(name)}</li>' for colour, name in keys
    )
    return f"<h2>{escape(title)}</h2><ul class=keys>{named}</ul><div class=scroll>{svg[svg.index('<svg') :]}</div>"


def _new_figure(height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(9, height), facecolor="white", layout=ConstrainedLayoutEngine())


def _curves(recording: Recording, by: str) -> tuple[Figure | None, list[tuple[str, str]]]:
    """Stack what the largest holders have over time; None where there is nothing to tell apart."""
    curves = recording.bytes_over_time(by) if len(recording.events) > 1 else {}
    if by == "tag" and not any(curves):
        return None, []
    ordered = sorted(
        ((name, curve) for name, curve in curves.items() if curve.max(initial=0)), key=lambda c: -c[1].max()
    )
    if not ordered:
        return None, []
    shown, others = ordered[:_MOST_CURVES], ordered[_MOST_CURVES:]
    if others:
        shown.append((f"{len(others)} others", np.sum([curve for _, curve in others], axis=0)))
    at = np.unique(np.linspace(0, len(recording.events) - 1, _MOST_POINTS).astype(int))
    seconds = (recording.events["time_ns"][at] - recording.events["time_ns"][0]) / 1e9
    most = max(int(np.sum([curve for _, curve in shown], axis=0).max()), 1)
    power = min((most.bit_length() - 1) // 10, 4)
    figure = _new_figure(3.2)
    axes = figure.subplots()
    stacked = [curve[at] / 1024**power for _, curve in shown]
    colours = _colours_of_clients(recording) if by == "client" else {}
    keys = [(colours.get(name, _COLOURS[at]), name or "(no tag)") for at, (name, _) in enumerate(shown)]
    axes.stackplot(seconds, stacked, colors=[colour for colour, _ in keys], step="post", linewidth=0)
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    dress(axes, "time [s]", f"memory [{unit}]", "", "")
    axes.set_xlim(0, max(float(seconds[-1]), 1e-3))
    axes.set_ylim(0, most / 1024**power * 1.05)
    return figure, keys


def _colours_of_clients(recording: Recording) -> dict[str, str]:
    """Give each client the same colour in all pictures."""
    return {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(recording.clients)}


def _address_map(recording: Recording) -> tuple[Figure | None, list[tuple[str, str]]]:
    """Draw the blocks that are held as stripes in rows of addresses; long gaps between them are left out."""
    blocks = sorted((address, *block) for address, block in recording.held_at_the_end().items())
    if not blocks:
        return None, []
    gap = 64 << 20
    runs: list[list[tuple[int, int, int]]] = []
    end = -1
    for address, nbytes, _, client, _ in blocks:
        if end < 0 or address - end > gap:
            runs.append([])
        runs[-1].append((address, nbytes, client))
        end = max(end, address + nbytes)
    runs = sorted(runs, key=lambda run: -sum(nbytes for _, nbytes, _ in run))[:8]
    figure = _new_figure(0.7 + 0.45 * len(runs))
    axes = figure.subplots()
    longest = max(run[-1][0] + run[-1][1] - run[0][0] for run in runs)
    for row, run in enumerate(runs):
        axes.broken_barh([(0, run[-1][0] + run[-1][1] - run[0][0])], (row - 0.35, 0.7), facecolors=GRID)
        for client in sorted({client for _, _, client in run}):
            spans = [(address - run[0][0], nbytes) for address, nbytes, its in run if its == client]
            axes.broken_barh(
                spans, (row - 0.35, 0.7), facecolors=_COLOURS[client % len(_COLOURS)], lw=0, rasterized=True
            )
    shown = sorted({client for run in runs for _, _, client in run})
    keys = [(_COLOURS[client % len(_COLOURS)], _name_of(recording, client)) for client in shown]
    axes.set_yticks(range(len(runs)), [f"{run[0][0]:#x}" for run in runs])
    axes.invert_yaxis()
    ticks = np.linspace(0, longest, 5)
    dress(axes, "from the first block on", "", "", "", grid="x")
    axes.set_xticks(ticks, [format_bytes(int(tick)) for tick in ticks])
    axes.set_xlim(0, longest)
    return figure, keys


def _name_of(recording: Recording, client: int) -> str:
    return recording.clients[client] if client < len(recording.clients) else f"client {client}"
