"""A resource of a specification that is made again and again, each time with another amount of memory at the most.

There are two ways to limit it. A pool has a maximum, ``max=``, of what it holds: that is set where the specification
has a pool, on the innermost one, which is the one that takes memory from the driver. For any other resource the
simulated device is made anew in the size of the limit.
"""

from __future__ import annotations

from enum import Enum

from cenote import driver, mr
from cenote._core.memory_resource import first_in_stack
from cenote._core.specification import specification_words
from cenote.cli.simulated_machine import LARGEST_BYTES, SimulatedMachine
from cenote.units import parse_bytes

_POOL = "pool"


class Way(Enum):
    """What limits the memory of a resource, in words."""

    MAXIMUM = "max= of the pool"
    DEVICE = "the size of the device"


class LimitedResource:
    """What makes the resource of a specification.

    Parameters
    ----------
    specification : str
        As the user wrote it.
    device : int
        Where the memory is.
    machine : SimulatedMachine or None
        What makes devices in any size; None on a real one, where a pool alone can be limited.
    way : Way, optional
        How to limit it; that of the specification if not given.

    Raises
    ------
    ValueError
        If the specification is wrong, has a maximum of its own, or cannot be limited on this device; the text says what
        to do.
    """

    def __init__(
        self, specification: str, device: int, machine: SimulatedMachine | None, way: Way | None = None
    ) -> None:
        self.specification = specification
        self.way = way_of(specification) if way is None else way
        self._device = device
        self._machine = machine
        self._device_bytes = driver.memory_info(device)[1] if machine is None else machine.device_bytes
        self._words = specification_words(specification)
        pools = [at for at, word in enumerate(self._words) if _kind(word) == _POOL]
        self._pool = max(pools, default=0)
        if any("max" in _parameters(self._words[at]) for at in pools):
            raise ValueError(f"'{specification}': leave max= out, which is what --capacity min finds")
        if machine is None and self.way is Way.DEVICE:
            raise ValueError(
                f"'{specification}' is limited by the size of the device alone, and this device has one size: add "
                "--simulate, or put a pool over it, as in 'pool | cuda'"
            )

    @property
    def most_bytes(self) -> int:
        """The largest limit that makes sense."""
        return self._device_bytes if self.way is Way.MAXIMUM else LARGEST_BYTES

    def take_the_largest_device(self) -> bool:
        """Have all that follows run on the largest device that can be simulated; False where there is no other."""
        if self._machine is None or self._device_bytes == LARGEST_BYTES:
            return False
        self._device_bytes = LARGEST_BYTES
        return True

    def make(self, limit: int | None = None) -> mr.DeviceMemoryResource:
        """Make the resource, with so many bytes at the most, or with all that the device has.

        On a simulated device all that was allocated before is gone.
        """
        words = list(self._words)
        if limit is not None and self.way is Way.MAXIMUM:
            words[self._pool] = self._limited_pool(limit)
        if self._machine is not None:
            self._machine.resize(self._device_bytes if limit is None or self.way is Way.MAXIMUM else limit)
        return mr.from_spec(" | ".join(words), self._device)

    def held_by(self, resource: mr.DeviceMemoryResource) -> int:
        """Give the bytes that a resource, made by `make`, holds now."""
        return bytes_held_by(resource, self._device, driver.memory_info(self._device)[1])

    def _limited_pool(self, limit: int) -> str:
        """Spell the word of the pool with a maximum, and with no more than that at the start."""
        parameters = _parameters(self._words[self._pool])
        if "initial" in parameters and self._initial_bytes(parameters["initial"]) > limit:
            parameters["initial"] = str(limit)
        parameters["max"] = str(limit)
        return f"{_POOL}:{','.join(f'{name}={value}' for name, value in parameters.items())}"

    def _initial_bytes(self, text: str) -> int:
        if text.endswith("%"):
            return int(self._device_bytes * float(text[:-1]) / 100)
        return parse_bytes(text)


def bytes_held_by(resource: mr.DeviceMemoryResource, device: int, free_before: int) -> int:
    """Give the bytes that a resource holds now.

    Those of its innermost pool; else what the device has given since it had `free_before` bytes free.
    """
    innermost = None
    pool = first_in_stack(resource, mr.PoolMemoryResource)
    while pool is not None:
        innermost, pool = pool, first_in_stack(pool.upstream_mr, mr.PoolMemoryResource)
    if innermost is not None:
        return innermost.pool_size()
    return max(0, free_before - driver.memory_info(device)[0])


def way_of(specification: str) -> Way:
    """Tell how the resource of a specification is limited."""
    return Way.MAXIMUM if _POOL in map(_kind, specification_words(specification)) else Way.DEVICE


def _kind(word: str) -> str:
    return word.partition(":")[0].strip()


def _parameters(word: str) -> dict[str, str]:
    given = (each.partition("=") for each in word.partition(":")[2].split(",") if each.strip())
    return {name.strip(): value.strip() for name, _, value in given}
