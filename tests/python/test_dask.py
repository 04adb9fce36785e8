"""cenote.dask without a cluster: options, protocols, serializers, evictions, figures."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import pytest

import cenote
from cenote import DeviceBuffer, mr

pytest.importorskip("distributed")

import dask.config
import zict
from dask.sizeof import sizeof
from distributed.protocol import deserialize, serialize
from distributed.spill import SpillBuffer

import cenote.dask
from cenote.compat import rmm_only
from cenote.dask import CenotePlugin, Spiller, figures, specification_from_dask_cuda
from cenote.dask.options import specification_for_protocol, with_log
from cenote.dask.plugin import plugin_of_configuration
from cenote.dask.spill import holds_device_memory
from cenote.dask.worker_device import take_local_device

MIB = 1 << 20
BUFFERS = [DeviceBuffer, rmm_only.DeviceBuffer]


@pytest.mark.parametrize(
    ("options", "specification"),
    [
        ({}, "cuda"),
        ({"rmm_pool_size": "1GB"}, "pool:initial=1000000000"),
        ({"rmm_pool_size": 1000}, "pool:initial=768"),
        ({"rmm_pool_size": 0.5, "rmm_maximum_pool_size": "0.9"}, "pool:initial=50%,max=90%"),
        ({"rmm_pool_size": 1.0}, "pool:initial=100%"),
        ({"rmm_pool_size": 1}, "pool:initial=0"),
        ({"rmm_pool_size": 0}, "cuda"),
        ({"rmm_managed_memory": True}, "managed"),
        ({"rmm_managed_memory": True, "rmm_pool_size": "1GiB"}, "pool:initial=1073741824 | managed"),
        ({"rmm_async": True}, "async"),
        ({"rmm_async": True, "rmm_release_threshold": "1GiB"}, "async:release_threshold=1073741824"),
        ({"rmm_async": True, "rmm_maximum_pool_size": 0.25}, "limiting:limit=25% | async"),
        ({"rmm_pool_size": "1MiB", "rmm_track_allocations": True}, "tracking | pool:initial=1048576"),
        ({"rmm_log_directory": "/a b"}, 'logging:file="/a b/cenote-%p.csv" | cuda'),
    ],
)
def test_options_of_dask_cuda_say_the_same_of_cenote(options: dict[str, Any], specification: str) -> None:
    assert specification_from_dask_cuda(**options) == specification
    if "rmm_log_directory" not in options:
        mr.from_spec(specification.replace("100%", "10%"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rmm_async": True, "rmm_managed_memory": True}, ValueError, "exclude each other"),
        ({"rmm_release_threshold": "1GB"}, ValueError, "rmm_release_threshold .* needs rmm_async"),
        ({"rmm_maximum_pool_size": "1GB"}, ValueError, "rmm_maximum_pool_size .* needs rmm_pool_size"),
        ({"rmm_pool_size": "much"}, ValueError, "rmm_pool_size"),
        ({"rmm_pool_size": -1}, ValueError, "rmm_pool_size must not be negative"),
        ({"rmm_pool_size": True}, TypeError, "rmm_pool_size must be bytes, a text or a share, not bool"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        specification_from_dask_cuda(**options)


@pytest.mark.parametrize("protocol", ["ucx", "ucxx"])
def test_pool_stands_on_memory_that_ucx_sees_whole(protocol: str) -> None:
    for given, taken in {
        "pool": "pool | cuda",
        "statistics | pool:max=1GiB ": "statistics | pool:max=1GiB | cuda",
        "pool | virtual": "pool | virtual",
        "async": "async",
        'logging:file="a|pool"': 'logging:file="a|pool"',
    }.items():
        assert specification_for_protocol(given, protocol) == taken
        assert specification_for_protocol(given, "tcp") == given


def test_log_of_a_worker_is_named_after_it_and_its_process(tmp_path: Path) -> None:
    folder = tmp_path / 'a "b", | c'
    folder.mkdir()
    resource = mr.from_spec(with_log("cuda", folder, "tcp://10.0.0.1:8786"))
    resource.deallocate(resource.allocate(1000), 1000)
    (written,) = folder.iterdir()
    assert written.name.startswith("cenote-tcp-10.0.0.1-8786-")


@pytest.mark.parametrize("cls", BUFFERS)
@pytest.mark.parametrize("family", ["dask", "cuda"])
def test_buffer_arrives_as_it_was_sent(cls: type[DeviceBuffer], family: str) -> None:
    sent = cls.to_device(b"water" * 1000)
    header, frames = serialize(sent, serializers=(family,), on_error="raise")
    assert header["serializer"] == family
    arrived = deserialize(header, frames)
    assert type(arrived) is cls
    assert arrived.tobytes() == b"water" * 1000


@pytest.mark.parametrize("cls", BUFFERS)
def test_empty_buffer_arrives_empty(cls: type[DeviceBuffer]) -> None:
    arrived = deserialize(*serialize(cls(size=0), serializers=("dask",), on_error="raise"))
    assert type(arrived) is cls and arrived.size == 0


@pytest.mark.parametrize("cls", BUFFERS)
def test_frame_that_the_communication_made_otherwise_becomes_a_buffer_of_the_class(cls: type[DeviceBuffer]) -> None:
    (other,) = set(BUFFERS) - {cls}
    header, _ = serialize(cls.to_device(b"water"), serializers=("cuda",), on_error="raise")
    arrived = deserialize(header, [other.to_device(b"water")])
    assert type(arrived) is cls
    assert arrived.tobytes() == b"water"


class Labelled(DeviceBuffer):
    label = ""


def test_derived_class_is_pickled_with_what_it_adds() -> None:
    sent = Labelled.to_device(b"water")
    sent.label = "lake"
    header, frames = serialize(sent, serializers=("cuda", "dask", "pickle"), on_error="raise")
    assert header["serializer"] == "pickle"
    assert deserialize(header, frames).label == "lake"


@pytest.mark.parametrize("cls", BUFFERS)
def test_size_of_a_buffer_is_what_it_has_of_the_device(cls: type[DeviceBuffer]) -> None:
    buffer = cls(size=1000)
    assert sizeof(buffer) == 1000
    buffer.reserve(2000)
    assert sizeof(buffer) == 2000


def test_values_on_the_device_are_known_as_such() -> None:
    buffer = DeviceBuffer(size=16)
    for value in (buffer, [buffer], {"a": (buffer,)}):
        assert holds_device_memory(value)
    for value in (b"host", [], {}, None, ["host"], DeviceBuffer):
        assert not holds_device_memory(value)


def device_host_file(slow: Any) -> Any:
    """The shape of dask-cuda's DeviceHostFile: values on the device in a buffer of their own, over the host's."""
    device: Any = zict.Buffer({}, zict.Func(bytes, DeviceBuffer.to_device, slow), 1 << 40, weight=lambda _, it: it.size)
    return SimpleNamespace(device_buffer=device, fast=zict.LRU(10, {}))


def test_least_recently_used_values_go_first_and_no_more_than_asked_for() -> None:
    slow: dict[str, bytes] = {}
    data = device_host_file(slow)
    for name in "abcd":
        data.device_buffer[name] = DeviceBuffer.to_device(name.encode() * 1000)
    data.device_buffer["a"]
    spill = Spiller(data)
    assert spill(1500)
    assert set(slow) == {"b", "c"}
    assert (spill.evicted_bytes, spill.evicted_count) == (2000, 2)
    assert data.device_buffer["b"].tobytes() == b"b" * 1000
    assert spill(1 << 30)  # all that there is
    assert not spill(1)


def test_allocation_goes_on_when_values_were_evicted() -> None:
    slow: dict[int, bytes] = {}
    data = device_host_file(slow)
    spill = Spiller(data)
    resource = mr.FailureCallbackResourceAdaptor(mr.from_spec("pool:max=64MiB"), spill)
    mr.set_current_device_resource(resource)
    for i in range(8):
        data.device_buffer[i] = DeviceBuffer.to_device(bytes([i]) * (15 * MIB))
    assert len(slow) == 4 and spill.evicted_bytes == 60 * MIB
    for i in range(8):
        assert data.device_buffer[i].tobytes() == bytes([i]) * (15 * MIB)
    with pytest.raises(MemoryError):
        DeviceBuffer(size=65 * MIB)
    data.device_buffer.fast.clear()


def test_spill_buffer_of_dask_evicts_what_is_on_the_device_only(tmp_path: Path) -> None:
    data = SpillBuffer(str(tmp_path), target=1 << 40)
    data["host"] = b"host" * 1000
    data["device"] = DeviceBuffer.to_device(b"device")
    assert Spiller(data)(1)
    assert set(data.fast) == {"host"} and set(data.slow) == {"device"}
    assert data["device"].tobytes() == b"device"


def test_value_that_cannot_be_evicted_stays_and_the_next_one_goes(tmp_path: Path) -> None:
    class Stubborn(DeviceBuffer):
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("stays here")

    data = SpillBuffer(str(tmp_path), target=1 << 40)
    data["stubborn"] = Stubborn.to_device(b"stubborn")
    data["meek"] = DeviceBuffer.to_device(b"meek")
    assert Spiller(data)(1)
    assert set(data.fast) == {"stubborn"}


def test_mapping_that_evicts_by_itself_is_asked_to() -> None:
    weights = [10, 20, 30]
    spill = Spiller(SimpleNamespace(evict=lambda: weights.pop() if weights else -1))
    assert spill(35)
    assert weights == [10]
    assert spill(35)
    assert not spill(35)
    assert spill.evicted_bytes == 60


@pytest.mark.parametrize("data", [{}, SimpleNamespace(device_buffer={}, fast=zict.LRU(10, {}), evict=lambda: 1)])
def test_data_that_evicts_nothing_from_the_device_is_refused_with_what_to_do(data: Any) -> None:
    with pytest.raises(TypeError, match="cannot evict what lies on the device: take dask-cuda's"):
        Spiller(data)


def test_eviction_that_runs_out_of_memory_itself_is_not_asked_again() -> None:
    answers = []
    holder: list[Spiller] = []

    def evict() -> int:
        answers.append(holder[0](100))
        return 10 if len(answers) == 1 else -1

    holder.append(Spiller(SimpleNamespace(evict=evict)))
    assert holder[0](100)
    assert answers == [False, False]


def test_threads_that_waited_for_an_eviction_try_again() -> None:
    """Two ask at a time and there is one value: the second evicts nothing, and what the first has freed may do."""
    weights = [10]
    asked = [threading.Event(), threading.Event()]

    class LockThatTells:
        lock = threading.Lock()

        def __enter__(self) -> None:
            asked[threading.current_thread() is second].set()
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()

    def evict() -> int:
        if not weights:
            return -1
        second.start()
        asked[1].wait()
        return weights.pop()

    spill = Spiller(SimpleNamespace(evict=evict))
    spill._lock = LockThatTells()  # type: ignore[assignment]
    answers: list[bool] = []
    second = threading.Thread(target=lambda: answers.append(spill(10)))
    answers.append(spill(10))
    second.join()
    assert answers == [True, True]


def test_figures_are_those_of_the_clients_and_the_resources() -> None:
    mr.set_per_device_resource(0, mr.from_spec("pool:initial=4MiB,max=8MiB", 0))
    mr.set_per_device_resource(1, mr.from_spec("pool:initial=2MiB,max=16MiB", 1))
    before = figures()
    kept = [DeviceBuffer(size=1000), DeviceBuffer(size=1)]
    now = figures()
    assert now["used"] - before["used"] == 1001 and now["allocations"] - before["allocations"] == len(kept)
    assert now["clients"]["cenote"] == now["used"]
    assert now["held"] == 6 * MIB and now["limit"] == 24 * MIB
    mr.set_per_device_resource(1, mr.from_spec("cuda", 1))
    assert figures()["limit"] is None


def test_prometheus_gets_the_figures() -> None:
    prometheus = pytest.importorskip("prometheus_client")
    from cenote.dask.metrics import WorkerMetrics

    worker = SimpleNamespace(metrics={"rmm": None})
    metrics = WorkerMetrics(worker)
    mr.set_current_device_resource(mr.from_spec("pool:max=8MiB"))
    buffer = DeviceBuffer(size=1000)
    page = prometheus.generate_latest(prometheus.REGISTRY).decode()
    assert f'dask_worker_cenote_bytes{{type="used"}} {float(figures()["used"])}' in page
    metrics.remove()
    assert "cenote" not in prometheus.generate_latest(prometheus.REGISTRY).decode()
    assert buffer.size == 1000


def test_plugin_is_what_the_configuration_says() -> None:
    with dask.config.set(
        {"distributed.cenote": {"resource": "pool:max=1GiB", "log-directory": "/logs", "spill": False}}
    ):
        plugin = plugin_of_configuration()
    assert (plugin.resource, plugin.log_directory, plugin.spill) == ("pool:max=1GiB", "/logs", False)
    assert plugin_of_configuration().resource == "pool"
    with (
        dask.config.set({"distributed.cenote.resouce": "pool"}),
        pytest.raises(ValueError, match=r"distributed\.cenote\.resouce is not known; known are: resource, frameworks"),
    ):
        plugin_of_configuration()


def test_configuration_without_a_resource_takes_that_of_the_environment(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        from cenote.dask.plugin import plugin_of_configuration
        assert plugin_of_configuration().resource == "statistics | async"
        """,
        CENOTE_RESOURCE="statistics | async",
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"resource": 7}, TypeError, "resource must be a specification"),
        ({"resource": Ellipsis}, TypeError, "resource must be a specification"),
        ({"frameworks": 7}, TypeError, "frameworks must be names of frameworks"),
        ({"frameworks": b"torch"}, TypeError, "frameworks must be names of frameworks"),
        ({"device": 1}, ValueError, "device must be 'local' or None, not 1"),
        ({"log_directory": 7}, TypeError, "log_directory must be a path, not int"),
        ({"spill": 1}, TypeError, "spill must be a bool, not int"),
    ],
)
def test_wrong_arguments_of_the_plugin_are_refused_by_name(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        CenotePlugin(**arguments)


def test_plugin_travels_as_what_was_asked_for() -> None:
    plugin = CenotePlugin("pool:max=1GiB", frameworks="cupy", device="local", spill=False)
    assert vars(pickle.loads(pickle.dumps(plugin))) == vars(plugin)


def worker_of(name: object, *preloads: str) -> Any:
    return SimpleNamespace(name=name, preloads=[SimpleNamespace(name=each) for each in preloads])


@pytest.mark.slow
def test_worker_takes_the_device_of_its_number(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    for name, preload, visible, taken in (
        (1, None, None, "1"),
        ("gpu-2", None, None, "2"),
        (1, None, "3,2", "2"),
        (1, "dask_cuda.initialize", "2,3", "2"),
        ("tcp://10.0.0.1:80", None, "2", "2"),
    ):
        run_fresh(
            f"""
            import os
            from types import SimpleNamespace
            from cenote import driver
            from cenote.dask.worker_device import take_local_device
            preloads = [SimpleNamespace(name={preload!r})] if {preload!r} else []
            take_local_device(SimpleNamespace(name={name!r}, preloads=preloads))
            assert os.environ["CUDA_VISIBLE_DEVICES"] == {taken!r}
            assert driver.device_count() == 1
            """,
            CENOTE_SIM="devices=4,memory=1GiB",
            CUDA_VISIBLE_DEVICES=visible,
        )


@pytest.mark.slow
def test_worker_without_a_device_of_its_own_says_why(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    for name, visible, message in (
        (2, None, "worker 2 has no device 2 of its own"),
        (2, "1,0", "worker 2 has no device of its own: its host shows 2"),
        ("tcp://10.0.0.1:80", None, "its name ends with no number"),
    ):
        run_fresh(
            f"""
            from types import SimpleNamespace
            from cenote.dask.worker_device import take_local_device
            try:
                take_local_device(SimpleNamespace(name={name!r}, preloads=[]))
            except ValueError as error:
                assert {message!r} in str(error), error
            else:
                raise AssertionError("it took one")
            """,
            CENOTE_SIM="devices=2,memory=1GiB",
            CUDA_VISIBLE_DEVICES=visible,
        )


def test_process_that_has_used_its_devices_can_hide_none() -> None:
    assert cenote.driver.device_count() == 2
    with pytest.raises(RuntimeError, match=r"cannot take a device of its own any more: .*CUDA_VISIBLE_DEVICES"):
        take_local_device(worker_of(1))


def test_without_dask_the_module_says_what_to_install(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import sys
        sys.modules["distributed"] = None
        try:
            import cenote.dask
        except ImportError as error:
            assert "pip install 'cenote[dask]'" in str(error), error
        else:
            raise AssertionError("it was imported")
        """
    )
