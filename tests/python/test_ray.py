"""cenote in actors of Ray, in processes of their own with a GPU each, on the simulated device: as docs/ray.md says."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

import cenote

pytestmark = pytest.mark.long

ray = pytest.importorskip("ray")

DEVICES = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=3,memory=1GiB"}
POOL = "pool:max=64MiB"


class Worker:
    def __init__(self) -> None:
        from ray.util.metrics import Gauge

        cenote.install(POOL, frameworks=(), device="local")
        self.used = Gauge("cenote_used_bytes", description="used", tag_keys=("client", "gpu"))
        self.kept: Any = None

    def place(self) -> tuple[str, int, int, str, int]:
        """Which GPU it has, what it sees, where it allocates, and its process."""
        buffer = cenote.DeviceBuffer(size=1000)
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        return gpu, cenote.driver.device_count(), buffer.device, buffer.mr.specification, os.getpid()

    def make(self, value: int, nbytes: int) -> Any:
        return cenote.DeviceBuffer.to_device(bytes([value]) * nbytes)

    def is_filled(self, buffer: Any, value: int) -> bool:
        return bytes(buffer.tobytes()) == bytes([value]) * buffer.size

    def keep(self, nbytes: int) -> None:
        self.kept = cenote.DeviceBuffer(size=nbytes)
        for client, usage in cenote.usage().items():
            self.used.set(usage.bytes, tags={"client": client, "gpu": os.environ["CUDA_VISIBLE_DEVICES"]})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def metrics_port() -> Iterator[int]:
    """Ray with three GPUs; where its agent serves metrics."""
    port = free_port()
    ray.init(
        num_cpus=3,
        num_gpus=3,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": DEVICES},
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 200},
    )
    yield port
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(metrics_port: int) -> list[Any]:
    """Two, with a GPU each."""
    cls = ray.remote(num_gpus=1, max_restarts=1)(Worker)
    return [cls.remote() for _ in range(2)]


def test_each_actor_has_the_device_that_ray_gave_it(actors: list[Any]) -> None:
    places = ray.get([actor.place.remote() for actor in actors])
    assert sorted(place[:4] for place in places) == [(gpu, 1, 0, f"{POOL} | virtual") for gpu in "01"]


def specification() -> str:
    return cenote.mr.get_current_device_resource().specification


def test_resource_of_a_task_is_what_its_environment_says(metrics_port: int) -> None:
    task = ray.remote(num_gpus=1)(specification).options(runtime_env={"env_vars": DEVICES | {"CENOTE_RESOURCE": POOL}})
    assert ray.get(task.remote(), timeout=60) == f"{POOL} | virtual"


def test_buffers_travel_between_actors_and_to_the_driver(actors: list[Any]) -> None:
    first, second = actors
    made = first.make.remote(7, 5 << 20)
    assert ray.get(second.is_filled.remote(made, 7))
    assert bytes(ray.get(made).tobytes()) == bytes([7]) * (5 << 20)


def test_error_of_an_actor_has_its_figures(actors: list[Any]) -> None:
    with pytest.raises(MemoryError) as caught:
        ray.get(actors[0].make.remote(7, 65 << 20))
    error: Any = caught.value
    assert (error.cause.requested, error.cause.limit) == (65 << 20, 64 << 20)


def test_figures_are_on_the_page_that_prometheus_reads(actors: list[Any], metrics_port: int) -> None:
    if not agent_is_installed():
        pytest.skip("Ray's agent of metrics needs: pip install 'ray[default]'")
    sizes = [12345, 777]
    ray.get([actor.keep.remote(size) for actor, size in zip(actors, sizes, strict=True)])
    address = ray.nodes()[0]["NodeManagerAddress"]
    deadline = time.monotonic() + 60
    found: set[float] = set()
    while not set(sizes) <= found and time.monotonic() < deadline:
        time.sleep(0.2)
        with urllib.request.urlopen(f"http://{address}:{metrics_port}/metrics", timeout=10) as page:
            lines = [line for line in page.read().decode().splitlines() if line.startswith("ray_cenote_used_bytes{")]
        found = {float(line.rpartition(" ")[2]) for line in lines if 'client="cenote"' in line}
    assert found == set(sizes)


def agent_is_installed() -> bool:
    try:
        import aiohttp  # noqa: F401
        import opencensus  # noqa: F401
    except ImportError:
        return False
    return True


def test_killed_actor_comes_back_with_its_resource(actors: list[Any]) -> None:
    process = ray.get(actors[0].place.remote())[4]
    ray.kill(actors[0], no_restart=False)
    deadline = time.monotonic() + 60
    place = ("", 0, 0, "", process)
    while place[4] == process and time.monotonic() < deadline:
        try:
            place = ray.get(actors[0].place.remote())
        except ray.exceptions.RayActorError:
            time.sleep(0.1)
    assert place[4] != process
    assert place[1:4] == (1, 0, f"{POOL} | virtual")
