"""What dask-cuda and Dask ask of NVML, answered for two devices of the simulated driver: for tests only."""

from __future__ import annotations

from types import SimpleNamespace

COUNT, TOTAL_BYTES = 2, 1 << 30
NVML_DEVICE_MIG_DISABLE, NVML_DEVICE_MIG_ENABLE = 0, 1


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NotFound(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_DriverNotLoaded(NVMLError):
    pass


class NVMLError_Unknown(NVMLError):
    pass


def nvmlInit() -> None:
    pass


def nvmlSystemGetDriverVersion() -> str:
    return "580.0"


def nvmlDeviceGetCount() -> int:
    return COUNT


def nvmlDeviceGetHandleByIndex(index: int | str) -> int:
    if not 0 <= int(index) < COUNT:
        raise NVMLError(f"no device {index}")
    return int(index)


def nvmlDeviceGetIndex(handle: int) -> int:
    return handle


def nvmlDeviceGetUUID(handle: int) -> str:
    return f"GPU-{handle:08}"


def nvmlDeviceGetName(handle: int) -> str:
    return "simulated"


def nvmlDeviceGetMigMode(handle: int) -> tuple[int, int]:
    raise NVMLError_NotSupported


def nvmlDeviceGetCpuAffinity(handle: int, words: int) -> list[int]:
    return [(1 << 64) - 1] * words


def nvmlDeviceGetComputeRunningProcesses_v2(handle: int) -> list[object]:
    return []


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:
    return SimpleNamespace(total=TOTAL_BYTES, used=TOTAL_BYTES // 2, free=TOTAL_BYTES // 2)


def nvmlDeviceGetUtilizationRates(handle: int) -> SimpleNamespace:
    return SimpleNamespace(gpu=0)
