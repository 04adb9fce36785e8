"""torch_memory_saver's interface and vLLM's sleep mode on regions and pauses, without the two and without PyTorch."""

from __future__ import annotations

import abc
import importlib
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cenote
from cenote import mr, pausing, sim
from cenote.compat.torch_memory_saver import TorchMemorySaver, configure_subprocess

MIB = 1 << 20


def filled(content: bytes = bytes(range(256)) * 4096) -> tuple[cenote.DeviceBuffer, bytes]:
    return cenote.DeviceBuffer.to_device(content), content


def test_a_tag_is_paused_with_or_without_a_backup() -> None:
    saver = TorchMemorySaver()
    with saver.region("weights", enable_cpu_backup=True):
        weights, content = filled()
    with saver.region("kv_cache"):
        cache, _ = filled()
    address = cache.ptr
    saver.pause("kv_cache")
    assert weights.tobytes() == content
    with pytest.raises(RuntimeError, match="kv_cache is paused already"):
        saver.pause("kv_cache")
    saver.pause()
    with pytest.raises(RuntimeError, match="everything is paused already"):
        saver.pause()
    with pytest.raises(RuntimeError, match="is paused"), saver.region("kv_cache"):
        filled()
    saver.resume("weights")
    with pytest.raises(RuntimeError, match="weights is not paused"):
        saver.resume("weights")
    saver.resume()
    assert (weights.tobytes(), cache.ptr) == (content, address)
    saver.pause("nobody's")
    saver.resume("nobody's")


def test_a_tag_is_kept_on_disk(tmp_path: Path) -> None:
    saver = TorchMemorySaver()
    with pytest.raises(ValueError, match="needs a folder"), saver.region("weights", enable_disk_backup=True):
        pass
    saver.set_disk_backup_dir(tmp_path / "spilled")
    with saver.region("weights", enable_disk_backup=True):
        weights, content = filled()
    with saver.region("weights", enable_cpu_backup=True, cpu_backup_backend="mmap"):
        others, _ = filled()
    saver.pause("weights")
    assert (
        sum(cenote.region(name).nbytes for name in pausing.regions() if name.startswith("torch_memory_saver weights"))
        == 0
    )
    (tmp_path / "spilled").rmdir()  # the file has no name
    saver.resume()
    assert weights.tobytes() == others.tobytes() == content
    for wrong in (
        {"enable_cpu_backup": True, "enable_disk_backup": True},
        {"cpu_backup_backend": "pinned"},
        {"enable_cpu_backup": True, "cpu_backup_backend": "paper"},
    ):
        with pytest.raises(ValueError, match=r"enable_|cpu_backup_backend"), saver.region("weights", **wrong):  # type: ignore[arg-type]
            pass


class Tensor:
    """What `TorchMemorySaver.get_cpu_backup` asks a tensor of PyTorch."""

    def __init__(self, buffer: cenote.DeviceBuffer | None, *, is_cuda: bool = True, is_contiguous: bool = True) -> None:
        self.is_cuda, self.is_contiguous = is_cuda, lambda: is_contiguous
        self.nbytes = buffer.nbytes if buffer else 0
        self.dtype, self.shape = "its type", "its shape"
        self.data_ptr = lambda: buffer.ptr if buffer else 0


class HostTensor:
    """What it makes of PyTorch's names."""

    def __init__(self, nbytes: int, dtype: str, device: str) -> None:
        assert (dtype, device) == ("bytes", "cpu")
        self.contents = bytearray(nbytes)
        self.viewed: list[object] = []

    def numpy(self) -> bytearray:
        return self.contents

    def view(self, as_what: object) -> HostTensor:
        self.viewed.append(as_what)
        return self


def test_a_backup_is_read_while_its_tensor_is_paused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = ModuleType("torch")
    torch.empty, torch.uint8 = HostTensor, "bytes"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    saver = TorchMemorySaver()
    saver.set_disk_backup_dir(tmp_path)
    with saver.region("weights", enable_cpu_backup=True):
        weights, content = filled(random.randbytes(10_000))
    with saver.region("spilled", enable_disk_backup=True):
        spilled, other_content = filled(random.randbytes(10_000))
    with saver.region("kv_cache"):
        cache, _ = filled()
    outside, _ = filled()
    assert saver.get_cpu_backup(Tensor(weights)) is None
    saver.pause()
    for buffer, expected in ((weights, content), (spilled, other_content)):
        backup = saver.get_cpu_backup(Tensor(buffer), zero_copy=True)
        assert (backup.contents, backup.viewed) == (expected, ["its type", "its shape"])
    assert saver.get_cpu_backup(Tensor(cache)) is None
    assert saver.get_cpu_backup(Tensor(outside)) is None
    saver.resume()
    assert saver.get_cpu_backup(Tensor(weights)) is None
    assert (weights.tobytes(), spilled.tobytes()) == (content, other_content)
    for wrong in (Tensor(None, is_cuda=False), Tensor(None, is_contiguous=False)):
        with pytest.raises(ValueError, match="contiguous tensor on a device"):
            saver.get_cpu_backup(wrong)


def test_a_tag_whose_region_could_not_be_made_has_nothing_to_pause() -> None:
    saver = TorchMemorySaver()
    with saver.region("weights", enable_cpu_backup=True):
        weights, content = filled()
    with (
        sim.failing("cuMemAddressReserve", 1, "CUDA_ERROR_UNKNOWN"),
        pytest.raises(cenote.CudaError),
        saver.region("never made"),
    ):
        pass
    saver.pause()
    saver.pause("never made")
    saver.resume("never made")
    saver.resume()
    assert weights.tobytes() == content


