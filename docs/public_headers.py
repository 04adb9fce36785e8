"""Which headers a program in C++ may name: what ``cenote/cenote.hpp`` includes, and the few beside it."""

from __future__ import annotations

import re
from pathlib import Path

CORE = Path(__file__).parents[1] / "core" / "cpp"
ALL = "cenote/cenote.hpp"

# Not in it: each stands on another library or language.
OTHERS = ["cenote/cccl.hpp", "cenote/thrust.hpp", "cenote/cenote.h"]


def includes(source: Path) -> list[str]:
    """Return what a file includes of cenote, in its order."""
    return re.findall(r'^#include "(cenote/.+)"$', source.read_text(encoding="utf-8"), re.MULTILINE)


def public_headers() -> list[str]:
    """Return every header that a program may name, as it would, in the order of the folders and of the alphabet."""
    return includes(CORE / ALL) + OTHERS
