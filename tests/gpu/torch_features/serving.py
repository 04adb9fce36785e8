"""A process that has imported PyTorch once, and forks for each feature: a fork is the first to use CUDA.

    client ──► server ──fork──► feature 1, to the end of its process
                      ──fork──► feature 2 …

An import of PyTorch costs more than most features. A feature is asked for by a line of JSON, and answered by another.
A fork ends as a program does: the interpreter is torn down. The server's first line says whether it can: not where an
import has opened the device already, as a fork cannot use it then.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 100
FOLDER = Path(__file__).parents[1]

Outcome = dict[str, Any]
"""`status` of the exit, `output` and `noise`: what was written to both streams."""


def environment() -> dict[str, str]:
    """Give the variables with which the package is found."""
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


class Server:
    """The client's side."""

    def __init__(self) -> None:
        self.noise = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it lives as long as the server)
        command = [sys.executable, "-m", "torch_features", "serve"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            text=True,
            env=environment(),
        )
        assert self.process.stdout is not None
        self.can_fork = self.process.stdout.readline() != "false\n"

    def run(self, allocator: str, name: str) -> Outcome:
        """Run one feature, in a fork."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            print(json.dumps([allocator, name]), file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.kill()
            self.noise.seek(0)
            raise RuntimeError(f"the server ended with {self.process.wait()}: {self.noise.read()[-1000:]}")
        outcome: Outcome = json.loads(answer)
        return outcome


_of_thread = threading.local()


def run_forked(allocator: str, name: str) -> Outcome | None:
    """Run a feature in a fork of this thread's server, which is started where there is none; nothing if it cannot."""
    if getattr(_of_thread, "server", None) is None:
        _of_thread.server = Server()
    server: Server = _of_thread.server
    try:
        return server.run(allocator, name) if server.can_fork else None
    except BaseException:  # also a test's timeout: its answer must not be taken for the next one's
        server.process.kill()
        _of_thread.server = None
        raise


def _wait(child: int, output: Path, noise: Path) -> Outcome:
    until = time.monotonic() + TIMEOUT_SECONDS
    pause = 0.001
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid != 0:
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    late = ["took too long"] if time.monotonic() > until else []
    texts = [each.read_text(errors="replace") for each in (output, noise)]
    return {"status": os.waitstatus_to_exitcode(status), "output": texts[0], "noise": "\n".join([texts[1], *late])}


def _become(output: Path, noise: Path) -> None:
    """Give this fork its own streams."""
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, noise, os.O_WRONLY)):
        opened = os.open(path, how | (0 if number == 0 else os.O_CREAT))
        os.dup2(opened, number)
        os.close(opened)


def _has_opened_a_device() -> bool:
    opened = Path("/proc/self/fd")
    return any(os.readlink(each).startswith("/dev/nvidia") for each in opened.iterdir() if each.is_symlink())


def serve() -> tuple[str, str] | None:
    """Answer until the client is gone: nothing. In a fork: the feature that it is to run, and then to end."""
    import torch
    import torch.cuda._memory_viz
    import torch.multiprocessing
    import torch.profiler

    import cenote.allocators.torch  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    print("false" if torch.cuda.is_initialized() or _has_opened_a_device() else "true", file=answers, flush=True)
    os.dup2(2, 1)
    folder = Path(tempfile.mkdtemp(prefix="features-"))
    output, noise = folder / "output", folder / "noise"
    while line := os.read(0, 4096):  # one line, and nothing is buffered that a fork would have, too
        output.unlink(missing_ok=True)
        noise.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _become(output, noise)
            allocator, name = json.loads(line)
            return allocator, name
        print(json.dumps(_wait(child, output, noise)), file=answers, flush=True)
    shutil.rmtree(folder)
    return None
