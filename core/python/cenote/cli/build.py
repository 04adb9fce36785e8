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
        ``framework``: for which; ``force``: whether to compile what is there already.
    terminal : Terminal
        Where to report.

    Returns
    -------
    int
        The exit status.
    """
    module, what = _BUILDS[args.framework]
    builder = importlib.import_module(module)
    library, was_built = builder.found()
    was_built = was_built and not args.force
    if not was_built:
        terminal.line(f"compiling {what} {library} …")
    path = builder.build(force=args.force)
    terminal.line(f"{'built before' if was_built else 'built'}: {path}")
    return 0


_BUILDS = {
    "torch": ("cenote.allocators.torch.full_build", "the full allocator for PyTorch"),
    "rmm": ("cenote.allocators.rmm.extension_build", "the resource for RMM"),
}
"""The module that builds for a framework, and what."""
