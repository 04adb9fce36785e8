"""cenote.dask with workers of Dask in processes of their own, on the simulated device: nothing stands in for Dask."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote

pytest.importorskip("distributed")

import dask.config
from distributed import Client, LocalCluster, get_worker, wait

from cenote.dask import CenotePlugin
from cenote.sim._library import find_library

pytestmark = pytest.mark.slow

MIB = 1 << 20
POOL = "pool:max=64MiB"
MADE = f"failure_callback:max_tries=64 | {POOL} | virtual"
DEVICES = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=1GiB"}


@contextmanager
def workers(number: int = 2, **options: Any) -> Iterator[Client]:
    options = {"threads_per_worker": 1, "memory_limit": "2GiB", "env": DEVICES} | options
    with (
        LocalCluster(n_workers=number, dashboard_address=":0", **options) as cluster,
        Client(cluster) as client,
    ):
        yield client


def by_name(client: Client) -> dict[Any, str]:
    """The addresses of the workers."""
    return {each["name"]: address for address, each in client.scheduler_info()["workers"].items()}


def place() -> tuple[Any, str | None, int, int, str]:
    """Who runs this, what it sees, and where it allocates."""
    buffer = cenote.DeviceBuffer(size=1000)
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return get_worker().name, seen, cenote.driver.device_count(), buffer.device, buffer.mr.specification


def filled(value: int, nbytes: int) -> Any:
    return cenote.DeviceBuffer.to_device(bytes([value]) * nbytes)


def is_filled(buffer: Any, value: int) -> bool:
    return bytes(buffer.tobytes()) == bytes([value]) * buffer.size


def sent_metrics(client: Client) -> dict[Any, dict[str, Any]]:
    """What the scheduler has of each worker, once each has sent it anew."""

    async def send(dask_worker: Any) -> None:
        await dask_worker.heartbeat()

    client.run(send)
    return {each["name"]: each["metrics"] for each in client.scheduler_info()["workers"].values()}


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A device each, two threads each."""
    with workers(threads_per_worker=2) as client:
        client.register_plugin(CenotePlugin(POOL, device="local", frameworks=()))
        yield client


def test_each_task_runs_on_the_device_and_resource_of_its_worker(two_workers: Client) -> None:
    places = two_workers.gather([two_workers.submit(place, pure=False) for _ in range(40)])
    assert set(places) == {(0, "0", 1, 0, MADE), (1, "1", 1, 0, MADE)}


def test_scheduler_has_the_figures_to_the_byte(two_workers: Client) -> None:
    addresses = by_name(two_workers)
    sizes = {0: [1, 1000, 3 * MIB], 1: [777]}
    kept = [
        two_workers.submit(filled, 7, size, workers=[addresses[name]], pure=False)
        for name, each in sizes.items()
        for size in each
    ]
    wait(kept)
    for name, metrics in sent_metrics(two_workers).items():
        figures = metrics["cenote"]
        assert figures["used"] == figures["clients"]["cenote"] == sum(sizes[name])
        assert figures["allocations"] == len(sizes[name])
        assert figures["limit"] == 64 * MIB and figures["used"] <= figures["held"] <= 64 * MIB
        assert figures["spilled"] == 0
        assert metrics["rmm"] == {"rmm-used": figures["used"], "rmm-total": figures["held"]}


def test_buffers_travel_between_workers_and_to_the_client(two_workers: Client) -> None:
    addresses = by_name(two_workers)
    made = two_workers.submit(filled, 7, 5 * MIB, workers=[addresses[0]], pure=False)
    assert two_workers.submit(is_filled, made, 7, workers=[addresses[1]], pure=False).result()
    assert is_filled(made.result(), 7)


def test_worker_whose_pool_is_too_small_finishes_by_spilling() -> None:
    """Twice what the pool holds is kept, and used again from four threads, each of which takes scratch memory too."""
    with workers(1, threads_per_worker=4) as client:
        client.register_plugin(CenotePlugin(POOL, frameworks=()))
        parts = [client.submit(filled, i, 4 * MIB, pure=False) for i in range(32)]
        right = [client.submit(uses_scratch, part, i, pure=False) for i, part in enumerate(parts)]
        assert client.gather(right) == [True] * 32
        (metrics,) = sent_metrics(client).values()
        assert metrics["cenote"]["spilled"] >= 64 * MIB
        assert metrics["cenote"]["used"] <= 64 * MIB
        with pytest.raises(cenote.OutOfMemoryError, match=r"limit 64\.00 MiB"):
            client.submit(cenote.DeviceBuffer, size=65 * MIB).result()


