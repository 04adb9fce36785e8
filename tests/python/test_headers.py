"""Every installed header compiles alone, in each mode there is, and without CUDA's headers but for those of CCCL."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cuda_headers import wheel_include_folders

pytestmark = pytest.mark.build

ROOT = Path(__file__).parents[2]
CPP = ROOT / "core" / "cpp"

# Not for a program: a list of macros, and the one header that includes <cuda.h>, which is the first in driver.cpp.
INTERNAL = {"entry_points.hpp", "driver.hpp"}
HEADERS = sorted(header for header in CPP.rglob("*.hpp") if header.name not in INTERNAL)
C_HEADERS = [CPP / "cenote" / "cenote.h", ROOT / "core" / "sim" / "cenote_sim.h"]

COMPILER = shlex.split(os.environ.get("CXX", "c++"))
PER_THREAD = "-DCUDA_API_PER_THREAD_DEFAULT_STREAM"

# The two that stand on CCCL; no other header may need a header of CUDA.
OF_CCCL = [header for header in HEADERS if header.name in {"cccl.hpp", "thrust.hpp"}]


def include_cccl() -> list[str]:
    return [f"-isystem{folder / below}" for folder in wheel_include_folders() for below in ("", "cccl")]


def compile_syntax(source: Path, *options: str, compiler: list[str] = COMPILER) -> subprocess.CompletedProcess[str]:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"needs a C++ compiler: there is no {compiler[0]}")
    command = [*compiler, *options, "-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{CPP}"]
    return subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)


def check_syntax(source: Path, *options: str, compiler: list[str] = COMPILER) -> None:
    done = compile_syntax(source, *options, compiler=compiler)
    assert done.returncode == 0, done.stderr[:4000]


def twice(header: Path, source: Path) -> Path:
    """A source that includes `header` twice and nothing else."""
    source.write_text(f'#include "{header}"\n' * 2)
    return source


def test_the_headers_were_found() -> None:
    assert len(HEADERS) > 40
    assert all(header.is_file() for header in C_HEADERS)


@pytest.fixture(scope="module")
def compiled_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, subprocess.CompletedProcess[str]]:
    """What the compiler says of each header, on all cores at once: together they take minutes."""
    folder = tmp_path_factory.mktemp("alone")

    def compile_alone(header: Path) -> subprocess.CompletedProcess[str]:
        source = twice(header, folder / f"{HEADERS.index(header)}.cpp")
        return compile_syntax(source, "-std=c++20", *(include_cccl() if header in OF_CCCL else []))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return dict(zip(HEADERS, threads.map(compile_alone, HEADERS), strict=True))


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.stem)
def test_header_compiles_alone(header: Path, compiled_alone: dict[Path, subprocess.CompletedProcess[str]]) -> None:
    assert compiled_alone[header].returncode == 0, compiled_alone[header].stderr[:4000]


@pytest.mark.parametrize("header", C_HEADERS, ids=lambda header: header.stem)
@pytest.mark.parametrize("language", [("-x", "c", "-std=c99"), ("-x", "c++", "-std=c++11")], ids=["c", "cpp"])
def test_header_of_the_c_interface_compiles_alone(header: Path, language: tuple[str, ...], tmp_path: Path) -> None:
    check_syntax(twice(header, tmp_path / "alone"), *language)


# What those that a program names are made of. Everything else is for programs, and in cenote.hpp.
MADE_OF = {
    "driver/address_reservation",
    "driver/after_captures",
    "driver/aside_stream",
    "driver/capture",
    "driver/driver_pools",
    "driver/exported_pages",
    "driver/exported_pool_block",
    "driver/graph_lifetime",
    "driver/graph_pool",
    "driver/identified_scope",
    "driver/imported_pages",
    "driver/imported_pool_block",
    "driver/memory_properties",
    "driver/nvtx",
    "driver/nvtx_memory",
    "driver/own_streams",
    "driver/mapping_table",
    "driver/page_mapping",
    "driver/page_set",
    "driver/paused_addresses",
    "driver/peer_access",
    "driver/physical_page",
    "driver/pinned_chunks",
    "driver/shared_account",
    "driver/stream_scope",
    "driver/touched_chunks",
    "driver/unnamed_stream",
    "ground/asymmetric_fence",
    "ground/biased_lock",
    "ground/check",
    "ground/environment",
    "ground/export",
    "ground/file_descriptor",
    "ground/flight_recorder",
    "ground/host_memory",
    "ground/host_table",
    "ground/free_correction",
    "ground/hot",
    "ground/immortal",
    "ground/ladder",
    "ground/mutex",
    "ground/output_file",
    "ground/process",
    "ground/process_counters",
    "ground/quoted",
    "ground/spin_lock",
    "ground/text_part",
    "ground/thread_number",
    "ground/thread_slot",
    "pool/backing",
    "pool/chunk_backing",
    "pool/chunk_source",
    "pool/engine",
    "pool/file_parking",
    "pool/front_caches",
    "pool/host_parking",
    "pool/idle_trimmer",
    "pool/last_freed",
    "pool/mapped_pages",
    "pool/page_pools",
    "pool/page_backing",
    "pool/page_pause",
    "pool/parking",
    "pool/peer_parking",
    "pool/pinned_blocks",
    "pool/request",
    "pool/shared_heap",
    "pool/spare_events",
    "pool/stream_ordered_heap",
    "pool/stream_timeline",
    "pool/stream_timelines",
    "pool/trimmer",
    "resources/pools_held_still",
    "surface/allocation_ledger",
    "surface/allocation_table",
    "surface/block_handle",
    "surface/block_messages",
    "surface/blocks_by_address",
    "surface/call_site",
    "surface/endpoint",
    "surface/local_socket",
    "surface/reclaimer",
    "surface/resource_place",
    "surface/scope_place",
    "surface/shortage",
}


def test_cenote_hpp_includes_every_header_for_programs() -> None:
    text = (CPP / "cenote" / "cenote.hpp").read_text()
    included = re.findall(r'^#include "cenote/(.+)\.hpp"$', text, re.MULTILINE)
    names = {str(header.relative_to(CPP / "cenote").with_suffix("")) for header in HEADERS}
    inner = {name for name in names if name.startswith("structures/")} | MADE_OF
    assert included == sorted(included)
    assert set(included) == names - inner - {"cenote", "cccl", "thrust"}
    assert inner <= names


def test_all_headers_together_compile_with_clang(tmp_path: Path) -> None:
    source = tmp_path / "all.cpp"
    source.write_text("".join(f'#include "{header}"\n' for header in HEADERS))
    check_syntax(source, "-std=c++20", *include_cccl(), compiler=["clang++"])


def test_all_headers_together_compile_where_the_default_stream_is_per_thread(tmp_path: Path) -> None:
    source = tmp_path / "all.cpp"
    source.write_text("".join(f'#include "{header}"\n' for header in HEADERS))
    check_syntax(source, "-std=c++20", PER_THREAD, *include_cccl())
