"""One process a device, started by torchrun and as by Slurm, with PyTorch's gloo: on the simulated device."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_with_torchrun.py"
DEVICES = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=8GiB", "OMP_NUM_THREADS": "1"}


def torchrun(program: Path, *options: str) -> str:
    pytest.importorskip("torch")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *options,
            str(program),
        ],
        env={**os.environ, **DEVICES},
        cwd=program.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_each_rank_has_its_device_and_its_pool() -> None:
    lines = torchrun(EXAMPLE).splitlines()
    made = "statistics | pool:max=4GiB | virtual"
    assert lines == [f"rank {rank} on device {rank}, {made}: {{'cenote': 3000000}}" for rank in (0, 1)]


def test_killed_ranks_come_back_with_their_resource(tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, signal
            import cenote
            cenote.install("pool:max=1GiB", frameworks=(), device="local")
            buffer = cenote.DeviceBuffer(size=1000)
            if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            with open(f"rank{os.environ['RANK']}.txt", "a") as file:
                print(buffer.device, buffer.mr.specification, os.environ["TORCHELASTIC_RESTART_COUNT"], file=file)
            """
        )
    )
    torchrun(program, "--max-restarts", "1")
    for rank in (0, 1):
        written = (tmp_path / f"rank{rank}.txt").read_text().splitlines()
        assert written[-1] == f"{rank} pool:max=1GiB | virtual 1"


def test_processes_of_slurm_have_their_devices(tmp_path: Path) -> None:
    """As ``srun --ntasks-per-node 2`` starts them, with what Slurm sets and torchrun would."""
    pytest.importorskip("torch")
    program = tmp_path / "task.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os
            import cenote
            cenote.install("pool:max=1GiB", frameworks=(), device="local")
            import torch.distributed as dist
            rank = int(os.environ["SLURM_PROCID"])
            dist.init_process_group("gloo", init_method="file://{tmp_path}/meeting", rank=rank, world_size=2)
            buffers = [None, None]
            dist.all_gather_object(buffers, cenote.DeviceBuffer.to_device(bytes([rank]) * 1000))
            assert [each.tobytes() for each in buffers] == [bytes(1000), bytes([1]) * 1000]
            assert [each.device for each in buffers] == [rank, rank]
            dist.destroy_process_group()
            """
        )
    )
    tasks = [
        subprocess.Popen(
            [sys.executable, str(program)],
            env={**os.environ, **DEVICES, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for task in tasks:
        _, said = task.communicate(timeout=120)
        assert task.returncode == 0, said