@pytest.mark.slow
def test_more_than_a_worker_has_is_gathered_from_it_and_used_by_one_task() -> None:
    """96 MiB that one worker has spilled go to the client, and into one task, through a pool of 64 MiB."""
    with workers(1, threads_per_worker=1) as client:
        client.register_plugin(CenotePlugin(POOL, device="local", frameworks=()))
        parts = [client.submit(filled, i, 8 * MIB, pure=False) for i in range(12)]
        wait(parts, timeout=60)
        assert all(is_filled(buffer, i) for i, buffer in enumerate(client.gather(parts)))
        assert (
            client.submit(lambda buffers: [is_filled(each, i) for i, each in enumerate(buffers)], parts).result()
            == [True] * 12
        )
        (metrics,) = sent_metrics(client).values()
        assert metrics["cenote"]["held"] <= 64 * MIB
        assert metrics["cenote"]["used"] - metrics["cenote"]["on_host"] <= 64 * MIB
        assert metrics["cenote"]["spilled"] > 0


@pytest.mark.long
def test_what_a_worker_has_goes_to_another_one_and_to_the_client_by_spilling() -> None:
    """96 MiB of one worker go to another one, and all of them to the client, through pools of 64 MiB each."""
    with workers(2, threads_per_worker=1) as client:
        client.register_plugin(CenotePlugin(POOL, device="local", frameworks=()))
        addresses = by_name(client)
        parts = [client.submit(filled, i, 8 * MIB, workers=[addresses[0]], pure=False) for i in range(12)]
        right = [client.submit(is_filled, part, i, workers=[addresses[1]], pure=False) for i, part in enumerate(parts)]
        wait(right, timeout=60)
        assert client.gather(right) == [True] * 12
        assert all(is_filled(buffer, i) for i, buffer in enumerate(client.gather(parts)))
        for metrics in sent_metrics(client).values():
            assert metrics["cenote"]["used"] - metrics["cenote"]["on_host"] <= 64 * MIB
            assert metrics["cenote"]["spilled"] > 0


def uses_scratch(buffer: Any, value: int) -> bool:
    scratch = cenote.DeviceBuffer(size=buffer.size)
    scratch.copy_from_device(buffer)
    return is_filled(scratch, value)


@pytest.mark.long
def test_cache_of_dask_cuda_spills_to_the_host() -> None:
    cache = pytest.importorskip("dask_cuda.device_host_file", exc_type=ImportError).DeviceHostFile
    limits = {"device_memory_limit": 1 << 40, "memory_limit": 1 << 40}
    with workers(1, threads_per_worker=4, data=(cache, limits)) as client:
        client.register_plugin(CenotePlugin(POOL, frameworks=()))
        parts = [client.submit(filled, i, 4 * MIB, pure=False) for i in range(32)]
        right = [client.submit(uses_scratch, part, i, pure=False) for i, part in enumerate(parts)]
        assert client.gather(right) == [True] * 32
        (metrics,) = sent_metrics(client).values()
        assert metrics["cenote"]["spilled"] >= 64 * MIB


