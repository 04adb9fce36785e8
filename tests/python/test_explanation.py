"""Explanations and reports: what they say follows from what happened, and a page is whole by itself."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import cenote
from cenote import mr, recorder, registry, sim
from cenote.cli.simulated_machine import begin_capture, end_capture
from cenote.explanation import Explanation

MIB = 1024**2


@pytest.fixture(autouse=True)
def pool() -> Iterator[None]:
    before = mr.set_current_device_resource(mr.from_spec("pool:max=64MiB"))
    yield
    mr.set_current_device_resource(before or mr.CudaMemoryResource())


def explained(nbytes: int) -> Explanation:
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        cenote.DeviceBuffer(size=nbytes)
    return cenote.explain(caught.value)


def test_parts_add_up_to_the_devices_memory() -> None:
    buffer = cenote.DeviceBuffer(size=10 * MIB + 1)
    direct = mr.get_current_device_resource().allocate(5 * MIB)
    explanation = explained(60 * MIB)
    parts = {part.name: part.bytes for part in explanation.account}
    free, total = cenote.driver.memory_info(0)
    assert sum(parts.values()) == total
    assert parts["free"] == free
    assert parts["held by clients"] == 10 * MIB + 1
    assert parts["in use without a client, and what rounding adds"] >= 5 * MIB
    assert min(parts.values()) >= 0
    mr.get_current_device_resource().deallocate(direct, 5 * MIB)
    buffer.close()


def test_why_says_what_the_figures_say() -> None:
    buffer = cenote.DeviceBuffer(size=40 * MIB)
    assert explained(60 * MIB).why == "40.00 MiB of 64.00 MiB are in use, so that 60.00 MiB is 36.00 MiB too much."
    assert explained(100 * MIB).why == "100.00 MiB is more than the resource may hold: its limit is 64.00 MiB."
    assert "more than the device has: 8.00 GiB" in explained(1 << 40).why
    buffer.close()
    blocks = [cenote.DeviceBuffer(size=MIB) for _ in range(64)]
    for block in blocks[::2]:
        block.close()
    if (explanation := explained_or_none(40 * MIB)) is not None:
        assert "is 8.00 MiB too much" in explanation.why


def explained_or_none(nbytes: int) -> Explanation | None:
    try:
        cenote.DeviceBuffer(size=nbytes).close()
    except cenote.OutOfMemoryError as error:
        return cenote.explain(error)
    return None


def taken_beside_cenote(nbytes: int) -> None:
    """Take memory of device 0 as a library would that does not allocate from cenote; it stays taken."""
    driver = ctypes.CDLL(str(Path(cenote.__file__).parent / "lib" / "libcenote_sim.so"))
    context, address = ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxPushCurrent_v2(context) == 0
    assert driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(nbytes)) == 0
    assert driver.cuCtxPopCurrent_v2(ctypes.byref(context)) == 0


@pytest.fixture
def device() -> Iterator[None]:
    """A simulated device that is made anew afterwards, with whatever is left on it."""
    yield
    mr.set_current_device_resource(mr.CudaMemoryResource())
    sim.reset()


REST = "the rest: contexts, libraries beside cenote, and what nobody tells"


def test_others_on_the_device_are_told_apart_from_the_resource(device: None) -> None:
    mr.set_current_device_resource(mr.from_spec("pool"))
    others = mr.CudaMemoryResource()
    block = others.allocate(7000 * MIB)
    taken_beside_cenote(1000 * MIB)
    explanation = explained(500 * MIB)
    assert "are taken by others" in explanation.why
    parts = {part.name: part.bytes for part in explanation.account}
    assert parts["held by other resources of cenote"] == 7000 * MIB
    assert parts[REST] == 1000 * MIB
    others.deallocate(block, 7000 * MIB)


class FakeNVML(types.ModuleType):
    """NVML as its package has it, for one device of whose processes a test knows."""

    class NVMLError(Exception):
        pass

    def __init__(self, uuid: str, processes: dict[int, int | None]) -> None:
        super().__init__("pynvml")
        self.uuid, self.processes = uuid, processes

    def nvmlInit(self) -> None:
        pass

    nvmlShutdown = nvmlInit

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != self.uuid:
            raise self.NVMLError(f"there is no {uuid}")
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[object]:
        assert handle == self.uuid
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in self.processes.items()]

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[object]:
        return self.nvmlDeviceGetComputeRunningProcesses(handle)[:1]


def parts_with(monkeypatch: pytest.MonkeyPatch, processes: dict[int, int | None]) -> dict[str, int]:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNVML(sim.uuids()[0], processes))
    explanation = cenote.explain()
    assert sum(part.bytes for part in explanation.account) == cenote.driver.memory_info(0)[1]
    return {part.name: part.bytes for part in explanation.account}


def test_nvml_tells_other_processes_and_the_contexts_of_this_one_apart(
    device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = cenote.DeviceBuffer(size=10 * MIB)
    taken_beside_cenote(1000 * MIB)
    held = mr.get_current_device_resource().state().held
    own = os.getpid()
    parts = parts_with(monkeypatch, {own: held + 400 * MIB, own + 1: 200 * MIB, own + 2: 300 * MIB, own + 3: None})
    assert parts["held by clients"] == 10 * MIB
    assert parts["other processes"] == 500 * MIB
    assert parts["contexts, modules and libraries of this process beside cenote"] == 400 * MIB
    assert parts["the rest: what the driver keeps, and nobody tells"] == 100 * MIB
    buffer.close()


def test_nvml_that_does_not_know_this_process_by_its_number_tells_nothing(
    device: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_beside_cenote(1000 * MIB)
    assert parts_with(monkeypatch, {os.getpid() + 1: 500 * MIB})[REST] == 1000 * MIB


def test_memory_of_libraries_own_allocators_has_their_name(device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_beside_cenote(1000 * MIB)
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        get_allocator_backend=lambda: "native",
        memory_reserved=lambda device: 300 * MIB,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace())  # half imported: it tells nothing
    parts = {part.name: part.bytes for part in cenote.explain().account}
    assert (parts["PyTorch's own allocator"], parts[REST]) == (300 * MIB, 700 * MIB)
    cuda.get_allocator_backend = lambda: "pluggable"
    assert {part.name: part.bytes for part in cenote.explain().account}[REST] == 1000 * MIB


@pytest.mark.slow
def test_account_of_a_process_with_all_libraries_adds_up(tmp_path: Path) -> None:
    """As far as they are here: the rest of the program is for a real device."""
    program = Path(__file__).parents[1] / "gpu" / "account.py"
    done = subprocess.run(
        [sys.executable, program, tmp_path / "account.json"],
        env={**os.environ, "CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=8GiB"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "account.json").read_text()).values()
    assert first["used"] == sum(first["parts"].values()) >= first["clients"]["cenote"] == 64 * MIB
    assert second["used"] == sum(second["parts"].values())


def test_clients_of_a_resource_without_figures_are_told() -> None:
    mr.set_current_device_resource(mr.from_spec("cuda"))
    buffer = cenote.DeviceBuffer(size=10 * MIB)
    assert {part.name: part.bytes for part in cenote.explain().account}["held by clients"] == 10 * MIB
    buffer.close()


def test_lines_of_the_program_are_told_where_they_are_sampled() -> None:
    unknown = cenote.DeviceBuffer(size=MIB)
    cenote.sample_sites()
    try:
        line = sys._getframe().f_lineno + 1
        many = [cenote.DeviceBuffer(size=2 * MIB) for _ in range(5)]
        explanation = explained(60 * MIB)
        sites = [each for each in explanation.holders if each.kind == "site"]
        assert f"test_explanation.py:{line} " in sites[0].name
        assert (sites[0].bytes, sites[0].blocks) == (10 * MIB, 5)
        assert (sites[1].name, sites[1].bytes) == ("", MIB)
        assert "\n  held by call site: " in explanation.message
        assert "(not sampled) 1.00 MiB in 1 block" in explanation.message
        assert "Held by call site:" in str(explanation)
        assert [each for each in cenote.explain().holders if each.kind == "site"] == sites
        assert f"test_explanation.py:{line} " in explanation._repr_html_()
        for each in many:
            each.close()
        assert not [each for each in cenote.explain().holders if each.kind == "site"], "nothing sampled is held"
    finally:
        cenote.sample_sites(0)
    unknown.close()


@pytest.mark.parametrize("size", [256 << 10, 3 * MIB, 30 * MIB])
@pytest.mark.parametrize("specification", ["pool:max=64MiB", "pool:max=64MiB | cuda", "arena:size=64MiB | cuda"])
def test_what_other_streams_have_freed_is_out_of_reach_in_a_capture_alone(
    specification: str, size: int, device: None
) -> None:
    mr.set_current_device_resource(mr.from_spec(specification))
    client = registry.Client("tests of explanations")
    freeing, asking, captured, later = (cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING) for _ in range(4))
    count = 60 * MIB // size

    def use(stream: cenote.Stream) -> None:
        buffers = [cenote.DeviceBuffer(size=size, stream=stream) for _ in range(count)]
        buffers[0].copy_from_host(bytes(size), stream)  # which is pending while the block is freed
        for buffer in buffers:
            buffer.close()

    use(freeing)
    use(asking)
    begin_capture(captured)
    blocks: list[int] = []
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        for _ in range(count):
            blocks.append(client.allocate(size, captured))
    for block in blocks:
        client.deallocate(block, captured)
    assert "beside a capture into a graph nothing may be waited for" in cenote.explain(caught.value).why
    end_capture(captured)
    if not specification.startswith("arena"):  # which keeps what it has
        mr.get_current_device_resource().trim(0, True)
        begin_capture(later)
        client.deallocate(client.allocate(size, later), later)
        end_capture(later)


GROWS = """
import cenote
from cenote import mr, registry
mr.set_current_device_resource(mr.from_spec("pool:max=64MiB"))
client = registry.Client("tests of explanations")
passing = []
for _ in range(200):
    with cenote.tag("a leak"):
        client.allocate(50_000)
    with cenote.tag("work"):
        passing.append(client.allocate(100_000))
        if len(passing) > 5:
            client.deallocate(passing.pop(0))
