"""Specifications: one line of text for a stack of resources."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cenote
from cenote import mr, sim

MIB = 1024**2
KINDS = (
    *("cuda", "managed", "pinned", "async", "async_managed", "virtual", "system", "sam_headroom"),
    *("pool", "arena", "fixed_size", "binning"),
    *("statistics", "logging", "tracking", "limiting", "prefetch", "aligned", "guard", "thread_safe"),
)

WRONG = {
    "lake": ["'lake'", *KINDS],
    "": ["missing", *KINDS],
    "pool |": ["missing", *KINDS],
    "statistics | | cuda": ["missing", *KINDS],
    "pool:lake=1": ["'lake'", "'pool'", "initial", "max"],
    "cuda:size=1": ["'size'", "'cuda'", "it has none"],
    "async:max=1": ["'max'", "'async'", "initial", "release_threshold", "ipc", "fabric"],
    "pool:initial": ["'initial'", "needs a value"],
    "pool:initial=1MiB,initial=2MiB": ["'initial'", "twice"],
    "pool:initial=lots": ["'lots'", "'initial'", "512MiB"],
    "pool:initial=101%": ["'101%'"],
    "pool:initial=-1": ["'-1'"],
    "async:ipc=perhaps": ["'perhaps'", "'ipc'", "true", "false"],
    "cuda | pool": ["'cuda'", "nothing can stand under it"],
    "pool | async | cuda": ["'async'", "nothing can stand under it"],
    "logging": ["CENOTE_LOG_FILE"],
    "binning:min=3": ["'min'", "'max'", "neither"],
    "binning:min=3,max=many": ["'many'", "'max'"],
    "sam_headroom": ["'headroom'", "1GiB"],
}

SAME = (
    "cuda",
    "managed",
    "pinned",
    "async",
    "async:initial=4MiB,release_threshold=1MiB",
    "async_managed",
    "system",
    "sam_headroom:headroom=1GiB",
    "arena:size=4MiB | cuda",
    "fixed_size:block_size=64KiB,preallocate=4 | pinned",
    "binning:min=8,max=12 | cuda",
    "binning | managed",
    "pool:initial=0 | cuda",
    "pool:initial=1MiB,max=8MiB | managed",
    "statistics | pool:initial=3KiB,max=4352 | statistics | pinned",
)


@pytest.mark.parametrize(("text", "words"), WRONG.items())
def test_error_names_the_wrong_word_and_the_known_ones(text: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        mr.from_spec(text)
    for word in words:
        assert word in str(caught.value)


def made_by_a_program() -> Iterator[tuple[mr.DeviceMemoryResource, str]]:
    cuda = mr.CudaMemoryResource()
    yield mr.CallbackMemoryResource(lambda nbytes, stream: 0, lambda *_: None), "calls functions of the program"
    yield mr.FailureCallbackResourceAdaptor(cuda, lambda nbytes: False), "calls a function of the program"
    yield mr.CudaAsyncViewMemoryResource(mr.CudaAsyncMemoryResource().pool_handle()), "a pool that the program has made"
    for exponents in ((), (18, 20)):
        binning = mr.BinningMemoryResource(cuda, *exponents)
        binning.add_bin(16 << 20)
        yield binning, "bins that a program has added"


def test_specification_of_what_only_a_program_makes_says_so_when_it_is_read() -> None:
    for resource, why in made_by_a_program():
        with pytest.raises(ValueError, match=why):
            mr.from_spec(resource.specification)


def test_wrong_specification_takes_nothing_from_the_device() -> None:
    before = sim.live()
    for text in ("cuda | pool:initial=1GiB", "lake | pool:initial=1GiB", "pool:initial=1GiB,depth=3"):
        with pytest.raises(ValueError):
            mr.from_spec(text)
    assert sim.live() == before


@pytest.mark.parametrize("text", SAME)
def test_specification_makes_a_resource_of_that_specification(text: str) -> None:
    assert mr.from_spec(text).specification == text


def test_logging_is_spelt_with_its_file(tmp_path: Path) -> None:
    text = f"logging:file={tmp_path}/log.csv | cuda"
    assert mr.from_spec(text).specification == text


@given(st.lists(st.sampled_from(["statistics", "pool:initial=0", "pool:initial=0,max=64MiB"]), max_size=5))
def test_any_stack_is_read_as_it_is_written(stack: list[str]) -> None:
    text = " | ".join([*stack, "cuda"])
    resource = mr.from_spec(text)
    assert resource.specification == text
    assert mr.from_spec(resource.specification).specification == text


@given(st.text(alphabet="acdlopstu|:=,%. 0123456789", max_size=30))
def test_any_text_is_a_resource_or_a_clear_error(text: str) -> None:
    try:
        resource = mr.from_spec(text)
    except ValueError as error:
        assert str(error)
    except (RuntimeError, MemoryError) as error:
        assert "pool" in str(error) or "async" in str(error)
    else:
        assert mr.from_spec(resource.specification).specification == resource.specification


@pytest.mark.parametrize("text", ["pool", "pool:initial=0", "statistics|pool:initial=0", " pool : initial = 0 "])
def test_stack_that_ends_with_a_pool_stands_on_virtual_memory(text: str) -> None:
    assert mr.from_spec(text).specification.endswith(" | virtual")


@pytest.mark.parametrize("text", ["statistics", "arena:size=1MiB", "binning", "guard", "pool:initial=0 | binning"])
def test_any_other_stack_without_a_source_stands_on_cuda(text: str) -> None:
    assert mr.from_spec(text).specification.endswith(" | cuda")


def test_pool_takes_chunks_on_a_device_without_virtual_memory(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        from cenote import mr, sim
        report = cenote.install(frameworks=())
        assert report.resource == mr.from_spec("pool").specification == "pool | cuda"
        for make in (lambda: mr.from_spec("pool | virtual"), lambda: mr.PoolMemoryResource(mr.VirtualMemoryResource())):
            pool = make()
            assert pool.specification == "pool | virtual" and pool.pool_size() == 0
            before = sim.calls("cuMemAlloc")
            pool.deallocate(pool.allocate(1000), 1000)
            assert sim.calls("cuMemAlloc") == before + 1 and sim.calls("cuMemCreate") == 0
        try:
            mr.VirtualMemoryResource(enable_ipc=True)
        except RuntimeError as error:
            assert "no virtual memory" in str(error), error
        else:
            raise AssertionError
        """,
        CENOTE_SIM="memory=1GiB,virtual_memory=0",
    )