@pytest.mark.long
def test_cluster_of_dask_cuda_has_a_device_a_resource_and_figures_for_each_worker(
    run_fresh: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    pytest.importorskip("dask_cuda", exc_type=ImportError)
    (tmp_path / "libcuda.so.1").symlink_to(find_library())  # for cuda.core
    run_fresh(
        """
        import os
        import cenote
        from cenote.dask import CenotePlugin, specification_from_dask_cuda
        from dask_cuda import LocalCUDACluster
        from distributed import Client, get_worker

        def place():
            buffer = cenote.DeviceBuffer(size=1000)
            return os.environ["CUDA_VISIBLE_DEVICES"], buffer.device, buffer.mr.specification

        def make(value):
            return cenote.DeviceBuffer.to_device(bytes([value]) * (15 << 20))

        def is_right(buffer, value):
            return buffer.tobytes() == bytes([value]) * (15 << 20)

        with LocalCUDACluster(dashboard_address=":0", memory_limit="2GiB") as cluster, Client(cluster) as client:
            specification = specification_from_dask_cuda(rmm_pool_size="16MiB", rmm_maximum_pool_size="64MiB")
            client.register_plugin(CenotePlugin(specification, frameworks=(), device="local"))
            made = "failure_callback:max_tries=64 | pool:initial=16MiB,max=64MiB | virtual"
            places = client.run(place).values()
            assert {each[1:] for each in places} == {(0, made)}, places
            assert len({each[0].split(",")[0] for each in places}) == 2, places
            kept = client.map(make, range(20), pure=False)
            assert client.gather(client.map(is_right, kept, range(20), pure=False)) == [True] * 20

            async def send(dask_worker):
                await dask_worker.heartbeat()

            client.run(send)
            for each in client.scheduler_info()["workers"].values():
                metrics = each["metrics"]
                assert metrics["rmm"]["rmm-used"] == metrics["cenote"]["used"] <= 64 << 20
                assert metrics["cenote"]["spilled"] and metrics["cenote"]["limit"] == 64 << 20, metrics
        """,
        CENOTE_SIM="devices=2,memory=1GiB",
        PYTHONPATH=str(Path(__file__).parent / "nvml_stand_in"),
        LD_LIBRARY_PATH=str(tmp_path),
        CUDA_VISIBLE_DEVICES=None,
    )


def test_killed_workers_come_back_with_their_resource_and_device(two_workers: Client) -> None:
    before = two_workers.run(os.getpid)
    for process in before.values():
        os.kill(process, signal.SIGKILL)
    # Not by wait_for_workers: the cluster would forget who was killed before it hears that they left, and then fail.
    deadline = time.monotonic() + 120
    while len(now := two_workers.run(os.getpid, on_error="ignore")) < 2 or set(now.values()) & set(before.values()):
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    places = two_workers.gather([two_workers.submit(place, pure=False) for _ in range(40)])
    assert set(places) == {(0, "0", 1, 0, MADE), (1, "1", 1, 0, MADE)}
    assert {each["cenote"]["limit"] for each in sent_metrics(two_workers).values()} == {64 * MIB}


def test_preloaded_module_does_what_the_configuration_says(tmp_path: Path) -> None:
    configured = {"resource": POOL, "frameworks": [], "log-directory": str(tmp_path), "spill": False, "device": "local"}
    with (
        dask.config.set({"distributed.cenote": configured}),
        workers(preload="cenote.dask") as client,
    ):
        assert set(client.run(specification).values()) == {_logged(tmp_path)}
        for process in client.run(os.getpid).values():
            assert len(list(tmp_path.glob(f"cenote-*-{process}.dev0.csv"))) == 1


def specification() -> str:
    text = cenote.mr.get_current_device_resource().specification
    return text.partition("/cenote-")[0] + " … " + text.partition(" | ")[2]


def _logged(folder: Path) -> str:
    return f"logging:file={folder} … {POOL} | virtual"


def test_plugin_that_is_registered_again_replaces_the_one_before() -> None:
    with workers(1, env=DEVICES) as client:
        client.register_plugin(CenotePlugin(POOL, frameworks=()))
        client.register_plugin(CenotePlugin("pool:max=32MiB", frameworks=(), spill=False))
        ((_, _, _, _, made),) = set(client.gather([client.submit(place, pure=False)]))
        assert made == "pool:max=32MiB | virtual"
        client.unregister_worker_plugin("cenote")
        (metrics,) = sent_metrics(client).values()
        assert "cenote" not in metrics


def test_buffers_of_the_alias_travel_as_what_they_are(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    """Where ``import rmm`` means cenote, in the workers and in the client."""
    run_fresh(
        """
        import cenote.compat.as_rmm
        import rmm
        from cenote.dask import CenotePlugin
        from distributed import Client, LocalCluster

        def make():
            import rmm
            return rmm.DeviceBuffer.to_device(b"water" * 1000)

        def look(buffer):
            import rmm
            return isinstance(buffer, rmm.DeviceBuffer), rmm.mr.get_current_device_resource().specification

        options = {"threads_per_worker": 1, "dashboard_address": ":0", "preload": "cenote.compat.as_rmm"}
        with LocalCluster(n_workers=2, **options) as cluster, Client(cluster) as client:
            client.register_plugin(CenotePlugin("pool:max=64MiB", frameworks=(), spill=False))
            first, second = client.scheduler_info()["workers"]
            made = client.submit(make, workers=[first])
            assert client.submit(look, made, workers=[second]).result() == (True, "pool:max=64MiB | virtual")
            assert type(made.result()) is rmm.DeviceBuffer and made.result().tobytes() == b"water" * 1000
        """,
        CENOTE_SIM="devices=2,memory=1GiB",
    )


def test_worker_without_a_device_says_so_and_works() -> None:
    with workers(1, env=DEVICES | {"CUDA_VISIBLE_DEVICES": "-1"}) as client:
        client.register_plugin(CenotePlugin(POOL))
        assert client.submit(sum, [1, 2]).result() == 3
        (logs,) = client.get_worker_logs().values()
        assert any("cenote found no device" in text for _, text in logs)