try:
    client.allocate(100 << 20)
except MemoryError as error:
    growing = cenote.explain(error).growing
assert (growing[0].kind, growing[0].name) == ("tag", "a leak"), growing
assert growing[0].held_bytes == 200 * 50_000
assert "work" not in {each.name for each in growing}
"""


def test_who_only_grows_is_named() -> None:
    subprocess.run([sys.executable, "-c", GROWS], check=True)


def test_error_of_a_framework_is_explained_by_the_last_failure() -> None:
    try:
        try:
            cenote.DeviceBuffer(size=100 * MIB)
        except cenote.OutOfMemoryError as error:
            raise RuntimeError("a framework's own error") from error
    except RuntimeError as error:
        assert cenote.explain(error).requested == 100 * MIB
    explanation = cenote.explain(RuntimeError("CUDA out of memory"))
    assert explanation.requested == 100 * MIB
    assert "were asked for in vain" in explanation.why


def test_process_as_it_is_has_an_account_and_no_request() -> None:
    buffer = cenote.DeviceBuffer(size=MIB)
    explanation = cenote.explain()
    assert explanation.requested is None
    assert sum(part.bytes for part in explanation.account) == cenote.driver.memory_info(0)[1]
    assert explanation.resource == "pool:max=64MiB | virtual"
    buffer.close()


class Page(HTMLParser):
    """The tags that are open, and what a page asks others for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "hr", "img"):
            self.open.append(tag)
        self.outside += [
            value
            for name, value in attributes
            if name in ("src", "href") and value and not value.startswith(("#", "data:"))
        ]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in ("meta", "br", "hr", "img"):
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_asks_for_nothing_else(tmp_path: Path) -> None:
    with cenote.tag("<script>alert('1')</script> & co."):
        buffer = cenote.DeviceBuffer(size=MIB)
    explanation = explained(100 * MIB)
    explanation.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.outside == []
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<svg") >= 2
    assert "<script" not in explanation._repr_html_()
    buffer.close()


