"""A pool that is watched: counted and logged above, logged below."""

from __future__ import annotations

from pathlib import Path

from cenote import mr, timeline, trace

INITIAL_BYTES = 256 * 1024**2
"""Small beside any GPU, so that the timeline shows the pool grow."""


class ObservedPool:
    """``statistics | logging | pool | logging | cuda``: what is taken from the pool, and what it takes from the driver.

    Parameters
    ----------
    device : int
        Where the memory is.
    folder : Path
        Where the two logs are written.
    """

    def __init__(self, device: int, folder: Path) -> None:
        self.chunks = mr.LoggingResourceAdaptor(mr.from_spec("cuda", device), folder / "chunks.csv")
        self.pool = mr.PoolMemoryResource(self.chunks, initial_pool_size=INITIAL_BYTES)
        self.log = mr.LoggingResourceAdaptor(self.pool, folder / "allocations.csv")
        self.resource = mr.StatisticsResourceAdaptor(self.log)

    def logs(self) -> tuple[Path, Path]:
        """Write out both logs, and give their paths: of the allocations, and of the chunks."""
        self.log.flush()
        self.chunks.flush()
        return Path(self.log.get_file_name()), Path(self.chunks.get_file_name())

    def draw(self, path: Path, title: str, subtitle: str, by_event: bool) -> None:
        """Draw what the logs say; ModuleNotFoundError without matplotlib."""
        in_use, held = (timeline.from_trace(trace.read(log)) for log in self.logs())
        timeline.draw(path, in_use, held, title, subtitle, by_event)
