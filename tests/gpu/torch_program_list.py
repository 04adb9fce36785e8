"""The programs that torch_programs.py runs: how each is prepared, how it begins anew, and what a step of it does.

Needs transformers, peft and torchvision for some. Data are drawn on the device, by the number of the step.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DEVICE = os.environ.get("TORCH_PROGRAMS_DEVICE", "cuda")  # cpu: to try the programs themselves

Step = Callable[[int], Any]
"""Takes the number of the step; gives a loss, or anything that has to be the same."""

Prepare = Callable[[], Callable[[], Step]]
"""Prepares once; gives a function that begins anew."""


@dataclass(frozen=True)
class Program:
    """A program, how many steps it takes to meet each shape, how many are timed, and which package it needs."""

    prepare: Prepare
    warm: int
    steps: int
    needs: str
    only_by_name: bool


PROGRAMS: dict[str, Program] = {}


def program(warm: int, steps: int, needs: str = "torch") -> Callable[[Prepare], Prepare]:
    """Register a program."""

    def register(function: Prepare) -> Prepare:
        PROGRAMS[function.__name__] = Program(function, warm, steps, needs, only_by_name=False)
        return function

    return register


_on_device: list[Any] = []
_at_end: list[Callable[[], object]] = []


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
    while _at_end:
        _at_end.pop()()


def copied(state: Any) -> Any:
    return {name: value.clone() for name, value in state.items()}


def drawn(number: int) -> Any:
    """Give the source of the random numbers of a step."""
    import torch

    return torch.Generator(DEVICE).manual_seed(number)


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

    shape = (sizes[number % len(sizes)], lengths[number % len(lengths)])
    return torch.randint(0, 50257, shape, generator=drawn(number), device=DEVICE)


@program(warm=12, steps=24, needs="transformers")
def gpt2_training() -> Callable[[], Step]:
    import torch

    model = gpt2()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def loss(number: int) -> Any:
            batch = tokens(number, (16, 32, 24), (512, 384, 640, 256))
            with torch.autocast(DEVICE, torch.bfloat16):
                return model(batch, labels=batch).loss

        return training_step(model, optimizer, loss)

    return begin


@program(warm=12, steps=24, needs="torchvision")
def resnet_training_with_evaluation() -> Callable[[], Step]:
    import torch
    from torchvision.models import resnet50

    model = resnet50()
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

        def loss(number: int) -> Any:
            size = (64, 96)[number % 2], 3, *((224, 192, 256)[number % 3],) * 2
            images = torch.randn(size, generator=drawn(number), device=DEVICE)
            wanted = torch.zeros(size[0], dtype=torch.long, device=DEVICE)
            return torch.nn.functional.cross_entropy(model(images), wanted)

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


@program(warm=12, steps=24)
def graph_network_training() -> Callable[[], Step]:
    """Messages along the edges of graphs, each of another size."""
    import torch

    width = 128

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.message = torch.nn.Linear(2 * width, width)
            self.update = torch.nn.Linear(2 * width, width)

        def forward(self, nodes: Any, source: Any, target: Any) -> Any:
            pairs = torch.cat([nodes[source], nodes[target]], dim=1)
            messages = torch.relu(self.message(pairs))
            received = torch.zeros_like(nodes).index_add(0, target, messages)
            return nodes + torch.relu(self.update(torch.cat([nodes, received], dim=1)))

    layers = torch.nn.ModuleList(Layer() for _ in range(4))
    state = copied(layers.state_dict())

    def begin() -> Step:
        on_device(layers, state)
        optimizer = torch.optim.Adam(layers.parameters(), lr=1e-3)

        def loss(number: int) -> Any:
            count = (32_000 + number * 31_676 % 100_000) // (1 if DEVICE == "cuda" else 200)
            source, target = torch.randint(0, count, (2, 6 * count), generator=drawn(number), device=DEVICE)
            nodes = torch.randn(count, width, generator=drawn(number), device=DEVICE)
            for layer in layers:
                nodes = layer(nodes, source, target)
            return nodes.square().mean()

        return training_step(layers, optimizer, loss)

    return begin


@program(warm=6, steps=12, needs="transformers")
def generation_with_a_growing_cache() -> Callable[[], Step]:
    import torch

    model = gpt2(layers=4).eval()
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


@program(warm=8, steps=40)
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


@program(warm=6, steps=24, needs="peft")
def lora_fine_tuning() -> Callable[[], Step]:
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(gpt2(), LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.0))
    state = copied(model.state_dict())

    def begin() -> Step:
        on_device(model, state)
        optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-3)

        def loss(number: int) -> Any:
            batch = tokens(number, (32, 16), (384, 512, 256))
            with torch.autocast(DEVICE, torch.bfloat16):
                return model(input_ids=batch, labels=batch).loss

        return training_step(model, optimizer, loss)

    return begin


def compiled_training(mode: str) -> Prepare:
    """Make the program for a mode of torch.compile. It compiles for up to two minutes before its first step."""
    keeps_graphs = mode in ("reduce-overhead", "max-autotune")
    is_tuned = mode.startswith("max-autotune")  # takes half a minute for each product of matrices, of each shape
    rows = (1024,) if is_tuned else (4096, 8192)

    def prepare() -> Callable[[], Step]:
        import torch

        width = 512 if is_tuned else 1024
        inner = width if is_tuned else 4 * width
        layers = [torch.nn.LayerNorm(width), torch.nn.Linear(width, inner), torch.nn.GELU()]
        layer = torch.nn.Sequential(*layers, *([] if is_tuned else [torch.nn.Linear(inner, width)]))
        state = copied(layer.state_dict())
        compiled = torch.compile(layer, mode=mode, dynamic=False)

        def begin() -> Step:
            on_device(layer, state)
            if keeps_graphs:
                _at_end.append(torch.compiler.reset)
            optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4)

            def loss(number: int) -> Any:
                torch.compiler.cudagraph_mark_step_begin()
                x = torch.randn(rows[number % len(rows)], width, generator=drawn(number), device=DEVICE)
                return (compiled(x) - x).square().mean()

            return training_step(layer, optimizer, loss)

        return begin

    return prepare


for _mode in ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
    PROGRAMS[f"compiled_training_{_mode.replace('-', '_')}"] = Program(
        compiled_training(_mode), warm=8, steps=24, needs="torch", only_by_name=True
    )
