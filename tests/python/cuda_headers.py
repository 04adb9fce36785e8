"""CUDA's headers, as the wheels that the tests need bring them."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def wheel_include_folders() -> list[Path]:
    """Where the wheel nvidia-cuda-runtime has put CUDA's headers; in `cccl` below it are those of nvidia-cuda-cccl."""
    spec = importlib.util.find_spec("nvidia")
    assert spec is not None, "the wheel is not there: pip install 'cenote[test]'"
    roots = [Path(location) for location in spec.submodule_search_locations or ()]
    return [header.parent.resolve() for root in roots for header in root.glob("cu*/include/cudaTypedefs.h")]
