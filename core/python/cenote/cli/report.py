"""``cenote report``: a recording or a log as one page of HTML."""

from __future__ import annotations

import argparse

from cenote.cli.recordings import read_recording
from cenote.cli.replay import require_writable
from cenote.cli.terminal import Terminal
from cenote.explanation import explain


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, the recording or log, and ``page``, what to write.
    terminal : Terminal
        Where to say what was written.

    Returns
    -------
    int
        The exit status: 1 without matplotlib.
    """
    require_writable(args.page)
    explanation = explain(read_recording(args.file))
    try:
        explanation.save(args.page)
    except ImportError:
        terminal.line("No report written, as matplotlib is missing: pip install 'cenote[cli]'", "yellow")
        return 1
    terminal.line(f"Report: {args.page.resolve()}")
    return 0
