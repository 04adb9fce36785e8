"""The notebooks: each runs from its first cell to its last on the simulated device, and prints what is stored in it.

A notebook is JSON, so that no Jupyter is needed to run its cells.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))
RUN = """
import json, sys
from contextlib import redirect_stdout
from io import StringIO

names, printed = {"__name__": "__main__"}, []
for cell in json.load(sys.stdin):
    with redirect_stdout(StringIO()) as text:
        exec(cell, names)
    printed.append(text.getvalue())
json.dump(printed, sys.stdout)
"""


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def stored_text(cell: dict[str, Any]) -> str:
    return "".join("".join(output["text"]) for output in cell["outputs"] if output["output_type"] == "stream")


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_prints_what_is_stored_in_it(notebook: Path, tmp_path: Path) -> None:
    cells = code_cells(notebook)
    if any("matplotlib" in "".join(cell["source"]) for cell in cells):
        pytest.importorskip("matplotlib")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CENOTE_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN],
        input=json.dumps(["".join(cell["source"]) for cell in cells]),
        cwd=tmp_path,
        env={**environment, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [stored_text(cell) for cell in cells]
