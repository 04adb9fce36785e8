"""What a process may hold of each device, in all its resources together. Documented in `cenote`."""

from __future__ import annotations

from dataclasses import dataclass

from cenote import driver
from cenote._core.arguments import whole_number
from cenote._core.budget import budget_of, set_budget

__all__ = ["Budget", "budget", "get_budget"]


@dataclass(frozen=True)
class Budget:
    """What a process may hold of a device, and what it holds; in bytes."""

    device: int
    limit: int | None
    """None where there is no budget."""
    held: int


def budget(amount: int | str | None, device: int | None = None) -> None:
    """Bound what this process holds of each device, in all its resources together.

    It holds for pages and chunks of pools, for ``cuda``, ``virtual`` and ``async``, whose driver's pool may pass
    it by what it grows by at a time. Where there is no room, memory has run out as if the device had none: an
    allocation raises the usual error, which names the budget where that is the smallest limit. Not in it are managed
    and host memory, the driver's contexts, and what libraries take that do not allocate from cenote.

    What is held already stays. The environment variable ``CENOTE_BUDGET`` sets one at the start.

    Parameters
    ----------
    amount : int or str or None
        Bytes, also as a text such as ``"20GiB"``, or a share of each device's memory, such as ``"60%"``. None for no
        budget; of one device, for that of all.
    device : int, optional
        The one device that it holds for; all that have none of their own if not given.

    Raises
    ------
    TypeError
        An amount of another type.
    ValueError
        An amount that is neither.
    IndexError
        There is no such device.
    """
    if amount is None:
        text = ""
    elif isinstance(amount, str):
        text = amount.strip()
        if not text:
            raise ValueError("amount must be bytes or a share for a budget, and is empty: None is for no budget")
    else:
        text = str(whole_number("amount", amount, "bytes as int, or a text such as '20GiB' or '60%'"))
    set_budget(text, device)


def get_budget(device: int | None = None) -> Budget:
    """Give the budget of a device, the current one if none is given, and what the process holds of it.

    Raises
    ------
    IndexError
        There is no such device.
    """
    number = driver.current_device() if device is None else device
    return Budget(number, *budget_of(number))
