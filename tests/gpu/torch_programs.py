"""Real programs on PyTorch's own allocator, plain and with expandable segments, and on cenote.

    python torch_programs.py [--output RESULT.json] [--rounds 3] [PROGRAM …]

Each program runs in one process, in turns: its model is made anew for each allocator. The losses, or what is
generated, have to be the same bit for bit. Printed are the median times of a step beside PyTorch's own, how far apart
the medians of PyTorch's own rounds lie, and the peak of reserved bytes. Needs transformers, peft and torchvision.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ALLOCATORS = ("native", "expandable", "cenote")
WARM_STEPS = 3
DEVICE = os.environ.get("TORCH_PROGRAMS_DEVICE", "cuda")  # cpu: to try the programs themselves

Step = Callable[[int], Any]
"""Takes the number of the step; gives a loss, or anything that has to be the same."""

PROGRAMS: dict[str, tuple[Callable[[], Callable[[], Step]], int]] = {}


def program(steps: int) -> Callable[[Callable[[], Callable[[], Step]]], Callable[[], Callable[[], Step]]]:
    """Register a function that prepares once, and gives a function that begins anew."""

    def register(function: Callable[[], Callable[[], Step]]) -> Callable[[], Callable[[], Step]]:
        PROGRAMS[function.__name__] = (function, steps)
        return function

    return register


_on_device: list[Any] = []


def on_device(model: Any, state: Any) -> None:
    """Put the model's first state into memory of the allocator that is chosen now."""
    model.load_state_dict(state)
    model.to(DEVICE)
    _on_device.append(model)


def release_models() -> None:
    """Leave nothing of the models on the device."""
    for model in _on_device:
        model.zero_grad(set_to_none=True)
        model.cpu()
    _on_device.clear()


def copied(state: Any) -> Any:
    return {name: value.clone() for name, value in state.items()}


def gpt2(layers: int = 12) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=layers, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))


def training_step(model: Any, optimizer: Any, loss: Callable[[int], Any]) -> Step:
    def step(number: int) -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(number)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def tokens(number: int, sizes: tuple[int, ...], lengths: tuple[int, ...]) -> Any:
    """Draw a batch whose shape changes from step to step."""
    import torch

    generator = torch.Generator().manual_seed(number)
    shape = (sizes[number % len(sizes)], lengths[number % len(lengths)])
    return torch.randint(0, 50257, shape, generator=generator).to(DEVICE)


@program(steps=16)
def gpt2_training() -> Callable[[], Step]:
    import torch

    model = gpt2()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def loss(number: int) -> Any:
            batch = tokens(number, (4, 8, 6), (512, 384, 640, 256))
            with torch.autocast(DEVICE, torch.bfloat16):
                return model(batch, labels=batch).loss

        return training_step(model, optimizer, loss)

    return begin


@program(steps=16)
def resnet_training_with_evaluation() -> Callable[[], Step]:
    import torch
    from torchvision.models import resnet50

    model = resnet50()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def loss(number: int) -> Any:
            generator = torch.Generator().manual_seed(number)
            size = (32, 48)[number % 2], 3, *((224, 192, 256)[number % 3],) * 2
            images = torch.randn(size, generator=generator).to(DEVICE)
            return torch.nn.functional.cross_entropy(model(images), torch.zeros(size[0], dtype=torch.long).to(DEVICE))

        train = training_step(model, optimizer, loss)

        def step(number: int) -> Any:
            model.train()
            value = train(number)
            if number % 4 == 3:
                model.eval()
                with torch.no_grad():
                    value = value + loss(number + 1000)
            return value

        return step

    return begin


@program(steps=4)
def generation_with_a_growing_cache() -> Callable[[], Step]:
    import torch

    model = gpt2().eval()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)

        def step(number: int) -> Any:
            batch = tokens(number, (8, 4, 16), (64, 128))
            with torch.no_grad():
                made = model.generate(
                    batch,
                    attention_mask=torch.ones_like(batch),
                    max_new_tokens=32,
                    do_sample=False,
                    pad_token_id=50256,
                )
            return made.sum()

        return step

    return begin


@program(steps=40)
def graphed_inference_over_eight_batch_sizes() -> Callable[[], Step]:
    import torch

    layer = torch.nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).eval()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        graphs = {}
        with torch.no_grad():
            for size in (64, 48, 32, 24, 16, 8, 4, 1):
                x = torch.zeros(size, 128, 768, device=DEVICE)
                model(x)
                if DEVICE == "cpu":
                    graphs[size] = (None, x, x)
                    continue
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    y = model(x)
                graphs[size] = (graph, x, y)

        def step(number: int) -> Any:
            graph, x, y = list(graphs.values())[number % len(graphs)]
            x.fill_(number / 100)
            if graph is not None:
                graph.replay()
            return y.sum()

        return step

    return begin


