"""A pool that is watched: counted and logged above, and asked again and again how much it holds."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cenote import mr, timeline, trace

_SECONDS_BETWEEN_LOOKS = 0.001


class ObservedPool:
    """``statistics | logging | pool | virtual``: what is taken from the pool, and what it holds meanwhile.

    Parameters
    ----------
    device : int
        Where the memory is.
    folder : Path
        Where the log and the bytes held are written.
    """

    def __init__(self, device: int, folder: Path) -> None:
        self._held_file = folder.resolve() / f"held.dev{device}.csv"
        pool = mr.from_spec("pool", device)
        assert isinstance(pool, mr.PoolMemoryResource)
        self.pool = pool
        self.log = mr.LoggingResourceAdaptor(self.pool, folder / "allocations.csv")
        self.resource = mr.StatisticsResourceAdaptor(self.log)
        self._looks: dict[int, int] = {}  # bytes held, by how many allocations and frees there were by then

    def look(self) -> None:
        """Note how much the pool holds now."""
        counts = self.resource.allocation_counts
        self._looks[2 * counts.total_count - counts.current_count] = self.pool.pool_size()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look every millisecond, from a thread of its own."""
        ends = threading.Event()

        def look_until_the_end() -> None:
            while not ends.wait(_SECONDS_BETWEEN_LOOKS):
                self.look()

        looking = threading.Thread(target=look_until_the_end, daemon=True)
        looking.start()
        try:
            yield
        finally:
            ends.set()
            looking.join()

    def files(self) -> tuple[Path, Path]:
        """Write out the log and the bytes held, and give their paths."""
        self.log.flush()
        self.look()
        with self._held_file.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["Allocations and frees", "Bytes held"])
            writer.writerows(sorted(self._looks.items()))
        return Path(self.log.get_file_name()), self._held_file

    def draw(self, path: Path, title: str, subtitle: str, by_event: bool) -> None:
        """Draw what was logged and what was held; ModuleNotFoundError without matplotlib."""
        in_use = timeline.from_trace(trace.read(self.files()[0]))
        events, held = np.array(sorted(self._looks.items()), np.int64).T
        last = len(in_use.time_us) - 1
        steps = timeline.Steps(in_use.time_us[np.clip(events - 1, 0, last)], held)
        timeline.draw(path, in_use, steps, title, subtitle, by_event)
