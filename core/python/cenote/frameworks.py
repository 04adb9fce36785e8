"""One call that puts every framework of the process onto one resource."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from cenote import driver, mr, registry
from cenote.errors import DriverUnavailableError

__all__ = ["FRAMEWORKS", "InstallReport", "InstallRow", "install"]

FRAMEWORKS = ("torch", "cupy", "numba")
"""Frameworks that have a plugin, by the name of their package."""


@dataclass(frozen=True)
class InstallRow:
    """What became of one framework."""

    framework: str
    installed: bool
    detail: str


@dataclass(frozen=True)
class InstallReport:
    """What took effect, what did not and why; prints as a table."""

    resource: str
    """The specification of the resource that is current now; empty if none could be made."""
    rows: tuple[InstallRow, ...]

    def __iter__(self) -> Iterator[InstallRow]:
        return iter(self.rows)

    def __bool__(self) -> bool:
        return all(row.installed for row in self.rows)

    def __str__(self) -> str:
        width = max((len(row.framework) for row in self.rows), default=0)
        lines = [f"current resource: {self.resource or 'none'}"]
        lines += [f"  {'✓' if row.installed else '✗'} {row.framework:<{width}}  {row.detail}" for row in self.rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{'✓' if row.installed else '✗'}</td><td>{escape(row.framework)}</td>"
            f"<td>{escape(row.detail)}</td></tr>"
            for row in self.rows
        )
        return f"<table><caption>current resource: {escape(self.resource or 'none')}</caption>{cells}</table>"


def install(
    resource: mr.DeviceMemoryResource | str = "pool",
    frameworks: Iterable[str] | str = FRAMEWORKS,
    device: int | None = None,
) -> InstallReport:
    """Make `resource` current on a device and put the frameworks onto it.

    May be called again: what is in place already stays, and a specification that the current resource was made from
    does not make another.

    Parameters
    ----------
    resource : DeviceMemoryResource or str
        A resource, or a specification of one (see `cenote.mr.from_spec`).
    frameworks : str or iterable of str
        Any of ``"torch"``, ``"cupy"``, ``"numba"``.
    device : int, optional
        The device; the current one if not given.

    Returns
    -------
    InstallReport
        One row a framework: whether it took effect, and why not. A framework that is missing is no error.

    Raises
    ------
    ValueError
        A framework that is not known, or a specification that is wrong.
    """
    frameworks = (frameworks,) if isinstance(frameworks, str) else tuple(frameworks)
    for name in frameworks:
        if name not in FRAMEWORKS:
            raise ValueError(f"{name!r} is not a framework that cenote knows; known are: {', '.join(FRAMEWORKS)}")
    try:
        current = _make_current(resource, device)
    except DriverUnavailableError as error:
        return InstallReport("", tuple(InstallRow(name, False, f"no GPU: {error}") for name in frameworks))
    return InstallReport(current.specification, tuple(_install_framework(name) for name in frameworks))


# By device: the last specification, and what tells the resource that it gave from others. Not the resource itself,
# which must go when it has been replaced and its last block is freed.
_made_from: dict[int, tuple[str, int, str]] = {}


def _make_current(resource: mr.DeviceMemoryResource | str, device: int | None) -> mr.DeviceMemoryResource:
    on = driver.current_device() if device is None else device
    if isinstance(resource, str):
        current = registry.find_per_device_resource(on)
        if current is not None and _made_from.get(on) == (resource, hash(current), current.specification):
            return current
        made = mr.from_spec(resource, on)
        _made_from[on] = (resource, hash(made), made.specification)
        resource = made
    mr.set_per_device_resource(on, resource)
    return resource


def _install_framework(name: str) -> InstallRow:
    if importlib.util.find_spec(name) is None:
        return InstallRow(name, False, f"not installed: pip install 'cenote[{name}]'")
    if driver.is_simulated():
        why = "no GPU: the simulated device serves cenote's own calls, not a framework's kernels"
        return InstallRow(name, False, why)
    try:
        return InstallRow(name, True, importlib.import_module(f"cenote.allocators.{name}").install())
    except Exception as error:  # a framework that is broken must not keep the others from being installed
        return InstallRow(name, False, f"{type(error).__name__}: {error}")
