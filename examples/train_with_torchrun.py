"""One process a GPU: each takes the device of its rank, one pool for it, and tells the others what it holds.

Run it on two GPUs with ``torchrun --nproc-per-node 2 train_with_torchrun.py``, or without one with
``CENOTE_CUDA_DRIVER=sim CENOTE_SIM=devices=2 torchrun --nproc-per-node 2 train_with_torchrun.py``: PyTorch's tensors
are on the host then. Started by ``srun`` or ``mpirun`` it takes their ranks; by itself, ``python
train_with_torchrun.py``, it is one process.
"""

import os

import cenote

os.environ.setdefault("LOCAL_RANK", "0")
report = cenote.install("statistics | pool:max=4GiB", device="local")  # before PyTorch uses a device

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

has_gpu = torch.cuda.is_available() and not cenote.driver.is_simulated()
if "RANK" in os.environ:
    dist.init_process_group("nccl" if has_gpu else "gloo")
else:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
rank, ranks = dist.get_rank(), dist.get_world_size()

# The model and its gradients, on this rank's device where there is one.
device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_gpu else torch.device("cpu")
gradient = torch.full((1000,), float(rank + 1), device=device)
dist.all_reduce(gradient)
assert gradient[0].item() == ranks * (ranks + 1) / 2

# What goes between processes as an object is copied over the host, buffers too: each lands in its receiver's pool.
buffer = cenote.DeviceBuffer.to_device(bytes([rank]) * 1_000_000)
buffers: list = [None] * ranks
dist.all_gather_object(buffers, buffer)
assert [each.tobytes()[0] for each in buffers] == list(range(ranks))

mine = {name: usage.bytes for name, usage in cenote.usage().items()}
everyone: list = [None] * ranks
dist.all_gather_object(everyone, (report.resource, cenote.driver.current_device(), mine))
if rank == 0:
    for number, (resource, on, held) in enumerate(everyone):
        print(f"rank {number} on device {on}, {resource}: {held}")
dist.barrier()
dist.destroy_process_group()
