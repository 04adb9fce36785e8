"""Each thing that PyTorch users do with memory does the same on PyTorch's own allocator and on cenote."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).with_name("torch_features.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torch_features", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


features = _load()


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    pytest.importorskip("torch")
    from cenote.allocators.torch import full_build

    full_build.build()


@cache
def _result(allocator: str, name: str) -> tuple[bool, str]:
    return features.run_one(allocator, name)


@pytest.mark.parametrize("name", features.FEATURES)
def test_it_works_with_pytorchs_own_allocator(name: str) -> None:
    passed, text = _result("native", name)
    assert passed, text


@pytest.mark.parametrize("name", features.FEATURES)
def test_it_works_with_cenote(name: str) -> None:
    passed, text = _result("cenote", name)
    assert passed, text
    assert _result("native", name) == (True, text), "another result than with PyTorch's own allocator"
