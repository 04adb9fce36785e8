"""Records what a program of PyTorch allocates on a GPU as a trace.

    python tests/bench/record_trace.py OUTDIR [moe] [diffusion] [speech]

Each workload runs in a process of its own, through ``logging | pool | virtual``, and leaves ``NAME.csv.gz`` and a line
with what it was. They were chosen to differ from one another and from the other traces: sizes that follow from data
(tokens routed to experts), large activations of changing shape, and many small tensors of a recurrent loop.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS = {"moe": 24, "diffusion": 40, "speech": 40}


def _moe(steps: int) -> None:
    """A language model with eight experts: each expert gets as many tokens as the router sends."""
    import torch
    from torch import nn

    class Experts(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.router = nn.Linear(width, 8)
            self.experts = nn.ModuleList(
                nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(8)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight, chosen = self.router(x).softmax(-1).topk(2, dim=-1)
            out = torch.zeros_like(x)
            for index, expert in enumerate(self.experts):
                token, place = (chosen == index).nonzero(as_tuple=True)
                out.index_add_(0, token, expert(x[token]) * weight[token, place, None])
            return out

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(width, 8, batch_first=True)
            self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
            self.experts = Experts(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.before(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.experts(self.after(x).flatten(0, 1)).view_as(x)

    width = 512
    model = nn.Sequential(nn.Embedding(32000, width), *(Block(width) for _ in range(6)), nn.Linear(width, 32000)).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(steps):
        batch, length = int(torch.randint(2, 17, ())), int(torch.randint(64, 769, ()))
        tokens = torch.randint(32000, (batch, length), device="cuda")
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _diffusion(steps: int) -> None:
    """A U-Net that is trained on pictures of changing shape, an average of its weights, and samples from that."""
    import torch
    from torch import nn

    class Stage(nn.Module):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(into, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU(), nn.Conv2d(out, out, 3, padding=1)
            )
            self.skip = nn.Conv2d(into, out, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) + self.skip(x)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [64, 128, 256, 512]
            self.start = nn.Conv2d(3, 64, 3, padding=1)
            self.down = nn.ModuleList(Stage(a, b) for a, b in zip([64, *widths], widths, strict=False))
            self.up = nn.ModuleList(Stage(a + b, b) for a, b in zip([512, 512, 256, 128], widths[::-1], strict=True))
            self.end = nn.Conv2d(64, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x, kept = self.start(x), []
            for stage in self.down:
                x = stage(x)
                kept.append(x)
                x = nn.functional.avg_pool2d(x, 2)
            for stage in self.up:
                x = nn.functional.interpolate(x, size=kept[-1].shape[-2:])
                x = stage(torch.cat([x, kept.pop()], dim=1))
            return self.end(x)

    model, averaged = UNet().cuda(), UNet().cuda()
    averaged.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for step in range(steps):
        batch, height, width = (int(torch.randint(low, high, ())) for low, high in ((2, 9), (4, 13), (4, 13)))
        clean = torch.rand(batch, 3, 32 * height, 32 * width, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.mse_loss(model(clean + torch.randn_like(clean)), clean)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 0.01)
            if step % 8 == 7:
                sample = torch.randn(2, 3, 320, 320, device="cuda")
                for _ in range(10):
                    sample = sample - 0.1 * averaged(sample)


def _speech(steps: int) -> None:
    """A recognizer of speech: utterances of very different length, a recurrent net over frames, and CTC."""
    import torch
    from torch import nn

    front = nn.Sequential(nn.Conv1d(80, 512, 5, stride=2, padding=2), nn.ReLU()).cuda()
    recurrent = nn.LSTM(512, 512, num_layers=4, bidirectional=True, batch_first=True).cuda()
    decoder = nn.LSTMCell(1024, 512).cuda()
    head = nn.Linear(1024, 256).cuda()
    parameters = [p for part in (front, recurrent, decoder, head) for p in part.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)
    for _ in range(steps):
        batch = int(torch.randint(4, 33, ()))
        frames = int(torch.exp(torch.empty(()).uniform_(5.0, 7.6)))
        encoded, _ = recurrent(front(torch.randn(batch, 80, frames, device="cuda")).transpose(1, 2))
        loss = head(encoded).float().log_softmax(-1).mean()
        state = None
        for at in range(0, encoded.shape[1], max(1, encoded.shape[1] // 50)):
            state = decoder(encoded[:, at], state)
            loss = loss + state[0].square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


WORKLOADS: dict[str, Callable[[int], None]] = {"moe": _moe, "diffusion": _diffusion, "speech": _speech}


def _record(name: str, out: Path) -> None:
    import torch

    import cenote

    cenote.install(f"logging:file={out / name}.csv | pool | virtual", frameworks="torch")
    torch.manual_seed(17)
    begin = time.perf_counter()
    WORKLOADS[name](STEPS[name])
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    print(f"{name}: {seconds:.1f} s, PyTorch {torch.__version__}, {torch.cuda.get_device_name()}", end=", ", flush=True)


def main(arguments: list[str]) -> int:
    """Records the workloads that are named, or all."""
    if not arguments or set(arguments[1:]) - set(WORKLOADS):
        print(__doc__, file=sys.stderr)
        return 2
    out = Path(arguments[0]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments[1:] or WORKLOADS:
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import record_trace as r; "
        subprocess.run([sys.executable, "-c", code + f"r._record({name!r}, r.Path({str(out)!r}))"], check=True)
        (log,) = out.glob(f"{name}*.csv")
        print(log.read_bytes().count(b"\n") - 1, "events")
        (out / f"{name}.csv.gz").write_bytes(gzip.compress(log.read_bytes(), 9, mtime=0))
        log.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
