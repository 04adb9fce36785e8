"""`cenote.install` where there is no real device: what it reports, and what it refuses."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote
from cenote import frameworks, mr, registry
from cenote._doors import DOORS


@pytest.mark.parametrize("resource", [None, 7, b"cuda", object(), mr.CudaMemoryResource, True])
def test_what_is_no_resource_is_refused_by_name(resource: Any) -> None:
    with pytest.raises(TypeError, match="resource must be a specification or a memory resource"):
        cenote.install(resource)


@pytest.mark.parametrize("frameworks", [None, 7, b"torch", object(), True])
def test_what_names_no_frameworks_is_refused_by_name(frameworks: Any) -> None:
    with pytest.raises(TypeError, match="frameworks must be names of frameworks"):
        cenote.install("cuda", frameworks)


def is_installed(framework: str) -> bool:
    try:
        return importlib.util.find_spec({"cuda": "cuda.core"}.get(framework, framework)) is not None
    except ModuleNotFoundError:  # of the package that it lies in
        return False


def test_each_framework_has_a_row_that_says_why_it_is_not_there() -> None:
    report = cenote.install("pool:initial=0")
    assert [row.framework for row in report] == list(frameworks.FRAMEWORKS)
    assert not report
    for row in report:
        assert not row.installed
        if not is_installed(row.framework):
            assert row.detail == f"not installed: pip install 'cenote[{row.framework}]'"
        else:
            assert "no GPU" in row.detail and "simulated" in row.detail


def test_report_names_every_door_of_the_libraries_that_are_there(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    for name in ("warp", "triton", "jax"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('was imported')\n")
    run_fresh(
        """
        import cenote
        report = cenote.install("cuda", frameworks=())
        assert report and not list(report)               # what the call does not go through is no failure of it
        names = [row.framework for row in report.others]
        assert [name for name in names if name in ("warp", "triton", "jax")] == ["warp", "triton", "jax"], names
        text, page = str(report), report._repr_html_()
        assert "· warp" in text and "frameworks='warp'" in text and "DLPack" in text
        assert page.count("<td>·</td>") == len(names)
        """,
        PYTHONPATH=str(tmp_path),
    )


def test_resource_is_current_although_no_framework_took_it() -> None:
    report = cenote.install("statistics | pool:initial=0", frameworks=())
    assert bool(report)
    assert report.resource == mr.get_current_device_resource().specification == "statistics | pool:initial=0 | virtual"


def test_resource_may_be_an_object() -> None:
    pool = mr.from_spec("pool:initial=0")
    cenote.install(pool, frameworks=())
    assert mr.get_current_device_resource() is pool


def test_same_specification_again_makes_no_other_resource() -> None:
    cenote.install("pool:initial=0,max=64MiB", frameworks=())
    first = mr.get_current_device_resource()
    cenote.install("pool:initial=0,max=64MiB", frameworks=())
    assert mr.get_current_device_resource() is first
    cenote.install("pool:initial=0,max=32MiB", frameworks=())
    assert mr.get_current_device_resource() is not first


def test_resource_that_was_replaced_meanwhile_is_made_again() -> None:
    cenote.install("pool:initial=0,max=16MiB", frameworks=())
    mr.set_current_device_resource(mr.CudaMemoryResource())
    report = cenote.install("pool:initial=0,max=16MiB", frameworks=())
    assert report.resource == mr.get_current_device_resource().specification == "pool:initial=0,max=16MiB | virtual"


def test_resource_goes_to_the_device_that_is_named_or_current(
    on_device: Callable[[int], AbstractContextManager[None]],
) -> None:
    cenote.install("pool:initial=0", frameworks=(), device=1)
    assert mr.get_per_device_resource(1).specification == "pool:initial=0 | virtual"
    assert mr.get_per_device_resource(0).specification == "cuda"
    with on_device(1):
        cenote.install("statistics | cuda", frameworks=())
    assert mr.get_per_device_resource(1).specification == "statistics | cuda"


RANKS = {
    "LOCAL_RANK": None,
    "OMPI_COMM_WORLD_LOCAL_RANK": None,
    "MV2_COMM_WORLD_LOCAL_RANK": None,
    "MPI_LOCALRANKID": None,
    "SLURM_LOCALID": None,
    "CUDA_VISIBLE_DEVICES": None,
}
LOCAL = """
    import cenote
    report = cenote.install("pool:max=1GiB", frameworks=(), device="local")
    assert report.resource == "pool:max=1GiB | virtual"
    print(cenote.driver.current_device(), cenote.registry.devices_with_resource())
    print(cenote.DeviceBuffer(size=1000))