def test_explanation_is_plain_data_for_json() -> None:
    explanation = explained(100 * MIB)
    told = json.loads(json.dumps(explanation.to_dict()))
    assert told["requested"] == 100 * MIB
    assert {"name", "bytes"} == set(told["account"][0])


def test_explanation_of_many_events_takes_less_than_a_second() -> None:
    client = registry.Client("tests of explanations")
    blocks = [client.allocate(256) for _ in range(20_000)]
    for _ in range(40_000):
        client.deallocate(client.allocate(512))
    begun = time.perf_counter()
    with pytest.raises(MemoryError):
        client.allocate(100 * MIB)
    message_seconds = time.perf_counter() - begun
    for block in blocks:
        client.deallocate(block)
    assert message_seconds < 1


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cenote", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_commands_explain_and_report_recordings_and_logs(tmp_path: Path) -> None:
    with cenote.tag("told"):
        buffer = cenote.DeviceBuffer(size=MIB)
    recorder.snapshot().save(tmp_path / "saved.rec")
    buffer.close()
    for file, words in ((tmp_path / "saved.rec", "told, 1 block"), (cenote.trace.example(), "log, 2 blocks")):
        told = run("explain", file)
        assert words in told.stdout, told.stderr
        assert json.loads(run("explain", file, "--json").stdout)["device"] == 0
        made = run("report", tmp_path / "page.html", "--recording", file)
        assert made.returncode == 0, made.stderr
        assert Page((tmp_path / "page.html").read_text()).open == []
    bad = tmp_path / "bad.rec"
    bad.write_bytes(b"cenoteFR" + b"\xff" * 200)
    for command in (("explain", bad), ("report", tmp_path / "page.html", "--recording", bad)):
        failed = run(*command)
        assert failed.returncode == 2
        assert failed.stderr.startswith(f"cenote: {bad}: ")
        assert len(failed.stderr.splitlines()) == 1


