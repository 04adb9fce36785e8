"""Recordings and figures in the forms that other tools read.

::

    cenote.exports.write_torch_snapshot("run.pickle", cenote.recorder.snapshot())    # docs.pytorch.org/memory_viz
    cenote.exports.write_chrome_trace("run.json", cenote.recorder.snapshot())        # ui.perfetto.dev, chrome://tracing
    prometheus_client.REGISTRY.register(cenote.prometheus())
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cenote._core.clients import usage
from cenote._core.registry import devices_with_resource, find_per_device_resource
from cenote.logs._output_file import write_whole
from cenote.logs.trace import path_argument
from cenote.pressure import pressure_handlers
from cenote.recorder import Event, Recording
from cenote.recorder._streams import DEFAULT_STREAM

if TYPE_CHECKING:
    from prometheus_client.core import Metric  # type: ignore[import-not-found,unused-ignore]

__all__ = ["PrometheusCollector", "prometheus", "write_chrome_trace", "write_torch_snapshot"]

_MOST_BYTES = 2**62  # that a reader takes for a size; a request that failed may have been for more
_ACTIONS = {Event.ALLOCATE: "alloc", Event.FREE: "free_completed", Event.FAILURE: "oom"}
_SEGMENT_GAP = 2 << 20


def write_torch_snapshot(path: str | os.PathLike[str], recording: Recording) -> None:
    """Write a recording as a snapshot of PyTorch's memory history, for ``docs.pytorch.org/memory_viz``.

    Each block's client and tag stand where PyTorch has the frames of the call stack. Segments are runs of blocks that
    are held at the end, as the recorder does not know what the pool took.

    Parameters
    ----------
    path : path-like
        The file; what was there is replaced.
    recording : Recording
        What `cenote.recorder.snapshot` or `cenote.recorder.read` returned.

    Raises
    ------
    TypeError
        If `path` is no path, or `recording` none.
    OSError
        If it cannot be written.
    """
    file = path_argument(path)
    made = _recording_argument(recording)
    traces: list[list[dict[str, Any]]] = [[] for _ in range(made.device)]
    snapshot = {
        "segments": _segments(made),
        "device_traces": [*traces, list(_torch_events(made))],
        "allocator_settings": {"PYTORCH_CUDA_ALLOC_CONF": ""},
        "external_annotations": [],
    }
    write_whole(file, pickle.dumps(snapshot, protocol=4))


def write_chrome_trace(path: str | os.PathLike[str], recording: Recording) -> None:
    """Write a recording as a trace for Perfetto (``ui.perfetto.dev``) and Chrome.

    There is a counter of the bytes in use for each client, and one for each tag. An allocation is an instant of its
    thread, with its size, client and tag.

    Parameters
    ----------
    path : path-like
        The file; what was there is replaced.
    recording : Recording
        What `cenote.recorder.snapshot` or `cenote.recorder.read` returned.

    Raises
    ------
    TypeError
        If `path` is no path, or `recording` none.
    OSError
        If it cannot be written.
    """
    file = path_argument(path)
    made = _recording_argument(recording)
    name = {"name": f"device {made.device}"}
    events = [{"ph": "M", "name": "process_name", "pid": made.process, "args": name}, *_chrome_events(made)]
    write_whole(file, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}, separators=(",", ":")).encode())


def _recording_argument(recording: Recording) -> Recording:
    if not isinstance(recording, Recording):
        raise TypeError(f"recording must be a Recording, not {type(recording).__name__}")
    return recording


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else ""


def _frames(recording: Recording, client: int, tag: int) -> list[dict[str, Any]]:
    texts = [_name(recording.tags, tag), _name(recording.clients, client)]
    return [{"filename": "cenote", "line": 0, "name": text} for text in texts if text]


def _torch_stream(stream: int) -> int:
    return 0 if stream & DEFAULT_STREAM == DEFAULT_STREAM else stream & DEFAULT_STREAM


def _torch_events(recording: Recording) -> Iterator[dict[str, Any]]:
    for time_ns, _, event, address, nbytes, stream, client, tag in recording.events.tolist():
        if event not in _ACTIONS:
            continue
        made = {
            "action": _ACTIONS[event],
            "addr": address,
            "size": min(nbytes, _MOST_BYTES),
            "stream": _torch_stream(stream),
            "time_us": time_ns // 1000,
            "frames": _frames(recording, client, tag),
        }
        if event == Event.FREE:
            yield made | {"action": "free_requested"}
        yield made | ({"device_free": 0} if event == Event.FAILURE else {})


def _segments(recording: Recording) -> list[dict[str, Any]]:
    segments: list[dict[str, Any]] = []
    for address, (nbytes, stream, client, tag) in sorted(recording.held_at_the_end().items()):
        end = segments[-1]["address"] + segments[-1]["total_size"] if segments else 0
        if not segments or address - end > _SEGMENT_GAP:
            segments.append(
                {
                    "device": recording.device,
                    "address": address,
                    "total_size": 0,
                    "allocated_size": 0,
                    "active_size": 0,
                    "requested_size": 0,
                    "stream": _torch_stream(stream),
                    "segment_type": "large",
                    "segment_pool_id": (0, 0),
                    "is_expandable": False,
                    "frames": [],
                    "blocks": [],
                }
            )
            end = address
        segment = segments[-1]
        if address > end:
            free = {"address": end, "size": address - end, "requested_size": 0, "state": "inactive"}
            segment["blocks"].append({**free, "frames": []})
        frames = _frames(recording, client, tag)
        state = {"address": address, "size": nbytes, "requested_size": nbytes, "state": "active_allocated"}
        segment["blocks"].append(state | {"frames": frames})
        for figure in ("allocated_size", "active_size", "requested_size"):
            segment[figure] += nbytes
        segment["total_size"] = address + nbytes - segment["address"]
    return segments


def _chrome_events(recording: Recording) -> Iterator[dict[str, Any]]:
    of_process = {"pid": recording.process}
    curves = {by: recording.bytes_over_time(by) for by in ("client", "tag")}
    columns = {by: list(its) for by, its in curves.items()}
    for at, (time_ns, thread, event, _, nbytes, _, client, tag) in enumerate(recording.events.tolist()):
        when = {"ts": time_ns / 1000, **of_process, "tid": thread}
        whose = {"client": _name(recording.clients, client), "tag": _name(recording.tags, tag)}
        kind = Event(event).name.lower() if event in Event._value2member_map_ else str(event)
        yield {"ph": "i", "s": "t", "name": kind, **when, "args": {"bytes": nbytes, **whose}}
        for by, name in whose.items():
            if name in columns[by]:
                args = {name or "(no tag)": int(curves[by][name][at])}
                yield {"ph": "C", "name": f"bytes by {by}", **when, "args": args}


class PrometheusCollector:
    """A collector for `prometheus_client`: each scrape asks for the figures, and nothing is done in between.

    ``cenote_used_bytes``, ``cenote_peak_bytes`` and ``cenote_allocations_total`` by client, the same for tags with
    ``cenote_tag_``; ``cenote_resource_bytes`` by device and figure (``in_use``, ``held``, ``limit``, ``largest_free``,
    ``device_free``, ``device_total``); ``cenote_pressure_calls_total`` by handler.
    """

    def collect(self) -> Iterable[Metric]:
        """Give the metrics; `prometheus_client` calls it.

        Raises
        ------
        ModuleNotFoundError
            Without `prometheus_client`.
        """
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for by, prefix, counted in (("client", "cenote", usage("client")), ("tag", "cenote_tag", usage("tag"))):
            used = GaugeMetricFamily(f"{prefix}_used_bytes", f"Bytes held now, as requested, by {by}", labels=[by])
            peak = GaugeMetricFamily(f"{prefix}_peak_bytes", f"The most bytes held at once, by {by}", labels=[by])
            total = CounterMetricFamily(f"{prefix}_allocations", f"Allocations made, by {by}", labels=[by])
            for name, figures in counted.items():
                used.add_metric([name], figures.bytes)
                peak.add_metric([name], figures.peak_bytes)
                total.add_metric([name], figures.total_allocations)
            yield from (used, peak, total)
        resource = GaugeMetricFamily(
            "cenote_resource_bytes", "Figures of a current resource", labels=["device", "figure"]
        )
        for device in devices_with_resource():
            current = find_per_device_resource(device)
            for figure, nbytes in ({} if current is None else asdict(current.state())).items():
                if nbytes is not None:
                    resource.add_metric([str(device), figure], nbytes)
        yield resource
        calls = CounterMetricFamily("cenote_pressure_calls", "Calls of a pressure handler", labels=["handler"])
        for handler in pressure_handlers():
            calls.add_metric([handler.name], handler.calls)
        yield calls


def prometheus() -> PrometheusCollector:
    """Make a collector, to be registered with ``prometheus_client.REGISTRY.register``."""
    return PrometheusCollector()
