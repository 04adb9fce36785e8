"""``cenote explain``: what a recording or a log says of memory that ran out."""

from __future__ import annotations

import argparse
import json

from cenote.cli.recordings import read_recording
from cenote.cli.terminal import Terminal
from cenote.explanation import explain


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``file``, the recording or log, and ``json``.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    explanation = explain(read_recording(args.file))
    if args.json:
        print(json.dumps(explanation.to_dict(), indent=2))
    else:
        for line in str(explanation).splitlines():
            terminal.line(line)
    return 0
