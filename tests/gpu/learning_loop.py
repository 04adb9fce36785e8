"""Reinforcement learning in small: a generator and a trainer, two processes that have one GPU in turns.

    python learning_loop.py [CYCLES]          100 cycles, with pauses and without

      generator                                              trainer
      copies the weights from their shared handle  ◀──────   shares the weights
      replays its graphs over the cache, answers   ──────▶   has the answers' mean for its next batch
      pauses the cache                             ──────▶   trains: the activations take the cache's memory
      resumes the cache                            ◀──────   gives the activations' memory back

The cache and the activations together are larger than what is left of the card beside a block that nobody uses. Without
pauses the cache is smaller, so that both fit; the answers do not depend on its size. Both runs must give the same
answers and weights, bit for bit, and the two processes together may have at most 2 % of the card reserved and not
allocated: the most that the generator has when it has generated or resumed, and the most that the trainer has at its
peak or after it. Nothing is switched on or off in between.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import torch

import cenote

MIB, GIB = 1 << 20, 1 << 30
WIDTH = 2048
WEIGHTS_BYTES = 4 * WIDTH * WIDTH
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)  # a graph each
CACHE_BLOCKS = 32
LEFT_SHARE = 0.3  # of the card, for all that follows
CACHE_SHARE = {True: 0.2, False: 0.05}  # with and without pauses
TRAINING_SHARE = 0.18
ACTIVATION_ROWS = 64 * 1024
ACTIVATION_BYTES = 4 * WIDTH * ACTIVATION_ROWS
MOST_IDLE_SHARE = 0.02


def install() -> None:
    report = cenote.install("pool | virtual", frameworks=["torch"], torch_mode="full")
    assert report, report
    # The workspace of cuBLAS comes with the first product: it is to lie outside of what is paused.
    torch.mm(*torch.zeros(2, 64, 64, device="cuda"))
    torch.cuda.synchronize()


def card_bytes() -> int:
    return torch.cuda.mem_get_info()[1]


def idle_bytes() -> int:
    """Reserved, but not allocated."""
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def digest_of(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.cpu().numpy().tobytes()).hexdigest()


def as_weights(memory: cenote.DeviceBuffer) -> torch.Tensor:
    return torch.as_tensor(memory, device="cuda").view(torch.float32).view(WIDTH, WIDTH)


class Generator:
    """Answers with graphs that read the weights, and write and read the cache."""

    def __init__(self, cache_bytes: int) -> None:
        torch.manual_seed(1)
        self.weights = torch.zeros(WIDTH, WIDTH, device="cuda")
        self.prompts = [torch.randn(batch, WIDTH, device="cuda") for batch in BATCHES]
        rows = cache_bytes // CACHE_BLOCKS // (4 * WIDTH)
        with cenote.region("cache"):
            self.cache = [torch.empty(rows, WIDTH, device="cuda") for _ in range(CACHE_BLOCKS)]
            self.graphs = [self.capture(number) for number in range(len(BATCHES))]

    def capture(self, number: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        prompt = self.prompts[number]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            hidden = torch.tanh(prompt @ self.weights)
            for block in self.cache:
                block[-len(prompt) :] = hidden
                hidden = torch.tanh(block[-len(prompt) :] @ self.weights)
            answer = hidden * 2
        return graph, answer

    def take_weights(self, handle: str) -> None:
        shared = cenote.open_shared(handle)
        self.weights.copy_(as_weights(shared))
        torch.cuda.synchronize()
        shared.close()

    def generate(self) -> str:
        """The digest of all answers, their mean, and the idle bytes."""
        for graph, _ in self.graphs:
            graph.replay()
        answers = torch.cat([answer for _, answer in self.graphs])
        return f"{digest_of(answers)} {answers.mean().item()!r} {idle_bytes()}"

    def pause(self) -> str:
        torch.cuda.synchronize()
        return str(cenote.pause("cache", keep="nothing"))

    def resume(self) -> str:
        return f"{cenote.resume('cache')} {idle_bytes()}"


def be_generator() -> None:
    """Does what the lines of the standard input name, and answers each with a line."""
    install()
    generator = Generator(int(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        print(getattr(generator, command)(*arguments), flush=True)


class Trainer:
    """Trains the weights, which lie in memory that the generator can open."""

    def __init__(self) -> None:
        torch.manual_seed(2)
        self.memory = cenote.DeviceBuffer(size=WEIGHTS_BYTES)
        self.weights = as_weights(self.memory)
        self.weights.copy_(torch.randn(WIDTH, WIDTH, device="cuda") / WIDTH**0.5)
        self.batch = torch.randn(ACTIVATION_ROWS, WIDTH, device="cuda")
        self.layers = int(TRAINING_SHARE * card_bytes()) // ACTIVATION_BYTES

    def train(self, mean: float) -> int:
        """The idle bytes: the most of those at the peak and after the memory was given back."""
        weights = self.weights.detach().requires_grad_()
        activation = (self.batch + mean) @ weights
        for _ in range(self.layers):
            activation = torch.tanh(activation)
        at_peak = idle_bytes()
        activation.square().mean().backward()
        del activation
        assert weights.grad is not None
        with torch.no_grad():
            self.weights -= 0.01 / WIDTH**0.5 * weights.grad / weights.grad.abs().max()
        del weights
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return max(at_peak, idle_bytes())

    def share(self) -> str:
        return str(self.memory.share(torch.cuda.current_stream()))


def tell(generator: subprocess.Popen[str], *words: object) -> list[str]:
    assert generator.stdin is not None and generator.stdout is not None
    print(*words, file=generator.stdin, flush=True)
    answer = generator.stdout.readline()
    assert answer, "the generator has ended"
    return answer.split()


def learn(cycles: int, pauses: bool) -> list[str]:
    """The digests of the answers of each cycle, and of the weights in the end."""
    trainer = Trainer()
    cache_bytes = int(CACHE_SHARE[pauses] * card_bytes())
    begin = time.perf_counter()
    digests: list[str] = []
    idle: list[int] = []
    command = [sys.executable, __file__, "generator", str(cache_bytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as generator:
        assert generator.stdout is not None
        assert generator.stdout.readline() == "ready\n"
        tell(generator, "take_weights", trainer.share())
        for _ in range(cycles):
            digest, mean, generating = tell(generator, "generate")
            digests.append(digest)
            if pauses:
                assert int(tell(generator, "pause")[0]) >= cache_bytes * 0.99
            training = trainer.train(float(mean))
            resumed = int(tell(generator, "resume")[1]) if pauses else 0
            tell(generator, "take_weights", trainer.share())
            idle.append(max(int(generating), resumed) + training)
        assert generator.stdin is not None
        generator.stdin.close()
    digests.append(digest_of(trainer.weights))
    print(
        f"{cycles} cycles {'with' if pauses else 'without'} pauses in {time.perf_counter() - begin:.0f} s: a cache of "
        f"{cache_bytes / GIB:.1f} GiB and activations of {trainer.layers * ACTIVATION_BYTES / GIB:.1f} GiB in "
        f"{LEFT_SHARE * card_bytes() / GIB:.1f} GiB; reserved and not allocated were at most {max(idle) / MIB:.0f} MiB "
        f"({max(idle) / card_bytes():.2%} of the card)",
        flush=True,
    )
    assert max(idle) <= MOST_IDLE_SHARE * card_bytes()
    return digests


def main() -> None:
    if sys.argv[1:2] == ["generator"]:
        be_generator()
        return
    cycles = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    install()
    driver_memory = cenote.mr.CudaMemoryResource()
    unused = torch.cuda.mem_get_info()[0] - int(LEFT_SHARE * card_bytes())
    block = driver_memory.allocate(unused)
    paused = learn(cycles, pauses=True)
    plain = learn(cycles, pauses=False)
    assert len(set(paused)) == len(paused), "the weights do not change"
    assert paused == plain
    driver_memory.deallocate(block, unused)
    print("answers and weights are the same, bit for bit")


if __name__ == "__main__":
    main()
