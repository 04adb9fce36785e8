"""``cenote build``: compiles what needs a framework's own headers, when it is asked to."""

from __future__ import annotations

import argparse
import importlib

from cenote.cli.terminal import Terminal

__all__ = ["run"]


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Run the command.

    Parameters
    ----------
    args : argparse.Namespace
        ``force``: whether to compile what is there already.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    full_build = importlib.import_module("cenote.allocators.torch.full_build")
    torch = full_build.find_torch()
    was_built = full_build.built_library(torch) is not None and not args.force
    if not was_built:
        terminal.line(f"compiling the full allocator for PyTorch {torch.version} …")
    path = full_build.build(force=args.force)
    terminal.line(f"{'built before' if was_built else 'built'}: {path}")
    return 0
