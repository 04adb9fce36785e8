"""The pages: every program on them runs, the site builds without a warning, and nothing is left out of the tables."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cenote import mr
from cenote.sim import _library

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
snippets = runpy.run_path(str(DOCS / "snippets.py"))
pytest.importorskip("sphinx")
cpp_reference = runpy.run_path(str(DOCS / "cpp_reference.py"))

PROGRAMS = snippets["programs"]()
ENGINES = {"distributed", "cuda.core"}
"""What a program may need on the simulated device."""
SIMULATED = [program for program in PROGRAMS if ENGINES.issuperset(program.needs)]
FRAMEWORKS = {"gpu", "nvcc", "torch", "cupy", "numba", "rmm", "warp", "triton", *ENGINES}
ENVIRONMENT_VARIABLE = re.compile(r'"((?:CENOTE|RMM)_[A-Z_]+[A-Z])"')


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(
            program,
            id=program.name,
            marks=[pytest.mark.build] if program.language == "cpp" else [pytest.mark.slow] if program.needs else [],
        )
        for program in SIMULATED
    ],
)
def test_program_on_a_page_runs_and_prints_what_the_page_says(program, tmp_path: Path) -> None:
    if program.language == "cpp" and shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
        pytest.skip("needs a C++ compiler")
    for engine in program.needs:
        pytest.importorskip(engine)
    devices = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=2,memory=8GiB,pageable=1"}
    if "cuda.core" in program.needs:
        (tmp_path / "libcuda.so.1").symlink_to(_library.find_library())
        devices["LD_LIBRARY_PATH"] = str(tmp_path)
    snippets["run"](program, tmp_path, {**os.environ, **devices})


def test_every_block_of_python_and_cpp_is_in_a_program_or_a_file() -> None:
    written = [
        (str(path.relative_to(ROOT)), number)
        for path in snippets["pages"]()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.match(r"\s*(`{3,}|~{3,})\s*(python|py|pycon|cpp|c\+\+|cuda)\b", line)
    ]
    in_programs = {(block.page, block.line) for program in PROGRAMS for block in program.blocks}
    in_files = [
        (name, text) for path in snippets["pages"]() for name, text in snippets["files"](path).items() if ".cpp" in name
    ]
    assert in_programs <= set(written)
    assert len(written) == len(in_programs) + len(in_files)


def test_what_a_program_needs_is_something_that_a_gpu_machine_has() -> None:
    for program in PROGRAMS:
        assert set(program.needs) <= FRAMEWORKS, program.name


@pytest.mark.parametrize(
    ("output", "printed", "is_right"),
    [("1\n", "1\n", True), ("1\n", "2\n", False), ("at 0x…\n", "at 0x7f\n", True), ("a.c\n", "abc\n", False)],
)
def test_output_of_a_program_is_compared(output: str, printed: str, is_right: bool, tmp_path: Path) -> None:
    block = snippets["Block"]("a page", 1, f"print({printed!r}, end='')", output)
    program = snippets["Program"]([block])
    if is_right:
        snippets["run"](program, tmp_path, dict(os.environ))
        return
    with pytest.raises(AssertionError, match="a page:1 prints"):
        snippets["run"](program, tmp_path, dict(os.environ))


def test_program_in_cpp_that_does_not_compile_says_on_which_page_and_line(tmp_path: Path) -> None:
    program = snippets["Program"]([snippets["Block"]("a page", 41, "\nno_such_name();\n")], language="cpp")
    with pytest.raises(AssertionError, match=r"(?s)a page:41 does not compile.*a page:43:"):
        snippets["run"](program, tmp_path, dict(os.environ))


def test_output_of_each_block_in_cpp_is_compared(tmp_path: Path) -> None:
    blocks = [snippets["Block"]("a page", line, f'std::puts("{line}");\n', "1\n") for line in (1, 2)]
    with pytest.raises(AssertionError, match=r"^a page:2 prints\n2\n"):
        snippets["run"](snippets["Program"](blocks, language="cpp"), tmp_path, dict(os.environ))


def test_program_that_fails_says_on_which_page_and_line(tmp_path: Path) -> None:
    program = snippets["Program"]([snippets["Block"]("a page", 41, "\n1 / 0\n")])
    with pytest.raises(AssertionError, match=r'(?s)File "a page", line 43.*ZeroDivisionError'):
        snippets["run"](program, tmp_path, dict(os.environ))


def build_site(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    sphinx = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", "doctrees")
    return subprocess.run(
        [*sphinx, *options, str(DOCS), "html"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    built = build_site(folder)
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_site_builds_without_a_warning(site: Path) -> None:
    assert (site / "index.html").is_file()


def test_pages_of_the_cpp_reference_hold_every_public_header_once() -> None:
    pages = sorted((DOCS / "reference" / "cpp").glob("*.rst"))
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    wanted = re.findall(r"^\.\. cpp-headers:: (\S+)$", text, re.MULTILINE)
    for header in cpp_reference["public_headers"]():
        shown = [name for name in wanted if f"{header}/".startswith(f"cenote/{name}/")]
        assert len(shown) == 1, header


def test_cpp_reference_shows_what_the_headers_declare(site: Path) -> None:
    if shutil.which("doxygen") is None:
        pytest.skip("the C++ reference needs Doxygen: apt-get install doxygen")
    shown = {path.stem: path.read_text(encoding="utf-8") for path in (site / "reference" / "cpp").glob("*.html")}
    for name, page in {
        "_CPPv4N6cenote20pool_memory_resource20pool_memory_resource": "resources",
        "_CPPv4N6cenote15memory_resource8allocate": "memory_resource",
        "_CPPv4N6cenote15memory_resource11do_allocate": "memory_resource",  # private, for resources of a program's own
        "_CPPv4N6cenote27get_current_device_resourceEv": "registry",
        "_CPPv4I0EN6cenote14device_uvector": "containers",
        "A row of elements in memory of a resource, not initialised": "containers",
        "Throws out_of_memory, after the pressure handlers": "memory_resource",
        "cenote_allocate_or_throw": "c",
    }.items():
        assert name in shown[page], name


@pytest.mark.slow
def test_site_says_what_is_missing_where_there_is_no_doxygen(tmp_path: Path) -> None:
    alone = ("-D", "root_doc=reference/cpp/resources", "-D", "exclude_patterns=**.md,**/[!r]*.rst,**/registry.rst")
    done = build_site(tmp_path, *alone, PATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "html" / "reference" / "cpp" / "resources.html").read_text(encoding="utf-8")
    assert cpp_reference["MISSING"].partition("(")[0].strip() in text


def test_every_resource_and_adaptor_is_in_a_table_of_the_guide() -> None:
    classes = {name for name in mr.__all__ if name.endswith(("MemoryResource", "ResourceAdaptor"))}
    classes -= {"DeviceMemoryResource", "UpstreamResourceAdaptor"}
    rows = set(re.findall(r"^\| `(\w+)` \|", page("choosing.md") + page("adaptors.md"), re.MULTILINE))
    assert classes == rows


def test_every_word_of_a_specification_is_in_a_table_of_the_guide() -> None:
    tables = page("choosing.md") + page("adaptors.md")
    words = re.findall(r"^(\w+)", mr.known_specifications(), re.MULTILINE)
    assert [word for word in words if f"| `{word}" not in tables] == []


def test_every_environment_variable_has_its_row() -> None:
    sources = [path for folder in ("core", "plugins") for path in (ROOT / folder).rglob("*")]
    read = {
        name
        for path in sources
        if path.suffix in {".py", ".pyx", ".cpp", ".hpp"} and path.is_file()
        for name in ENVIRONMENT_VARIABLE.findall(path.read_text(encoding="utf-8"))
    }
    assert {"CENOTE_RESOURCE", "CENOTE_CUDA_DRIVER"} <= read
    assert [name for name in read if f"`{name}`" not in page("environment.md")] == []


def test_costs_of_pairs_are_measured_for_every_case(tmp_path: Path) -> None:
    bench = ROOT / "tests" / "bench" / "pair_cost.py"
    done = subprocess.run(
        [sys.executable, str(bench), "--out", str(tmp_path), "--rounds", "2", "--share", "0.002"],
        env={**os.environ, "CENOTE_SIM": "memory=80GiB"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "pair-cost.md").read_text()
    cases = runpy.run_path(str(bench))["CASES"]
    for name in cases:
        row = "| `" + name.replace("|", "\\|") + "` |"
        assert written.count(row) == 2, row
    assert "could not be had" not in written
    assert "On the simulated device" in written