"""


@pytest.mark.parametrize(
    ("variables", "device"),
    [
        *(({name: "2"}, 2) for name in RANKS if name != "CUDA_VISIBLE_DEVICES"),
        ({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}, 1),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 3),
        ({"LOCAL_RANK": "3", "CUDA_VISIBLE_DEVICES": "3"}, 0),
        ({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "3,2"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 0),
    ],
)
def test_local_device_is_that_of_the_process(
    variables: dict[str, str], device: int, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    done = run_fresh(LOCAL, CENOTE_SIM="devices=4,memory=8GiB", **{**RANKS, **variables})
    chosen, buffer = done.stdout.splitlines()
    assert chosen == f"{device} [{device}]"
    assert buffer.endswith(f"on device {device}>")
    assert done.stderr == ""


def test_local_device_of_a_worker_of_dask_cuda_is_the_first(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh(
        "import sys, types\nsys.modules['dask_cuda'] = types.ModuleType('dask_cuda')\n" + textwrap.dedent(LOCAL),
        CENOTE_SIM="devices=4,memory=8GiB",
        **{**RANKS, "CUDA_VISIBLE_DEVICES": "2,3,0,1", "SLURM_LOCALID": "2"},
    )
    assert done.stdout.startswith("0 [0]\n")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "the process sees 4 devices, and no launcher has told which is its own: none of LOCAL_RANK, "),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK is '4', and the process sees the devices 0 to 3"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK is 'one'"),
        ({"SLURM_LOCALID": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, "SLURM_LOCALID is '2'"),
    ],
)
def test_process_that_has_no_device_of_its_own_says_why(
    variables: dict[str, str], message: str, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    run_fresh(
        f"""
        import cenote
        try:
            cenote.install("pool", frameworks=(), device="local")
        except ValueError as error:
            assert str(error).startswith("device='local': ") and {message!r} in str(error), error
        else:
            raise AssertionError("it took one")
        assert cenote.registry.devices_with_resource() == []
        """,
        CENOTE_SIM="devices=4,memory=8GiB",
        **{**RANKS, **variables},
    )


def test_thread_that_works_on_another_device_than_the_local_one_is_warned_once(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    done = run_fresh(
        """
        import threading
        import cenote
        cenote.DeviceBuffer(size=1000)  # on device 0, before
        cenote.install("pool:max=1GiB", frameworks=(), device="local")
        def work(device):
            if device is not None:
                cenote.driver.set_device(device)
            cenote.DeviceBuffer(size=1000)
        for device in (1, None, None, 2):
            thread = threading.Thread(target=work, args=(device,))
            thread.start()
            thread.join()
        """,
        CENOTE_SIM="devices=4,memory=8GiB",
        **{**RANKS, "LOCAL_RANK": "1"},
    )
    (warned,) = done.stderr.splitlines()
    assert warned.startswith("cenote: warn: a thread uses device 0, and this process was put onto device 1: ")
    assert "comes from 'cuda'. Let each thread choose device 1" in warned


def test_nobody_is_warned_once_all_devices_have_a_resource(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    done = run_fresh(
        """
        import cenote
        cenote.install("pool:max=1GiB", frameworks=(), device="local")
        cenote.install("pool:max=1GiB", frameworks=())
        assert cenote.mr.get_per_device_resource(0).specification == "pool:max=1GiB | virtual"
        """,
        CENOTE_SIM="devices=2,memory=8GiB",
        **{**RANKS, "LOCAL_RANK": "1"},
    )
    assert done.stderr == ""


def test_object_of_the_local_device_may_be_installed_on_it(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        cenote.install(cenote.mr.from_spec("statistics | pool", 1), frameworks=(), device="local")
        assert cenote.DeviceBuffer(size=1000).mr.specification == "statistics | pool | virtual"
        try:
            cenote.install(cenote.mr.from_spec("pool", 0), frameworks=(), device="local")
        except ValueError as error:
            assert "device 0 cannot serve device 1" in str(error)
        else:
            raise AssertionError("it was taken")
        """,
        CENOTE_SIM="devices=2,memory=8GiB",
        **{**RANKS, "LOCAL_RANK": "1"},
    )


