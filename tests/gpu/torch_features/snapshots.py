"""Snapshots, the history of memory, and the profiler."""

from __future__ import annotations

import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

from .features import MiB, feature, tensor


@feature
def memory_snapshot() -> None:
    import torch

    kept = [tensor(size) for size in (1000, 3 * MiB, 512, 40 * MiB)]
    del kept[1]
    addresses = {each.data_ptr() for each in kept}
    for segment in torch.cuda.memory_snapshot():
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"], segment
        address = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == address
            address += block["size"]
            if block["state"] == "active_allocated":
                addresses.discard(block["address"])
    assert not addresses


@feature
def a_snapshot_adds_up_to_the_statistics() -> None:
    import torch

    kept = [tensor(size) for size in (1000, 300_000, 3 * MiB, 512, 40 * MiB, MiB, MiB + 1)]
    del kept[2], kept[0]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept += [tensor(5000), tensor(12 * MiB)]
    sums: dict[str, int] = {}

    def count(name: str, amount: int) -> None:
        sums[name] = sums.get(name, 0) + amount

    for segment in torch.cuda.memory_snapshot():
        for which in ("all", f"{segment['segment_type']}_pool"):
            count(f"allocated_bytes.{which}.current", segment["allocated_size"])
            count(f"active_bytes.{which}.current", segment["active_size"])
            count(f"requested_bytes.{which}.current", segment["requested_size"])
            count(f"reserved_bytes.{which}.current", segment["total_size"])
            for block in segment["blocks"]:
                count(f"allocation.{which}.current", block["state"] == "active_allocated")
                is_split = len(segment["blocks"]) > 1 and not segment["is_expandable"]
                count(f"inactive_split.{which}.current", is_split and block["state"] == "inactive")
    stats = torch.cuda.memory_stats()
    wrong = {name: (stats[name], seen) for name, seen in sums.items() if stats[name] != seen}
    assert not wrong, wrong


def _frames_name_this_file(entry: dict[str, Any]) -> bool:
    return any("torch_features" in frame["filename"] for frame in entry["frames"])


@feature
def record_memory_history() -> object:
    import torch

    torch.cuda.memory._record_memory_history(stacks="python")
    kept = tensor(1000)
    gone = tensor(2 * MiB)
    del gone
    snapshot = torch.cuda.memory._snapshot()
    actions = [entry["action"] for entry in snapshot["device_traces"][0]]
    named = [action for action in actions if action in ("alloc", "free_requested", "free_completed")]
    assert named == ["alloc", "alloc", "free_requested", "free_completed"], actions
    allocated = [entry for entry in snapshot["device_traces"][0] if entry["action"] == "alloc"]
    assert all(_frames_name_this_file(entry) for entry in allocated)
    assert abs(allocated[0]["time_us"] / 1e6 - time.time()) < 60
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    assert any(block["address"] == kept.data_ptr() and _frames_name_this_file(block) for block in blocks)
    torch.cuda.memory._record_memory_history(enabled=None)
    return named


@feature
def record_memory_history_with_cpp_stacks() -> None:
    import torch

    torch.cuda.memory._record_memory_history(stacks="all")
    kept = tensor(1000)
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    frames = next(entry["frames"] for entry in trace if entry["action"] == "alloc")
    assert any("at::" in frame["name"] for frame in frames), frames
    del kept


@feature
def history_of_the_state_alone() -> None:
    import torch

    torch.cuda.memory._record_memory_history(enabled="state", stacks="python")
    kept = tensor(1000)
    snapshot = torch.cuda.memory._snapshot()
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    assert any(block["address"] == kept.data_ptr() and _frames_name_this_file(block) for block in blocks)


@feature
def history_keeps_the_last_entries() -> object:
    import torch

    torch.cuda.memory._record_memory_history(max_entries=5)
    for _ in range(20):
        tensor(1000)
    return len(torch.cuda.memory._snapshot()["device_traces"][0])