@program(steps=16)
def lora_fine_tuning() -> Callable[[], Step]:
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(gpt2(), LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0))
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)

        def loss(number: int) -> Any:
            batch = tokens(number, (8, 4), (384, 512, 256))
            with torch.autocast(DEVICE, torch.bfloat16):
                return model(input_ids=batch, labels=batch).loss

        return training_step(model, optimizer, loss)

    return begin


@program(steps=24)
def compiled_training() -> Callable[[], Step]:
    import torch

    layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    compiled = torch.compile(model)
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def loss(number: int) -> Any:
            generator = torch.Generator().manual_seed(number)
            x = torch.randn((16, 32)[number % 2], 256, 512, generator=generator).to(DEVICE)
            return (compiled(x) - x).square().mean()

        return training_step(model, optimizer, loss)

    return begin


def choose(allocator: str) -> None:
    """Take an allocator for what comes, with nothing left of the one before."""
    import torch

    import cenote

    gc.collect()
    if DEVICE == "cpu":
        return
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    gc.collect()
    torch.cuda.empty_cache()
    if allocator == "cenote":
        report = cenote.install("pool", frameworks="torch", torch_mode="full")
        assert report, report
    else:
        cenote.uninstall("torch")
        torch.cuda.memory._set_allocator_settings(f"expandable_segments:{allocator == 'expandable'}")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def run_turn(begin: Callable[[], Step], allocator: str, steps: int) -> dict[str, Any]:
    """Run the program from its beginning on."""
    import torch

    choose(allocator)
    torch.manual_seed(0)
    step = begin()
    times, seen = [], []
    for number in range(WARM_STEPS + steps):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        value = step(number)
        seen.append(float(value).hex())
        if number >= WARM_STEPS:
            times.append(time.perf_counter() - began)
    reserved = torch.cuda.max_memory_reserved() if DEVICE == "cuda" else 0
    release_models()
    return {"allocator": allocator, "seen": seen, "times": times, "reserved": reserved}


def run_program(name: str, rounds: int, lock: str) -> dict[str, Any]:
    """Run a program with each allocator, in turns; alone on the device while it is timed."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    prepare, steps = PROGRAMS[name]
    torch.manual_seed(0)
    begin = prepare()
    if name.startswith("compiled"):
        run_turn(begin, "native", 2)  # compiles, beside others
    with open(lock, "w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        run_turn(begin, "native", 1)
        turns = []
        for number in range(rounds):
            order = ALLOCATORS[number % 3 :] + ALLOCATORS[: number % 3]
            turns += [run_turn(begin, allocator, steps) for allocator in order]
    result: dict[str, Any] = {"program": name, "same": len({tuple(turn["seen"]) for turn in turns}) == 1}
    for allocator in ALLOCATORS:
        own = [turn for turn in turns if turn["allocator"] == allocator]
        medians = [statistics.median(turn["times"]) for turn in own]
        result[allocator] = {
            "step_ms": 1e3 * statistics.median([each for turn in own for each in turn["times"]]),
            "medians_ms": [1e3 * each for each in medians],
            "reserved": max(turn["reserved"] for turn in own),
        }
    native = result["native"]["medians_ms"]
    result["ratio"] = result["cenote"]["step_ms"] / result["native"]["step_ms"]
    result["spread"] = max(native) / min(native) - 1
    return result


def line_of(result: dict[str, Any]) -> str:
    reserved = "  ".join(f"{result[allocator]['reserved'] / (1 << 20):8.0f}" for allocator in ALLOCATORS)
    return (
        f"{result['program']:42} {'same' if result['same'] else 'DIFFERENT':9} {result['native']['step_ms']:8.2f} ms  "
        f"{result['ratio']:6.3f} ± {result['spread']:.3f}  MiB: {reserved}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("LOCK", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("programs", nargs="*", default=list(PROGRAMS))
    given = parser.parse_args()
    if given.one is not None:
        Path(given.one[1]).write_text(json.dumps(run_program(given.programs[0], given.rounds, given.one[0])))
        return 0
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}
    results, failed = [], 0
    print("program, losses, step; cenote beside PyTorch's own ± its spread; peak reserved: ", *ALLOCATORS, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        children = {}
        for name in given.programs:
            file = Path(folder, f"{name}.json")
            command = [
                sys.executable,
                __file__,
                "--rounds",
                str(given.rounds),
                "--one",
                f"{folder}/lock",
                str(file),
                name,
            ]
            log = Path(folder, f"{name}.txt")
            with log.open("w") as noise:
                child = subprocess.Popen(command, env=environment, stdout=noise, stderr=noise)
            children[name] = (child, file, log)
        while children:
            for name, (child, file, log) in list(children.items()):
                if child.poll() is None:
                    continue
                del children[name]
                if child.returncode != 0:
                    failed += 1
                    print(f"{name} failed: {log.read_text()[-600:]}", flush=True)
                    continue
                results.append(json.loads(file.read_text()))
                print(line_of(results[-1]), flush=True)
                failed += not results[-1]["same"]
                if given.output is not None:
                    given.output.write_text(json.dumps(results, indent=1))
            time.sleep(0.05)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