@pytest.mark.parametrize("device", ["", "1", "LOCAL", "cuda:1"])
def test_other_words_are_no_device(device: str) -> None:
    with pytest.raises(ValueError, match=f"device must be the number of a device, 'local' or None, not '{device}'"):
        cenote.install("cuda", frameworks=(), device=device)


def test_unknown_framework_is_a_value_error_and_changes_nothing() -> None:
    before = mr.get_current_device_resource()
    with pytest.raises(ValueError, match="'jax' is not a framework that cenote knows; known are: torch, cupy, numba"):
        cenote.install("pool:initial=0", frameworks=("torch", "jax"))
    assert mr.get_current_device_resource() is before


def test_wrong_specification_is_a_value_error_and_changes_nothing() -> None:
    before = mr.get_current_device_resource()
    with pytest.raises(ValueError, match="'lake' is not a known resource"):
        cenote.install("lake")
    assert mr.get_current_device_resource() is before


def test_specification_holds_for_every_device() -> None:
    mr.set_per_device_resource(1, mr.from_spec("managed", 1))
    report = cenote.install("statistics | pool:initial=0", frameworks=())
    assert report.devices == tuple(
        frameworks.InstallDevice(device, "statistics | pool:initial=0 | virtual", False) for device in (0, 1)
    )
    for device in (0, 1):
        assert mr.get_per_device_resource(device).specification == "statistics | pool:initial=0 | virtual"


