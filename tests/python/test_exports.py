"""Exports: other tools read what is written, and snapshots of PyTorch's are read without running anything."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cenote
from cenote import exports, mr, recorder, registry
from cenote.logs.trace import Action, TraceError, bytes_in_use, read
from cenote.recorder import Event

MIB = 1024**2


@pytest.fixture(autouse=True)
def pool() -> Iterator[None]:
    before = mr.set_current_device_resource(mr.from_spec("pool:max=64MiB"))
    yield
    mr.set_current_device_resource(before or mr.CudaMemoryResource())


@pytest.fixture
def recording() -> Iterator[recorder.Recording]:
    client = registry.Client("tests of exports")
    with cenote.tag("exported"):
        blocks = [client.allocate(size) for size in (1000, 2000, 3000)]
    client.deallocate(blocks.pop())
    with pytest.raises(MemoryError):
        client.allocate(100 * MIB)
    yield recorder.snapshot()
    for block in blocks:
        client.deallocate(block)


@pytest.mark.slow
def test_snapshot_is_read_again_as_the_same_trace(recording: recorder.Recording, tmp_path: Path) -> None:
    exports.write_torch_snapshot(tmp_path / "snapshot.pickle", recording)
    again, trace = read(tmp_path / "snapshot.pickle"), recording.to_trace()
    again, played = again[-5:], trace[-5:]  # those of this test
    assert (again["action"] == played["action"]).all()
    assert (again["bytes"] == played["bytes"]).all()
    assert (again["pointer"] == played["pointer"]).all()


@pytest.mark.slow
def test_snapshot_has_the_segments_and_frames_that_the_viewer_reads(
    recording: recorder.Recording, tmp_path: Path
) -> None:
    exports.write_torch_snapshot(tmp_path / "snapshot.pickle", recording)
    snapshot = pickle.loads((tmp_path / "snapshot.pickle").read_bytes())
    assert {"segments", "device_traces"} <= snapshot.keys()
    for segment in snapshot["segments"]:
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
        ends = [block["address"] + block["size"] for block in segment["blocks"]]
        assert [block["address"] for block in segment["blocks"]] == [segment["address"], *ends[:-1]]
    held = sum(segment["allocated_size"] for segment in snapshot["segments"])
    assert held == sum(block[0] for block in recording.held_at_the_end().values())
    frames = [frame["name"] for event in snapshot["device_traces"][0] for frame in event["frames"]]
    assert {"exported", "tests of exports"} <= set(frames)


@pytest.mark.slow
def test_chrome_trace_counts_what_is_held(recording: recorder.Recording, tmp_path: Path) -> None:
    exports.write_chrome_trace(tmp_path / "run.json", recording)
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "i" for event in events) == len(recording.events)
    counted = [event["args"]["exported"] for event in events if event["ph"] == "C" and "exported" in event["args"]]
    assert counted[-1] == 3000
    assert max(counted) == 6000
    assert [event["name"] for event in events if event["ph"] == "i"][-1] == Event.FAILURE.name.lower()


def test_prometheus_has_the_figures_of_clients_tags_and_resources(recording: recorder.Recording) -> None:
    prometheus_client = pytest.importorskip("prometheus_client")
    registry_of_metrics = prometheus_client.CollectorRegistry()
    registry_of_metrics.register(cenote.prometheus())
    text = prometheus_client.generate_latest(registry_of_metrics).decode()
    assert 'cenote_used_bytes{client="tests of exports"} 3000.0' in text
    assert 'cenote_tag_peak_bytes{tag="exported"}' in text
    assert 'cenote_resource_bytes{device="0",figure="limit"} 6.7108864e+07' in text
    with cenote.add_pressure_handler(lambda nbytes, device: 0, name="counted"):
        with pytest.raises(MemoryError):
            cenote.DeviceBuffer(size=100 * MIB)
        text = prometheus_client.generate_latest(registry_of_metrics).decode()
    assert 'cenote_pressure_calls_total{handler="counted"} 1.0' in text


def test_resource_is_a_table_in_a_notebook() -> None:
    html = mr.get_current_device_resource()._repr_html_()
    assert "<code>pool:max=64MiB | virtual</code>" in html
    assert "67,108,864" in html


def snapshot_of(events: list[Any]) -> dict[str, Any]:
    return {"segments": [], "device_traces": [[], events], "external_annotations": []}


EVENTS = [
    {"action": "segment_alloc", "addr": 4096, "size": 8192, "stream": 0, "time_us": 5},
    {"action": "alloc", "addr": 4096, "size": 1000, "stream": 7, "time_us": 10},
    {"action": "free_requested", "addr": 4096, "size": 1000, "stream": 7, "time_us": 20},
    {"action": "free_completed", "addr": 4096, "size": 1000, "stream": 7, "time_us": 30},
    {"action": "oom", "size": 5000, "device_free": 1, "stream": 0, "time_us": 40},
]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pytorchs_snapshot_is_read(tmp_path: Path, compress: Any, protocol: int) -> None:
    (tmp_path / "snapshot").write_bytes(compress(pickle.dumps(snapshot_of(EVENTS), protocol=protocol)))
    trace = read(tmp_path / "snapshot")
    assert trace["action"].tolist() == [Action.ALLOCATE, Action.FREE, Action.FAILURE]
    assert trace["time_us"].tolist() == [0, 20, 30]
    assert trace["stream"].tolist() == [7, 7, 0]
    assert bytes_in_use(trace).tolist() == [1000, 0, 0]


class RunsAProgram:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)

    def __init__(self, path: Path) -> None:
        self.path = path


def test_pickle_that_would_run_a_program_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    for inside in (RunsAProgram(tmp_path / "ran"), np.zeros(3), Path("x"), TraceError("x"), print):
        (tmp_path / "hostile").write_bytes(pickle.dumps(snapshot_of([inside]), protocol=4))
        with pytest.raises(TraceError, match=r"hostile, line 1: this is no snapshot of PyTorch's: it asks for"):
            read(tmp_path / "hostile")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "has no 'device_traces'"),
        ({"device_traces": 7}, "has no 'device_traces'"),
        ({"device_traces": [[], []]}, "has no events"),
        ({"device_traces": [[7]]}, "event 1 of the snapshot is damaged: it is int"),
        (snapshot_of([EVENTS[1] | {"size": -1}]), "its size is -1"),
        (snapshot_of([EVENTS[1] | {"addr": "x"}]), "its addr is 'x'"),
        (snapshot_of([EVENTS[1] | {"stream": 2**64}]), "its stream is"),
        (snapshot_of([EVENTS[1] | {"time_us": 1.5}]), "its time_us is 1.5"),
    ],
)
def test_snapshot_that_is_damaged_says_where(tmp_path: Path, content: Any, why: str) -> None:
    (tmp_path / "damaged").write_bytes(pickle.dumps(content))
    with pytest.raises(TraceError) as caught:
        read(tmp_path / "damaged")
    assert why in str(caught.value)
    assert str(tmp_path / "damaged") in str(caught.value)


def test_bytes_that_begin_as_a_pickle_are_read_or_refused_and_never_more(tmp_path: Path) -> None:
    whole = pickle.dumps(snapshot_of(EVENTS * 20), protocol=4)
    choose = random.Random(8)
    for _ in range(400):
        content = bytearray(whole[: choose.randrange(2, len(whole) + 1)])
        for _ in range(choose.randrange(4)):
            content[choose.randrange(2, len(content)) if len(content) > 2 else 0] = choose.randrange(256)
        (tmp_path / "fuzzed").write_bytes(content)
        try:
            read(tmp_path / "fuzzed")
        except TraceError as error:
            assert str(tmp_path / "fuzzed") in str(error)
