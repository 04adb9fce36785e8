"""What NVIDIA's tools are told, seen by a tool of our own that NVTX loads as it would Nsight or compute-sanitizer."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cuda_headers import wheel_include_folders

Run = Callable[..., list[str]]


@pytest.fixture(scope="session")
def injection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("nvtx") / "libinjection.so"
    source = Path(__file__).with_name("nvtx_injection.c")
    folders = [f"-isystem{folder}" for folder in wheel_include_folders()]
    command = [*compiler, "-shared", "-fPIC", *folders, str(source), "-o", str(library), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


@pytest.fixture
def record(injection: Path, tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> Run:
    """Runs a program under the tool; what the tool was told, a line each, without the name of the domain."""

    def run(code: str, **changes: str | None) -> list[str]:
        told = tmp_path / "told"
        told.write_text("")
        environment = {"NVTX_INJECTION64_PATH": str(injection), "NVTX_RECORD": str(told), "CENOTE_NVTX": "1"}
        run_fresh(code, **environment | changes)
        lines = told.read_text().splitlines()
        ranges = [line for line in lines if line.startswith(("push", "pop", "mark"))]
        assert all(line.split()[1] == "cenote" for line in ranges)
        return [line.replace(" cenote", "") for line in lines]

    return run


def test_the_outermost_calls_are_ranges_and_what_they_ask_of_others_is_not(record: Run) -> None:
    assert record(
        """
        import cenote
        resource = cenote.mr.from_spec("statistics | tracking | cuda")
        resource.deallocate(resource.allocate(1000), 1000)
        """
    ) == ["push allocate 1000", "pop", "push deallocate 1000", "pop"]


def test_a_pool_that_grows_says_so_within_the_allocation(record: Run) -> None:
    assert record(
        """
        import cenote
        resource = cenote.mr.from_spec("statistics | pool:initial=0 | cuda")
        one = resource.allocate(1000)
        resource.allocate(1000)
        resource.deallocate(one, 1000)
        import os
        os._exit(0)
        """
    ) == [
        *("push allocate 1000", "push grow 2097152", "pop", "pop"),
        *("push allocate 1000", "pop", "push deallocate 1000", "pop"),
    ]


@pytest.mark.parametrize("trim", ["resource.trim()", "cenote.mr.ThreadSafeResourceAdaptor(resource).trim()"])
def test_a_trim_is_one_range_and_what_is_freed_in_it_is_not(record: Run, trim: str) -> None:
    told = record(
        f"""
        import cenote
        resource = cenote.mr.from_spec("statistics | limiting:limit=1GiB | pool:initial=0 | cuda")
        resource.deallocate(resource.allocate(1000), 1000)
        cenote.DEFAULT_STREAM.synchronize()
        assert {trim} > 0
        """
    )
    assert told[-2:] == ["push trim 0", "pop"]
    assert told.count("push trim 0") == 1


def test_memory_that_ran_out_is_a_mark(record: Run) -> None:
    told = record(
        """
        import cenote
        resource = cenote.mr.from_spec("pool:initial=0,max=1MiB | cuda")
        try:
            resource.allocate(1 << 30)
        except MemoryError:
            pass
        """
    )
    assert told == ["push allocate 1073741824", "pop", "mark out_of_memory 1073741824"]


def test_the_drivers_pool_says_when_it_is_trimmed(record: Run) -> None:
    assert record("import cenote; cenote.mr.CudaAsyncMemoryResource().trim()") == ["push trim 0", "pop"]


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_said_unless_it_is_switched_on(record: Run, value: str | None) -> None:
    code = "import cenote; mr = cenote.mr.CudaMemoryResource(); mr.deallocate(mr.allocate(100), 100)"
    assert record(code, CENOTE_NVTX=value) == []


def test_programs_run_the_same_where_no_tool_listens(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh(
        """
        import cenote
        resource = cenote.mr.from_spec("pool:initial=0 | cuda")
        resource.deallocate(resource.allocate(100), 100)
        resource.check()
        """,
        CENOTE_NVTX="1",
    )
    assert done.stderr == "", "this build has no headers of NVTX"


def memory_of(told: list[str]) -> list[str]:
    return [line for line in told if line.startswith(("heap", "region"))]


def test_blocks_of_a_pool_are_regions_of_the_drivers_allocation(record: Run) -> None:
    told = memory_of(
        record(
            """
            import cenote
            from cenote import mr
            statistics = mr.from_spec("statistics | pool:initial=0 | cuda")
            one, two = statistics.allocate(1000), statistics.allocate(300)
            statistics.deallocate(one, 1000)
            statistics.deallocate(two, 300)
            cenote.DEFAULT_STREAM.synchronize()
            assert statistics.trim() > 0
            """,
            NVTX_RECORD_MEMORY="1",
        )
    )
    kinds = [line.split()[0] for line in told]
    assert kinds == ["heap", "region", "region", "region-end", "region-end", "heap-end"]
    base = int(told[0].split()[1], 16)
    size = int(told[0].split()[2])
    one, two = (int(line.split()[1], 16) for line in told[1:3])
    assert [line.split()[2] for line in told[1:3]] == ["1000", "300"]
    assert all(base <= address < base + size for address in (one, two))
    assert [int(line.split()[1], 16) for line in told[3:]] == [one, two, base]


@pytest.mark.parametrize("stack", ["cuda", "statistics | tracking | cuda", "async"])
def test_memory_that_the_driver_gives_out_itself_is_not_announced(record: Run, stack: str) -> None:
    told = record(
        f"""
        import cenote
        resource = cenote.mr.from_spec({stack!r})
        resource.deallocate(resource.allocate(1000), 1000)
        """,
        NVTX_RECORD_MEMORY="1",
    )
    assert memory_of(told) == []


@pytest.mark.parametrize(
    "stack", ["arena:size=8MiB | cuda", "binning:min=8,max=12 | pool:initial=0 | cuda", "pool | async"]
)
def test_every_resource_that_cuts_announces_what_it_hands_out(record: Run, stack: str) -> None:
    told = memory_of(
        record(
            f"""
            import cenote
            resource = cenote.mr.from_spec({stack!r})
            for size in (100, 5000, 100):
                resource.deallocate(resource.allocate(size), size)
            """,
            NVTX_RECORD_MEMORY="1",
        )
    )
    sizes = [line.split()[2] for line in told if line.startswith("region ")]
    assert sizes == ["100", "5000", "100"]
    assert len([line for line in told if line.startswith("region-end")]) == 3


def test_a_chunk_that_comes_back_at_the_same_place_is_a_new_heap(record: Run) -> None:
    told = memory_of(
        record(
            """
            import cenote
            pool = cenote.mr.from_spec("pool:initial=0 | cuda")
            for size in (1000, 5 << 20, 1000):
                pool.deallocate(pool.allocate(size), size)
                cenote.DEFAULT_STREAM.synchronize()
                assert cenote.mr.StatisticsResourceAdaptor(pool).trim() > 0
            """,
            NVTX_RECORD_MEMORY="1",
        )
    )
    assert [line.split()[0] for line in told] == ["heap", "region", "region-end", "heap-end"] * 3


def test_a_block_that_is_freed_within_an_allocation_is_no_region_any_more(record: Run) -> None:
    told = record(
        """
        from cenote import mr
        blocks = []
        def free(size):
            resource.deallocate(blocks.pop(), 1 << 20)
            return True
        resource = mr.FailureCallbackResourceAdaptor(mr.from_spec("pool:initial=1MiB,max=1MiB | cuda"), free)
        blocks.append(resource.allocate(1 << 20))
        resource.deallocate(resource.allocate(1 << 20), 1 << 20)
        """,
        NVTX_RECORD_MEMORY="1",
    )
    assert [line.split()[0] for line in memory_of(told)][:5] == ["heap", "region", "region-end", "region", "region-end"]


def test_frameworks_memory_is_announced_through_the_registry(record: Run) -> None:
    told = record(
        """
        import cenote
        from cenote.registry import Client
        cenote.mr.set_current_device_resource(cenote.mr.from_spec("pool:initial=0 | cuda"))
        client, stream = Client("torch"), cenote.Stream()
        block = client.allocate(1000, stream)
        client.share(block)
        client.deallocate(block, stream)
        """,
        NVTX_RECORD_MEMORY="1",
    )
    assert [line.split()[0] for line in memory_of(told)][:3] == ["heap", "region", "region-end"]