@feature
def dump_snapshot() -> None:
    import torch
    from torch.cuda._memory_viz import segment_plot, segsum, trace_plot

    torch.cuda.memory._record_memory_history()
    kept = [tensor(3 * MiB) for _ in range(5)]
    del kept[::2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot.pickle")
        torch.cuda.memory._dump_snapshot(str(path))
        snapshot = pickle.loads(path.read_bytes())
    assert set(snapshot) >= {"segments", "device_traces", "allocator_settings", "external_annotations"}
    assert "<script" in trace_plot(snapshot) and "<script" in segment_plot(snapshot)
    assert "Total" in segsum(snapshot) or segsum(snapshot)
    del kept


@feature
def a_history_can_be_walked_back() -> None:
    """As the viewer does: from the last segments and blocks, event by event, to the state before all of them."""
    import torch

    early = [tensor(size) for size in (1000, 3 * MiB)]
    torch.cuda.memory._record_memory_history()
    kept = [tensor((index * 7919 * 512) % (6 * MiB) + 1) for index in range(200)]
    del kept[::3], early[0]
    torch.cuda.empty_cache()
    kept += [tensor(5000) for _ in range(100)]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept.append(tensor(5 * MiB))
    torch.cuda.memory._snapshot()
    del kept[::2]
    snapshot = torch.cuda.memory._snapshot()
    segments = {
        each["address"]: (each["address"] + each["total_size"], each["stream"]) for each in snapshot["segments"]
    }
    blocks = {
        block["address"]
        for segment in snapshot["segments"]
        for block in segment["blocks"]
        if block["state"] != "inactive"
    }

    def around(start: int, end: int) -> int:
        return next(begin for begin, (its_end, _) in segments.items() if begin <= start and end <= its_end)

    for event in reversed(snapshot["device_traces"][0]):
        start, action = event["addr"] if event["action"] != "oom" else 0, event["action"]
        end = start + event["size"]
        if action in ("segment_unmap", "segment_free"):
            for begin, (its_end, stream) in list(segments.items()):
                if action == "segment_unmap" and stream == event["stream"] and (its_end == start or begin == end):
                    start, end = min(start, begin), max(end, its_end)
                    del segments[begin]
            segments[start] = (end, event["stream"])
        elif action in ("segment_map", "segment_alloc"):
            begin = around(start, end)
            its_end, stream = segments.pop(begin)
            assert action == "segment_map" or (begin, its_end) == (start, end)
            for rest, rest_end in ((begin, start), (end, its_end)):
                if rest != rest_end:
                    segments[rest] = (rest_end, stream)
        elif action == "free_completed":
            blocks.add(start)
        elif action == "free_requested":
            assert start in blocks
        elif action == "alloc":
            blocks.remove(start)
        assert all(around(block, block + 1) is not None for block in blocks), event
    assert len(blocks) == 2


@feature
def user_metadata() -> None:
    import torch

    torch.cuda.memory._record_memory_history()
    torch._C._cuda_setMemoryMetadata("step 7")
    assert torch._C._cuda_getMemoryMetadata() == "step 7"
    kept = tensor(1000)
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    assert [entry["user_metadata"] for entry in trace if entry["action"] == "alloc"] == ["step 7"]
    del kept


@feature
def profiler_shows_device_memory() -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], profile_memory=True) as seen:
        kept = torch.ones(1 << 20, device="cuda") * 2
    used = sum(abs(event.self_device_memory_usage) for event in seen.key_averages())
    assert used >= 4 * MiB, used
    del kept


@feature
def history_with_and_without_stacks() -> object:
    import torch

    def with_stack() -> Any:
        return tensor(1000)

    def without_stack() -> Any:
        return tensor(1000)

    def with_stack_again() -> Any:
        return tensor(1000)

    torch.cuda.memory._record_memory_history(context="all", stacks="python")
    kept = [with_stack()]
    torch.cuda.memory._record_memory_history(context=None)
    kept.append(without_stack())
    torch.cuda.memory._record_memory_history(context="all", stacks="python")
    kept.append(with_stack_again())
    text = repr(torch.cuda.memory._snapshot())
    seen = [name in text for name in ("'with_stack'", "'without_stack'", "'with_stack_again'")]
    assert seen == [True, False, True], seen
    del kept
    return seen


@feature
def history_of_frees_with_their_stacks() -> object:
    import torch

    seen = []
    for context in ("alloc", "all", "state"):
        torch.cuda.memory._record_memory_history(context=context)
        kept = [None]

        def allocate(kept: list[Any] = kept) -> None:
            kept[0] = tensor(1000)

        def release(kept: list[Any] = kept) -> None:
            kept[0] = None

        allocate()
        release()
        text = repr(torch.cuda.memory._snapshot()["device_traces"])
        seen.append(("'allocate'" in text, "'release'" in text))
        torch.cuda.memory._record_memory_history(None)
    assert seen == [(True, False), (True, True), (False, False)], seen
    return seen


@feature
def history_leaves_out_actions() -> object:
    import torch

    seen = []
    for skipped in (["free_requested"], ["free_requested", "free_completed"], ["alloc"]):
        torch.cuda.memory._record_memory_history(context="all", stacks="python", skip_actions=skipped)
        tensor(1000)
        torch.cuda.synchronize()
        actions = {entry["action"] for entry in torch.cuda.memory._snapshot()["device_traces"][0]}
        seen.append((bool(actions), bool(actions & set(skipped))))
        torch.cuda.memory._record_memory_history(None)
    assert seen == [(True, False)] * 3, seen
    return seen
