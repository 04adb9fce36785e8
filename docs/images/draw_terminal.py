"""Draws the pictures of the command on docs/start.md: what it prints, on the simulated device.

::

    python docs/images/draw_terminal.py       writes cli-*.svg beside this file
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 100
WITHOUT_FONTS = re.sub(
    r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
)  # which come from other hosts
CENOTE = (sys.executable, "-m", "cenote")

TRAINING = """
import time, cenote
cenote.mr.set_current_device_resource(cenote.mr.from_spec("pool:max=12GiB"))
with cenote.tag("weights"):
    weights = [cenote.DeviceBuffer(size=800 << 20) for _ in range(3)]
with cenote.tag("activations"):
    activations = [cenote.DeviceBuffer(size=1 << 30) for _ in range(4)]
del activations[1]
print("ready", flush=True)
{then}
"""
RUNS_ON = "while True: cenote.DeviceBuffer(size=1 << 20); time.sleep(0.002)"
FAILS = 'with cenote.tag("kv cache"):\n    cache = [cenote.DeviceBuffer(size=700 << 20) for _ in range(12)]'


def run(folder: str, *command: str, **environment: str) -> str:
    """Run a command in a folder; what it prints on a terminal of `COLUMNS` columns, with its colours."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.stdout.decode().replace(folder, "~")


def draw(name: str, shown: str, printed: str) -> None:
    """Write a picture of a terminal in which a command was typed."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text(f"$ {shown}\n", style="bold"))
    for line in printed.rstrip().split("\n"):
        last = re.split(r"\r|\x1b\[2K", line)[-1]  # a bar is drawn over itself
        console.print(Text.from_ansi(re.sub(r"\x1b\[\?25[lh]", "", last)))
    console.save_svg(str(HERE / f"cli-{name}.svg"), title="", code_format=WITHOUT_FONTS, unique_id=f"cli-{name}")


def main() -> None:
    """Draw all of them."""
    with tempfile.TemporaryDirectory() as folder:
        draw("demo", "cenote demo --simulate", run(folder, *CENOTE, "demo", "--simulate"))

        environment = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_COUNTERS": f"{folder}/counters"}
        (Path(folder) / "train.py").write_text(TRAINING.format(then=RUNS_ON))
        training = [sys.executable, "train.py"]
        with subprocess.Popen(
            training, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            draw("top", "cenote top --once", run(folder, *CENOTE, "top", "--once", **environment))
            process.kill()

        (Path(folder) / "train.py").write_text(TRAINING.format(then=FAILS))
        run(folder, *training, **environment, CENOTE_RECORDER_FILE="run.rec")
        asked = ("advise", "run.dev0.rec", "--resource", "pool:max=12GiB")
        draw("advise", f"cenote {' '.join(asked)}", run(folder, *CENOTE, *asked))


if __name__ == "__main__":
    main()
