"""The C interface as a program in C meets it: compiled as C99 against the installed package, run on a simulated device.

What each function does and refuses is tested in tests/cpp/conformance/simulated/c_abi_test.cpp.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import cenote

PACKAGE = Path(cenote.__file__).parent
LIBRARY = PACKAGE / "lib" / "libcenote.so.1"
PAGE = Path(__file__).parents[2] / "docs" / "c-abi.md"
COMPILER = shlex.split(os.environ.get("CC", "cc"))

# A program on the page, and what the page says that it prints.
PROGRAMS = re.findall(
    r"^```c\n(.*?)^```\n\n```text\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def build(code: str, folder: Path, *options: str) -> Path:
    if shutil.which(COMPILER[0]) is None:
        pytest.skip("needs a C compiler")
    source, program = folder / "program.c", folder / "program"
    source.write_text(code.rstrip() + "\n", encoding="utf-8")
    command = [*COMPILER, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{PACKAGE / 'include'}"]
    done = subprocess.run(
        [*command, str(source), "-o", str(program), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return program


def run(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


LINKED = (f"-L{LIBRARY.parent}", f"-Wl,-rpath,{LIBRARY.parent}", "-lcenote")


def test_the_page_has_a_program_that_links_and_one_that_does_not() -> None:
    assert ["cenote_get_api" in code for code, _ in PROGRAMS] == [False, True]


def test_program_that_links_prints_what_the_page_says(tmp_path: Path) -> None:
    code, printed = PROGRAMS[0]
    assert run(build(code, tmp_path, *LINKED)) == printed


def test_program_that_loads_the_library_prints_what_the_page_says(tmp_path: Path) -> None:
    code, printed = PROGRAMS[1]
    program = build(code, tmp_path, "-ldl")
    needed = subprocess.run(["readelf", "-d", str(program)], capture_output=True, text=True, check=True).stdout
    assert "libcenote" not in needed
    assert run(program, str(LIBRARY)) == printed


def test_memory_that_a_program_in_c_allocates_holds_what_is_written_to_it(tmp_path: Path) -> None:
    """Pinned memory, which the host reaches: the blocks are disjoint, aligned, and keep their bytes."""
    code = """
        #include <cenote/cenote.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <string.h>
        #define BLOCKS 100

        static int fail(const char* what) {
          fprintf(stderr, "%s: %s\\n", what, cenote_last_error());
          return 1;
        }

        int main(void) {
          unsigned char* blocks[BLOCKS];
          const int client = cenote_register_client("c");
          cenote_client_usage usage = {.struct_size = sizeof(usage)};
          if (cenote_set_device_resource(1, "pool:initial=1MiB | pinned") != CENOTE_OK) return fail("set");
          for (int i = 0; i < BLOCKS; ++i) {
            blocks[i] = cenote_allocate_sync(client, 1, (size_t)(100 * i + 1));
            if (blocks[i] == NULL || (uintptr_t)blocks[i] % 256 != 0) return fail("allocate");
            memset(blocks[i], i, (size_t)(100 * i + 1));
          }
          if (cenote_get_client_usage(client, &usage) != CENOTE_OK) return fail("usage");
          if (usage.allocations != BLOCKS || usage.bytes != 50 * BLOCKS * (BLOCKS - 1) + BLOCKS) return fail("count");
          for (int i = 0; i < BLOCKS; ++i) {
            for (int j = 0; j < 100 * i + 1; ++j) {
              if (blocks[i][j] != (unsigned char)i) return fail("contents");
            }
            if (cenote_deallocate_sync(blocks[i]) != CENOTE_OK) return fail("deallocate");
          }
          if (cenote_deallocate(blocks[0], NULL) != CENOTE_UNKNOWN_POINTER) return fail("freed twice");
          if (cenote_trim(1) != 1 << 20 || cenote_reset_device_resource(1) != CENOTE_OK) return fail("trim");
          return 0;
        }
    """
    assert run(build(code, tmp_path, *LINKED)) == ""