def test_percentage_is_of_the_free_memory_of_the_device() -> None:
    free, _ = cenote.driver.memory_info(1)
    pool = mr.from_spec("pool:initial=0,max=25%", 1)
    limit = pool.state().limit
    assert limit == free * 25 // 100 // 256 * 256
    assert mr.from_spec("pool:initial=0,max=0.5%", 1).state().limit == free // 200 // 256 * 256


@pytest.mark.parametrize(
    ("size", "nbytes"), [("4096", 4096), ("1MiB", MIB), ("256KB", 256_000), ("0.5 mib", MIB // 2), ("1GB", 10**9)]
)
def test_sizes_have_decimal_and_binary_units(size: str, nbytes: int) -> None:
    pool = mr.from_spec(f"pool:initial=0,max={size}")
    assert pool.state().limit == nbytes


def test_resource_is_made_on_the_device_that_is_named() -> None:
    resource = mr.from_spec("statistics | pool:initial=1MiB", 1)
    assert isinstance(resource, mr.UpstreamResourceAdaptor)
    assert resource.device == resource.get_upstream().device == 1


@pytest.mark.parametrize("device", [2, 64, 2**31 - 1])
def test_device_that_is_not_there_is_an_index_error(device: int) -> None:
    with pytest.raises(IndexError, match=f"no device {device}.*devices 0 to 1"):
        mr.from_spec("cuda", device)


def test_stack_is_of_the_python_classes() -> None:
    outermost = mr.from_spec("statistics | pool:initial=0 | cuda")
    assert isinstance(outermost, mr.StatisticsResourceAdaptor)
    pool = outermost.get_upstream()
    assert isinstance(pool, mr.PoolMemoryResource)
    assert type(pool.get_upstream()) is mr.CudaMemoryResource


def test_known_specifications_names_each_kind_and_parameter() -> None:
    lines = mr.known_specifications().splitlines()
    assert [line.partition(":")[0] for line in lines] == list(KINDS)
    assert "pool:initial=…,max=…,tight=…,idle=…" in lines


def test_device_of_minus_one_is_no_device() -> None:
    with pytest.raises(IndexError, match="no device -1"):
        mr.from_spec("cuda", -1)


def test_environment_names_the_first_resource_of_each_device(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        import cenote
        for device in (0, 1):
            resource = cenote.mr.get_per_device_resource(device)
            assert resource.specification == "statistics | pool:initial=1MiB | virtual", resource
            assert resource.device == device
        """,
        CENOTE_RESOURCE="statistics | pool:initial=1MiB",
    )


@pytest.mark.parametrize("unset", [None, ""])
def test_without_the_environment_variable_the_resource_is_cuda(
    run_fresh: Callable[..., CompletedProcess[str]], unset: str | None
) -> None:
    run_fresh(
        "import cenote; assert cenote.mr.get_current_device_resource().specification == 'cuda'", CENOTE_RESOURCE=unset
    )


def test_wrong_environment_variable_is_named_and_can_be_mended(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        import os
        import cenote
        for attempt in (cenote.mr.get_current_device_resource, lambda: cenote.DeviceBuffer(size=1)):
            try:
                attempt()
            except ValueError as error:
                assert "CENOTE_RESOURCE" in str(error) and "'lake'" in str(error) and "pool" in str(error), error
            else:
                raise AssertionError
        cenote.mr.from_spec("cuda").allocate(1)
        os.environ["CENOTE_RESOURCE"] = "pool:initial=0"
        assert cenote.mr.get_current_device_resource().specification == "pool:initial=0 | virtual"
        """,
        CENOTE_RESOURCE="lake",
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pool:initial=2MiB,max=1MiB", RuntimeError),
        ("logging:file=no/such/folder/log.csv | cuda", RuntimeError),
        ("limiting:limit= | cuda", ValueError),
        ("statistics|" * 200 + "cuda", ValueError),
    ],
)
def test_every_error_of_the_environment_variable_names_it(
    run_fresh: Callable[..., CompletedProcess[str]], text: str, error: type[Exception]
) -> None:
    run_fresh(
        f"""
        import cenote
        try:
            cenote.mr.get_current_device_resource()
        except {error.__name__} as error:
            assert "CENOTE_RESOURCE" in str(error), error
        else:
            raise AssertionError
        """,
        CENOTE_RESOURCE=text,
    )


def test_adaptors_put_on_again_and_again_come_to_an_end() -> None:
    resource: mr.DeviceMemoryResource = mr.CudaMemoryResource()
    with pytest.raises(ValueError, match=r"at most 128 stand on each other.*again and again"):
        for _ in range(100_000):
            resource = mr.StatisticsResourceAdaptor(resource)
    resource.deallocate(resource.allocate(1000), 1000)
    with pytest.raises(ValueError, match="100001 words"):
        mr.from_spec("statistics|" * 100_000 + "cuda")


@pytest.fixture
def decimal_comma(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a program in a country that writes 12,5 for 12.5."""
    localedef = shutil.which("localedef")
    if localedef is None:
        pytest.skip("there is no localedef")
    made = subprocess.run(
        [localedef, "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")], capture_output=True, text=True
    )
    if not (tmp_path / "de_DE.UTF-8").is_dir():
        pytest.skip(f"there are no sources of locales: {made.stderr}")
    yield {"LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}


@pytest.mark.slow
def test_sizes_are_read_and_written_alike_in_every_locale(
    run_fresh: Callable[..., CompletedProcess[str]], decimal_comma: dict[str, str]
) -> None:
    run_fresh(
        """
        import locale
        locale.setlocale(locale.LC_ALL, "")
        assert locale.localeconv()["decimal_point"] == ","
        import cenote
        pool = cenote.mr.from_spec("pool:initial=12.5%,max=1.5GiB | cuda")
        assert pool.state().held == 1024**3, pool.state()
        assert "max=1536MiB" in pool.specification
        assert cenote.units.parse_bytes("1.5 MiB") == 3 * 2**19
        try:
            pool.allocate(1536 * 1024**2 + 1)
        except MemoryError as error:
            assert "1.50 GiB" in str(error) and "," not in str(error).split("from")[0], error
        else:
            raise AssertionError
        """,
        **decimal_comma,
    )


def test_wrong_environment_variable_is_no_matter_once_a_resource_is_set(
    run_fresh: Callable[..., CompletedProcess[str]],
) -> None:
    run_fresh(
        """
        import cenote
        try:
            cenote.mr.get_current_device_resource()
        except ValueError as error:
            assert "CENOTE_RESOURCE" in str(error), error
        else:
            raise AssertionError
        assert cenote.mr.set_current_device_resource(cenote.mr.CudaMemoryResource()) is None
        assert cenote.mr.get_current_device_resource().specification == "cuda"
        """,
        CENOTE_RESOURCE="lake",
    )
