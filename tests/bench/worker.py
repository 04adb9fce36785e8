"""A worker process and the protocol with it: one JSON object a line, asked and answered in turn."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class WorkerError(RuntimeError):
    """The worker ended, or did not answer in time. The text has the last of what it wrote to stderr."""


class Worker:
    """A process that measures what it is asked to.

    Parameters
    ----------
    name : str
        For messages.
    command : sequence of str
        What to start.
    environment : mapping
        Its environment.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._said: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=ROOT,
        )
        self._listener = threading.Thread(target=self._keep_last_lines, daemon=True)
        self._listener.start()

    def keep_to(self, cores: Collection[int]) -> None:
        """Let its main thread, and threads that this one starts from now on, run on these cores only."""
        if cores and self._process.poll() is None:
            os.sched_setaffinity(self._process.pid, cores)

    def send(self, request: Mapping[str, Any]) -> None:
        """Ask, without waiting for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def receive(self, timeout_seconds: float) -> dict[str, Any]:
        """Wait for the answer; a worker that is late is ended."""
        assert self._process.stdout is not None
        alarm = threading.Timer(timeout_seconds, self._process.kill)
        alarm.start()
        try:
            for line in self._process.stdout:
                if line.startswith("{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
        finally:
            alarm.cancel()
        raise self._ended()

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.send(request)
        return self.receive(timeout_seconds)

    def quit(self) -> None:
        """End it; never fails."""
        try:
            self.send({"do": "quit"})
            self._process.wait(timeout=20)
        except (WorkerError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # what it was not sent any more
                    if pipe is not None:
                        pipe.close()

    def _ended(self) -> WorkerError:
        status = self._process.wait()
        # What it wrote last may still be on its way. The limit is for a child of its own that holds stderr open.
        self._listener.join(timeout=20)
        why = self._said[-1] if self._said else "it said nothing"
        return WorkerError(f"the worker {self.name} ended (status {status}): {why}")

    def _keep_last_lines(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._said.append(line.strip())


def environment_of_workers(simulated: bool, simulator: Path, mimalloc: Path | None) -> dict[str, str]:
    """The environment that every worker gets."""
    environment = dict(os.environ)
    if simulated:
        environment["CENOTE_CUDA_DRIVER"] = "sim"
        environment["CENOTE_SIM"] = "devices=1,memory=80GiB"
    environment["BENCH_SIM_LIBRARY"] = str(simulator)
    if mimalloc is not None:
        environment["BENCH_MIMALLOC"] = str(mimalloc)
    return environment