def test_trace_made_a_recording_is_the_same_trace_again(tmp_path: Path) -> None:
    recorded = cenote.trace.read(cenote.trace.example())
    recording = recorder.from_trace(recorded)
    again = recording.to_trace()
    assert (again["pointer"] == recorded["pointer"]).all()
    assert (again["bytes"] == recorded["bytes"]).all()
    assert (again["action"] == recorded["action"]).all()
    assert (again["time_us"] == recorded["time_us"]).all()
    recording.save(tmp_path / "saved.rec")
    assert len(recorder.read(tmp_path / "saved.rec").events) == len(recorded)


@pytest.mark.slow
def test_advice_on_a_log_names_the_resource_that_needs_clearly_less_or_says_that_none_does() -> None:
    told = json.loads(run("advise", cenote.trace.example(), "--resource", "pool | cuda", "--json").stdout)
    assert told["advice"][0]["specification"] == "pool | virtual"
    told = json.loads(run("advise", cenote.trace.example(), "--resource", "pool", "--json").stdout)
    assert told["advice"][0]["kind"] == "none"
    assert told["advice"][0]["text"].startswith("Stay with 'pool'")


@pytest.mark.slow
def test_no_advice_is_given_where_the_failure_does_not_come_up(tmp_path: Path) -> None:
    with pytest.raises(MemoryError):
        cenote.DeviceBuffer(size=100 * MIB)
    recorder.snapshot().save(tmp_path / "saved.rec")
    told = run("advise", tmp_path / "saved.rec", "--resource", "pool:max=8GiB")
    assert told.returncode == 0, told.stderr
    assert "No advice" in told.stdout
    assert json.loads(run("advise", tmp_path / "saved.rec", "--json").stdout) == {"advice": [], "reproduced": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("specification", "held", "present"),
    [("pool", ["pool", 200, 300], 512), ("cuda", ["cuda", 0, 500], 512)],
    ids=["others hold a part", "the resource does not know"],
)
def test_advised_budget_counts_what_others_hold_of_it(
    run_fresh: Callable[..., subprocess.CompletedProcess[str]], specification: str, held: list[Any], present: int
) -> None:
    kind, others, ours = held
    done = run_fresh(
        f"""
        import re
        import cenote
        MIB = 1 << 20
        cenote.budget({present} * MIB)
        beside = cenote.mr.from_spec({kind!r})
        kept = beside.allocate({others} * MIB)
        cenote.mr.set_current_device_resource(cenote.mr.from_spec({specification!r}))
        blocks = [cenote.DeviceBuffer(size=20 * MIB) for _ in range({ours} // 20)]
        try:
            cenote.DeviceBuffer(size=100 * MIB)
        except cenote.OutOfMemoryError as error:
            (advice,) = [each for each in cenote.explain(error, advice=True).advice if each.kind == "limit"]
        print(advice.text, advice.needed_bytes / MIB)
        """
    )
    budget, least, above = re.findall(r"([\d.]+) MiB", done.stdout)[:3]
    needed = others + ours + 100
    assert needed <= float(least) <= 1.02 * needed
    assert float(least) - float(above) == pytest.approx(present, abs=0.02)
    assert float(budget) > float(least) == pytest.approx(float(done.stdout.split()[-1]), abs=0.01)