def test_specification_holds_for_devices_that_are_chosen_later(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    """As under torchrun, where each process first installs and then chooses its device: no other device is touched."""
    run_fresh(
        """
        import ctypes, threading
        import cenote
        from cenote import driver, mr, registry, sim
        report = cenote.install("pool:initial=64MiB,max=1GiB", frameworks=())
        assert report.resource == "pool:initial=64MiB,max=1GiB | virtual"
        assert [each.is_made for each in report.devices] == [False] * 3
        assert sim.calls("cuDevicePrimaryCtxRetain") == 0 and sim.live().device_bytes == 0
        driver.set_device(2)
        buffer = cenote.DeviceBuffer(size=1000)
        assert buffer.mr.specification == "pool:initial=64MiB,max=1GiB | virtual" and buffer.mr.device == 2
        client = registry.Client("tests")
        block = client.allocate(1000, device=2)
        assert registry.devices_with_resource() == [2]
        assert sim.calls("cuDevicePrimaryCtxRetain") == 1 and sim.live().device_bytes == 64 << 20
        seen = []
        def work():
            driver.set_device(1)
            seen.append(mr.get_current_device_resource().specification)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == ["pool:initial=64MiB,max=1GiB | virtual"]
        client.deallocate(block)
        """,
        CENOTE_SIM="devices=3,memory=8GiB",
    )


def test_one_thread_makes_a_devices_resource_and_others_wait(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    """Half of the device's memory fits once only: two pools beside each other would run out."""
    run_fresh(
        """
        import threading
        import cenote
        from cenote import mr, sim
        cenote.install("pool:initial=60%", frameworks=())
        made = []
        barrier = threading.Barrier(8)
        def ask():
            barrier.wait()
            made.append(mr.get_per_device_resource(1))
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert len(made) == 8 and len(set(map(id, made))) == 1
        assert sim.calls("cuMemAddressReserve") == 1
        """,
    )


def test_device_that_was_chosen_and_the_only_one_get_their_resource_at_once(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    for settings, choose in (("devices=1,memory=8GiB", False), ("devices=2,memory=8GiB", True)):
        run_fresh(
            f"""
            import cenote
            from cenote import driver, mr, registry
            on = driver.device_count() - 1
            if {choose}:
                driver.set_device(on)
            try:
                cenote.install("pool:initial=9GiB", frameworks=())
            except MemoryError:
                pass
            else:
                raise AssertionError("it did not show")
            assert registry.default_specification() == "cuda" and registry.devices_with_resource() == []
            report = cenote.install("pool:initial=1GiB", frameworks=())
            assert report.resource == "pool:initial=1GiB | virtual"
            assert [each.device for each in report.devices if each.is_made] == [on]
            """,
            CENOTE_SIM=settings,
        )


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("pool:initial=lots", "'lots' is no size for 'initial'"),
        ("limiting", "'limiting' needs a limit"),
        ("sam_headroom", "'sam_headroom' needs a value for 'headroom'"),
        ("binning:min=10", "'binning' needs both 'min' and 'max', or neither"),
        ("fixed_size:preallocate=1GiB", "'1GiB' is no number for 'preallocate'"),
        ("tracking:capture_stacks=maybe", "'maybe' is neither true nor false"),
        ("arena:dump=maybe", "'maybe' is neither true nor false"),
        ("guard:bytes=x", "'x' is no size"),
        ("aligned:threshold=x", "'x' is no size"),
        ("async:peers=x", "names no devices for 'peers'"),
        ("cuda | pool", "nothing can stand under it"),
        ("logging", "the logging adaptor needs a file"),
        ('logging:file="a | cuda', "a quote stands at the beginning and at the end"),
        ("", "a resource is missing"),
    ],
)
def test_wrong_specification_shows_at_once_also_where_no_device_is_chosen(
    specification: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RMM_LOG_FILE", raising=False)
    before = {device: mr.get_per_device_resource(device) for device in (0, 1)}
    with pytest.raises(ValueError, match=message):
        cenote.install(specification, frameworks=())
    assert {device: mr.get_per_device_resource(device) for device in (0, 1)} == before
    assert registry.default_specification() == "cuda"


@pytest.mark.parametrize(
    ("specification", "error", "message"),
    [
        ("pool:initial=2MiB,max=1MiB", RuntimeError, "exceeds the maximum"),
        ("async:peers=7", IndexError, "there is no device 7"),
    ],
)
def test_device_that_cannot_have_what_was_installed_says_what_that_was(
    specification: str, error: type[Exception], message: str
) -> None:
    registry.set_default_specification(specification)
    mr.reset_per_device_resource(1)
    with pytest.raises(error, match=f"^in what was installed, '{specification}': .*{message}"):
        mr.get_per_device_resource(1)


def test_one_device_may_have_another_than_the_rest() -> None:
    cenote.install("pool:initial=0", frameworks=())
    report = cenote.install("managed", frameworks=(), device=1)
    assert report.resource == "managed"
    assert [str(each) for each in report.devices] == [
        "device 0: pool:initial=0 | virtual, made when it is first used",
        "device 1: managed",
    ]
    managed = mr.get_per_device_resource(1)
    cenote.install("managed", frameworks=(), device=1)
    assert mr.get_per_device_resource(1) is managed
    pool = mr.get_per_device_resource(0)
    cenote.install("pool:initial=0", frameworks=(), device=0)
    assert mr.get_per_device_resource(0) is pool
    cenote.install("pool:initial=0", frameworks=())
    assert mr.get_per_device_resource(0) is pool
    assert mr.get_per_device_resource(1).specification == "pool:initial=0 | virtual"


def test_resource_object_holds_for_its_own_device_whatever_is_current() -> None:
    before = mr.get_per_device_resource(0)
    resource = mr.from_spec("statistics | cuda", 1)
    report = cenote.install(resource, frameworks=())
    assert mr.get_per_device_resource(1) is resource and mr.get_per_device_resource(0) is before
    assert [str(each) for each in report.devices] == ["device 0: cuda", "device 1: statistics | cuda"]


def test_what_was_installed_ends_with_a_reset_of_all_and_with_reinitialize() -> None:
    cenote.install("pool:initial=0", frameworks=())
    mr.reset_per_device_resource(0)
    assert mr.get_per_device_resource(0).specification == "pool:initial=0 | virtual"
    mr.reset_all_device_resources()
    assert mr.get_per_device_resource(0).specification == registry.default_specification() == "cuda"
    cenote.install("pool:initial=0", frameworks=())
    cenote.reinitialize(managed_memory=True, devices=1)
    assert [mr.get_per_device_resource(device).specification for device in (0, 1)] == ["cuda", "managed"]


def test_environment_that_is_wrong_does_not_keep_one_device_from_being_given_a_resource(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        import cenote
        report = cenote.install("cuda", frameworks=(), device=1)
        assert [each.specification for each in report.devices] == ["lake", "cuda"], report.devices
        """,
        CENOTE_RESOURCE="lake",
    )


def test_resource_of_another_device_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="device 1 cannot serve device 0"):
        cenote.install(mr.from_spec("cuda", 1), device=0)


def test_report_prints_as_a_table() -> None:
    report = frameworks.InstallReport(
        "pool | cuda",
        (frameworks.InstallRow("torch", True, "tensors"), frameworks.InstallRow("cupy", False, "a <b> & c")),
    )
    assert str(report).splitlines() == ["current resource: pool | cuda", "  ✓ torch  tensors", "  ✗ cupy   a <b> & c"]
    html = report._repr_html_()
    assert "current resource: pool | cuda" in html
    assert "<td>✓</td><td>torch</td>" in html
    assert "a &lt;b&gt; &amp; c" in html
    assert str(frameworks.InstallReport("", ())) == "current resource: none"
    devices = (frameworks.InstallDevice(0, "cuda", True), frameworks.InstallDevice(1, "pool | cuda", False))
    report = frameworks.InstallReport("pool | cuda", (), devices)
    assert str(report).splitlines() == [
        "current resource: pool | cuda",
        "  device 0: cuda",
        "  device 1: pool | cuda, made when it is first used",
    ]
    assert "<br>device 0: cuda<br>device 1: pool | cuda, made when it is first used" in report._repr_html_()
    assert "device" not in str(frameworks.InstallReport("cuda", (), devices[:1]))


def test_without_a_driver_every_row_says_so(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        report = cenote.install()
        assert report.resource == "" and not report
        rows = list(report)
        assert len(rows) == 4 and all(not row.installed and row.detail.startswith("no GPU: ") for row in rows), rows
        assert "CENOTE_CUDA_DRIVER=sim" in str(report) and "current resource: none" in str(report)
        """,
        CENOTE_CUDA_DRIVER="/no/such/libcuda.so.1",
    )


def test_no_framework_is_imported_where_it_could_not_be_used(
    tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]
) -> None:
    for door in DOORS:
        package = tmp_path.joinpath(*door.module.split("."))
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('was imported')\n")
    run_fresh(
        """
        import cenote
        report = cenote.install("pool:initial=0")
        assert report.resource == "pool:initial=0 | virtual"
        assert [row.installed for row in report] == [False] * 4
        assert all("simulated" in row.detail for row in report), str(report)
        """,
        PYTHONPATH=str(tmp_path),
    )


def test_one_framework_may_be_given_as_a_word():
    assert [row.framework for row in cenote.install("cuda", frameworks="torch")] == ["torch"]


@pytest.mark.parametrize("named", [None, 7, b"torch"])
def test_what_names_no_frameworks_is_not_uninstalled(named: Any) -> None:
    with pytest.raises(TypeError, match="frameworks must be names of frameworks"):
        cenote.uninstall(named)


def test_uninstall_goes_through_the_plugins_that_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded:
        @staticmethod
        def uninstall() -> str:
            return "is on its own again"

    class Kept:
        @staticmethod
        def uninstall() -> str:
            raise RuntimeError("it keeps it")

    for name, plugin in (("torch", Loaded), ("cupy", Kept)):
        monkeypatch.setitem(sys.modules, f"cenote.allocators.{name}", plugin)
    for name in ("numba", "cuda"):
        monkeypatch.delitem(sys.modules, f"cenote.allocators.{name}", raising=False)
    report = cenote.uninstall()
    assert not report
    assert [(row.framework, row.installed, row.detail) for row in report] == [
        ("torch", True, "is on its own again"),
        ("cupy", False, "RuntimeError: it keeps it"),
        ("numba", True, "was never on cenote"),
        ("cuda", True, "was never on cenote"),
    ]
