"""Each thing that PyTorch users do with memory does the same on PyTorch's own allocator and on cenote."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

sys.path.insert(0, str(Path(__file__).parent))
import torch_features as features


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()


@cache
def _result(allocator: str, name: str) -> tuple[bool, str]:
    return features.run_one(allocator, name)


def _rows(names: list[str]) -> list[ParameterSet]:
    """Give a row to each feature, in one process for both allocators; those alone that look at all of the device."""
    alone = features.ALONE
    return [
        pytest.param(name, marks=[pytest.mark.xdist_group(name), *([pytest.mark.alone] if name in alone else [])])
        for name in names
    ]


OF_BOTH = [name for name in features.FEATURES if name not in features.OF_CENOTE]


@pytest.mark.parametrize("name", _rows(OF_BOTH))
def test_it_works_with_pytorchs_own_allocator(name: str) -> None:
    passed, text = _result("native", name)
    assert passed, text


@pytest.mark.parametrize("name", _rows(list(features.FEATURES)))
def test_it_works_with_cenote(name: str) -> None:
    passed, text = _result("cenote", name)
    assert passed, text
    if name in OF_BOTH:
        assert _result("native", name) == (True, text), "another result than with PyTorch's own allocator"