def test_disabling_is_for_the_inside_of_a_region() -> None:
    saver = TorchMemorySaver()
    outer = mr.get_current_device_resource()
    with pytest.raises(RuntimeError, match="inside of a region"), saver.disable():
        pass
    with saver.region(), saver.region("another"):
        assert mr.get_current_device_resource() is not outer
        with saver.disable():
            assert mr.get_current_device_resource() is outer


def test_options_of_the_original_are_taken() -> None:
    saver = TorchMemorySaver()
    saver.hook_mode = "torch"
    saver.memory_margin_bytes = 100
    assert (saver.enabled, saver.hook_mode, saver.memory_margin_bytes) == (True, "torch", 100)
    saver.retain_cpu_backup = True
    assert saver.retain_cpu_backup
    with configure_subprocess():
        pass
    with pytest.raises(ValueError, match="hook_mode must be"):
        saver.hook_mode = "another"
    with pytest.raises(TypeError, match="tag must be a str"), saver.region(7):  # type: ignore[arg-type]
        pass


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, over a class that has the abstract methods which vLLM publishes."""

    class SleepModeBackend(abc.ABC):
        @abc.abstractmethod
        def suspend(self, level: int = 1) -> None: ...

        @abc.abstractmethod
        def resume(self, tags: list[str] | None = None) -> None: ...

    if importlib.util.find_spec("vllm") is None:
        package = "vllm.device_allocator.sleep_mode_backend"
        for depth in range(1, 4):
            monkeypatch.setitem(sys.modules, ".".join(package.split(".")[:depth]), ModuleType(package))
        monkeypatch.setattr(sys.modules[package], "SleepModeBackend", SleepModeBackend, raising=False)
    monkeypatch.delitem(sys.modules, "cenote.compat.vllm", raising=False)
    return importlib.import_module("cenote.compat.vllm")


def test_vllm_sleeps_and_wakes_by_tags_and_levels(vllm: ModuleType) -> None:
    backend = vllm.CenoteBackend()
    assert backend.state() == "RUNNING"
    with vllm.memory_pool_context("weights"):
        weights, content = filled()
    with vllm.memory_pool_context("kv_cache"):
        cache, _ = filled()
    with vllm.memory_pool_context("runtime"):
        state, _ = filled()
    with vllm.memory_pool_context("workspace"):
        scratch, _ = filled()
    backend.suspend(level=1)
    assert backend.state() == "SUSPENDED"
    with pytest.raises(RuntimeError, match="suspended already"):
        backend.suspend()
    backend.resume(["weights"])
    assert (weights.tobytes(), state.tobytes(), backend.state()) == (content, content, "SUSPENDED")
    assert [name for name, region in pausing.regions().items() if region.is_paused] == ["vllm kv_cache"]
    backend.resume()
    assert backend.state() == "RUNNING"
    backend.discard(("kv_cache",))
    assert [name for name, region in pausing.regions().items() if region.is_paused] == ["vllm kv_cache"]
    backend.resume(None)
    backend.suspend(level=2)
    assert backend.state() == "SUSPENDED"
    backend.resume()
    assert state.tobytes() == content
    assert cache.size == weights.size == scratch.size
    assert backend.is_supported() and backend.preserves_communicators() and not backend.supports_durable_storage()


def test_a_tag_that_others_know_leaves_all_tags_of_vllm_as_they_were(vllm: ModuleType) -> None:
    backend = vllm.CenoteBackend()
    with vllm.memory_pool_context("kv_cache"):
        cache, content = filled()
    with vllm.memory_pool_context("weights"):
        weights, _ = filled()
    with vllm.memory_pool_context("mapped by others"):
        lent, _ = filled()
    pool = cenote.region("vllm mapped by others").pools[0]
    assert isinstance(pool, mr.PoolMemoryResource)
    pool.pin(lent.ptr)
    for give_back in (lambda: backend.suspend(2), lambda: backend.discard(("kv_cache", "mapped by others"))):
        with pytest.raises(RuntimeError, match="others know its memory"):
            give_back()
        assert backend.state() == "RUNNING"
        assert cache.tobytes() == weights.tobytes() == lent.tobytes() == content
    pool.unpin(lent.ptr)


@pytest.mark.parametrize("level", [1, 2])
def test_a_tag_of_vllm_that_fails_leaves_all_as_they_were_without_new_memory(vllm: ModuleType, level: int) -> None:
    backend = vllm.CenoteBackend()
    with vllm.memory_pool_context("kv_cache"):
        cache, content = filled()
    with vllm.memory_pool_context("weights"):
        weights, _ = filled()
    with (
        sim.failing("cuMemUnmap", 2, "CUDA_ERROR_UNKNOWN"),
        sim.failing("cuMemCreate", 1, "CUDA_ERROR_UNKNOWN", times=None),
        pytest.raises(cenote.CudaError),
    ):
        backend.suspend(level)
    assert backend.state() == "RUNNING"
    assert cache.tobytes() == weights.tobytes() == content


def test_a_tag_of_vllm_that_cannot_be_put_back_is_named_and_loses_nothing(vllm: ModuleType) -> None:
    backend = vllm.CenoteBackend()
    with vllm.memory_pool_context("kv_cache"):
        cache, content = filled()
    with vllm.memory_pool_context("weights"):
        weights, _ = filled()
    with (
        sim.failing("cuMemUnmap", 2, "CUDA_ERROR_UNKNOWN"),
        sim.failing("cuMemMap", 1, "CUDA_ERROR_UNKNOWN", times=None),
        pytest.raises(cenote.CudaError) as raised,
    ):
        backend.suspend(2)
    (note,) = raised.value.__notes__
    assert "stays paused, and keeps its memory until it is resumed" in note
    backend.resume()
    assert backend.state() == "RUNNING"
    assert cache.tobytes() == weights.tobytes() == content
