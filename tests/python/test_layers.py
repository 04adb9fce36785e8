"""The layers of the core and of the package, read from the sources: includes and imports point down only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "cpp" / "cenote"

# What each layer may include beside itself.
KNOWS: dict[str, set[str]] = {
    "ground": set(),
    "driver": {"ground"},
    "structures": {"ground"},
    "interface": {"driver", "ground"},
    "pool": {"interface", "structures", "driver", "ground"},
    "resources": {"pool", "interface", "structures", "driver", "ground"},
    "adaptors": {"interface", "structures", "driver", "ground"},
}
KNOWS["surface"] = set(KNOWS) - {"pool"}
KNOWS["containers"] = {"surface", "interface", "driver", "ground"}
# Headers alone, above the core: for standard containers, and for the libraries that they are named after.
KNOWS["allocators"] = {"surface", "interface", "driver", "ground"}
KNOWS["cccl"] = {"resources", "interface", "driver", "ground"}
KNOWS["cenote"] = {"allocators", *KNOWS} - {"structures"}
KNOWS["thrust"] = {"allocators", "surface", "interface", "driver", "ground"}

# The same of the simulated driver, which knows nothing of the core.
SIM = ROOT / "core" / "sim"
KNOWS_OF_SIM: dict[str, set[str]] = {
    "ground": set(),
    "memory": {"ground"},
    "device": {"memory", "ground"},
    "stream": {"device", "memory", "ground"},
    "pool": {"stream", "device", "memory", "ground"},
    "machine": {"pool", "stream", "device", "memory", "ground"},
}
KNOWS_OF_SIM["entry"] = set(KNOWS_OF_SIM)

DRIVER_HEADERS = {"cuda.h", "cudaTypedefs.h"}
FRAMEWORKS = re.compile(r"torch|cupy|numba|pytorch", re.IGNORECASE)
PUBLIC = {"cenote/cenote.h", "cenote/ground/error.hpp", "cenote/ground/foreign_exception.hpp"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


@pytest.fixture(autouse=True)
def device_left_as_it_was() -> None:
    """Nothing here uses one, and looking after it would take most of the time."""


SOURCES = sorted(path for path in CORE.rglob("*") if path.suffix in {".cpp", ".hpp", ".h"})
SIM_SOURCES = sorted(path for path in SIM.rglob("*") if path.suffix in {".cpp", ".hpp", ".h"})
PLUGIN_SOURCES = sorted((ROOT / "plugins").rglob("*.cpp"))
PLUGIN_MODULES = sorted((ROOT / "plugins").rglob("*.py"))


# Files that lie in no folder and belong to a layer with others.
ALONE = {
    "cenote.h": "surface",
    "cenote_or_throw.hpp": "surface",
    "cenote_sim.h": "entry",
    "memory_resource.cpp": "interface",
    "memory_resource.hpp": "interface",
    "resource_adaptor.hpp": "interface",
}


def layer_of(path: Path) -> str:
    """The layer of a file, given relative to the folder `cenote`, or to `sim`."""
    return path.parts[0] if len(path.parts) > 1 else ALONE.get(path.name, path.stem)


def includes(source: Path) -> list[str]:
    return INCLUDE.findall(source.read_text())


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_core_was_found() -> None:
    assert len(SOURCES) > 30
    assert {layer_of(path.relative_to(CORE)) for path in SOURCES} == set(KNOWS)
    assert len(SIM_SOURCES) > 30
    assert {layer_of(path.relative_to(SIM)) for path in SIM_SOURCES} == set(KNOWS_OF_SIM)
    assert len(PLUGIN_SOURCES) >= 2
    assert len(PLUGIN_MODULES) >= 3


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_includes_point_down(source: Path) -> None:
    layer = layer_of(source.relative_to(CORE))
    for included in includes(source):
        if included.startswith("cenote/"):
            below = layer_of(Path(included).relative_to("cenote"))
            assert below == layer or below in KNOWS[layer], f"{layer} may not know {below}: {included}"
            assert (CORE.parent / included).is_file(), included


@pytest.mark.parametrize("source", SIM_SOURCES, ids=name)
def test_includes_of_the_simulated_driver_point_down(source: Path) -> None:
    layer = layer_of(source.relative_to(SIM))
    for included in re.findall(r'^\s*#\s*include\s*"(.+)"', source.read_text(), re.MULTILINE):
        below = layer_of(Path(included).relative_to("sim"))
        assert below == layer or below in KNOWS_OF_SIM[layer], f"{layer} may not know {below}: {included}"
        assert (SIM.parent / included).is_file(), included


@pytest.mark.parametrize("source", SIM_SOURCES, ids=name)
def test_one_header_of_the_simulated_driver_includes_that_of_the_driver(source: Path) -> None:
    """It marks what the driver declares for export."""
    cuda = {included for included in includes(source) if re.match(r"(cu|nv)[A-Za-z_/]*\.h", included)}
    assert cuda == ({"cuda.h"} if source.name == "cuda_driver.hpp" else set())


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_only_the_driver_layer_includes_the_headers_of_cuda(source: Path) -> None:
    cuda = {included for included in includes(source) if re.match(r"(cu|nv)[A-Za-z_/]*\.h", included)}
    allowed = DRIVER_HEADERS if layer_of(source.relative_to(CORE)) == "driver" else set()
    assert cuda <= allowed


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_only_the_driver_layer_knows_the_tools_interface(source: Path) -> None:
    if layer_of(source.relative_to(CORE)) != "driver":
        assert not [included for included in includes(source) if included.startswith("nvtx3/")]


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_only_the_headers_named_after_cccl_and_thrust_include_them(source: Path) -> None:
    if source.name not in {"cccl.hpp", "thrust.hpp"}:
        assert not [included for included in includes(source) if re.match(r"(cuda|cub|thrust|nv)/", included)]
        assert not {"cenote/cccl.hpp", "cenote/thrust.hpp"} & set(includes(source))


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_the_core_knows_neither_python_nor_a_framework(source: Path) -> None:
    assert not [included for included in includes(source) if "ython" in included]
    code = COMMENT.sub("", source.read_text())
    assert not FRAMEWORKS.findall(code)


# Their formatting looks up facets of a locale, which in a process with several copies of the C++ runtime (beside
# PyTorch, CuPy and Numba) may be another copy's: `stream << pointer` has called null there (Python 3.12, H100 machine).
LOCALE_HEADERS = {"iostream", "sstream", "fstream", "ostream", "istream", "iomanip", "locale", "regex"}


@pytest.mark.parametrize("source", [*SOURCES, *PLUGIN_SOURCES], ids=name)
def test_nothing_that_is_loaded_beside_a_framework_needs_a_locale(source: Path) -> None:
    assert LOCALE_HEADERS.isdisjoint(includes(source))


@pytest.mark.parametrize("source", PLUGIN_SOURCES, ids=name)
def test_compiled_plugins_use_public_headers_only(source: Path) -> None:
    assert {included for included in includes(source) if included.startswith("cenote/")} <= PUBLIC
    if source.parent.name != "full":  # compiled against PyTorch, whose headers have CUDA's in them
        assert not [included for included in includes(source) if re.match(r"(cu|nv)[A-Za-z_/]*\.h", included)]


@pytest.mark.parametrize("source", [*PLUGIN_SOURCES, *PLUGIN_MODULES], ids=name)
def test_plugins_never_know_each_other(source: Path) -> None:
    mine = source.relative_to(ROOT / "plugins").parts[0]
    others = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()} - {mine}
    code = COMMENT.sub("", source.read_text())
    imported = re.findall(r"^\s*(?:from|import)\s+([\w.]+)", code, re.MULTILINE) + includes(source)
    for other in others:
        assert not [one for one in imported if re.search(rf"(^|[./_]){other}([./_]|$)", one)], f"{mine} knows {other}"


PACKAGE = ROOT / "core" / "python" / "cenote"

# What each module or folder of the package may import beside itself. All may import `errors`, which the core raises.
PACKAGE_KNOWS: dict[str, set[str]] = {
    "errors": set(),
    "_core": set(),
    "_profiled_function": {"_core"},
    **{
        module: {"_core"}
        for module in ("device_buffer", "driver", "logger", "pressure", "registry", "sim", "stream", "units")
    },
    "initialization": {"_core", "driver", "units"},
    "logs": {"_core", "stream", "units"},
    "mr": {"_core", "initialization", "logs"},
    "recorder": {"_core", "logs"},
    "_beside": {"_core", "driver"},
    "explanation": {"_beside", "_core", "budgets", "driver", "logs", "recorder", "report", "units"},
    "exports": {"_core", "logs", "pressure", "recorder"},
    "report": {"explanation", "logs", "recorder", "units"},
    "statistics": {"_core", "_profiled_function", "mr"},
    "_local_device": {"_core", "driver"},
    "budgets": {"_core", "driver"},
    "pausing": {"_core", "mr"},
    "_doors": set(),
    "frameworks": {"_core", "_doors", "_local_device", "driver", "mr", "registry", "sim"},
    "scopes": {"_core", "mr"},
    "graph_pool": {"_core", "driver"},
    "allocators": {"__init__"},
    "compat": {"__init__", "_core", "mr", "pausing", "stream"},
}
PACKAGE_KNOWS["__init__"] = set(PACKAGE_KNOWS) - {"compat"}
PACKAGE_KNOWS["cli"] = set(PACKAGE_KNOWS)
PACKAGE_KNOWS["__main__"] = {"cli"}

PACKAGE_SOURCES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".pyx", ".pxd", ".pyi"})


def imported_modules(source: Path) -> Iterator[str]:
    """What a source imports of cenote, with dots: "mr", "logs.trace", "__init__" for a name of the package itself."""
    if source.suffix in {".pyx", ".pxd"}:
        text = source.read_text()
        yield from re.findall(r"^ *from cenote\.([\w.]+) c?import", text, re.MULTILINE)
        assert not re.search(r"^ *c?import cenote|^ *from cenote c?import", text, re.MULTILINE)
        return
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "cenote":
            yield from (one.name if one.name in PACKAGE_KNOWS else "__init__" for one in node.names)
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name.removeprefix("cenote.") for name in names if name.startswith("cenote."))
        yield from ("__init__" for name in names if name == "cenote" and isinstance(node, ast.Import))


def package_layer_of(source: Path) -> str:
    parts = source.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else source.stem


def test_the_package_was_found() -> None:
    assert len(PACKAGE_SOURCES) > 80
    assert {package_layer_of(source) for source in PACKAGE_SOURCES} == set(PACKAGE_KNOWS)


@pytest.mark.parametrize("source", PACKAGE_SOURCES, ids=name)
def test_imports_of_the_package_point_down(source: Path) -> None:
    layer = package_layer_of(source)
    for imported in imported_modules(source):
        below = imported.partition(".")[0]
        assert below in {layer, "errors", *PACKAGE_KNOWS[layer]}, f"{layer} may not know {below}"


# A plugin of several files has layers of its own.
PLUGIN_KNOWS: dict[str, dict[str, set[str]]] = {
    "dask": {
        "options": set(),
        "room": set(),
        "serialization": {"room"},
        "spill": set(),
        "worker_device": set(),
        "metrics": {"room", "spill"},
        "plugin": {"metrics", "options", "room", "spill", "worker_device"},
    },
    "cupy": {"_allocator": set(), "memory_pool": set(), "pinned_memory": set()},
    "numba": {
        "blocks": set(),
        "raw_handle": set(),
        "driver_calls": {"blocks", "raw_handle"},
        "memory_manager": {"blocks", "driver_calls", "raw_handle"},
    },
    "rmm": {"extension_build": set()},
    "torch": {
        "full_build": set(),
        "full_allocator": {"full_build"},
        "mempool": set(),
        "shared_pages": {"full_allocator"},
    },
}
for its in PLUGIN_KNOWS.values():
    its["__init__"] = set(its)


@pytest.mark.parametrize("source", PLUGIN_MODULES, ids=name)
def test_plugins_import_public_modules_only(source: Path) -> None:
    plugin, _, *package = source.parent.relative_to(ROOT / "plugins").parts
    mine = ".".join(package)  # cenote.allocators.torch
    knows = PLUGIN_KNOWS.get(plugin, {"__init__": set()})[source.stem]
    for node in ast.walk(ast.parse(source.read_text())):
        imported = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{one.name}" for one in node.names]
        ours = [one for one in imported if one.partition(".")[0] == "cenote"]
        own = [one.removeprefix(f"{mine}.") for one in ours if one.startswith(f"{mine}.")]
        if plugin in PLUGIN_KNOWS:
            assert {one.partition(".")[0] for one in own} <= knows, f"{source.stem} may not know {own}"
        # A plugin's own compiled module is its own.
        assert not [one for one in ours if re.search(r"\._", one) and not one.startswith(f"{mine}.")], ours


# The command shows frameworks at work; test_cli.py sees that it runs without them.
MODULES = sorted(path for path in (ROOT / "core" / "python").rglob("*.py") if path.parent.name != "cli")


@pytest.mark.parametrize("source", MODULES, ids=name)
def test_the_package_imports_no_framework_by_name(source: Path) -> None:
    imported = re.findall(r"^\s*(?:from|import)\s+(\w+)", source.read_text(), re.MULTILINE)
    assert not {"torch", "cupy", "numba"} & set(imported)


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_variables_are_read_where_secure_execution_is_looked_at(source: Path) -> None:
    """A set-user-id program's caller chooses its environment, and must not choose its libraries and files."""
    if source.stem != "environment":
        assert "getenv" not in COMMENT.sub("", source.read_text()), "environment_variable() reads variables"


# cenote.sim and the plugin of pytest hand CENOTE_SIM, which names no file, to child processes. The command is left out:
# it lists what is set, and says in secure execution that nothing is followed.
# CUDA_VISIBLE_DEVICES is CUDA's own.
READERS_OF_THE_ENVIRONMENT = {
    "sim/__init__.py": {"CENOTE_SIM"},
    "pytest_cenote/__init__.py": {"CENOTE_SIM"},
    "dask/worker_device.py": {"CUDA_VISIBLE_DEVICES"},
    "torch/__init__.py": {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"},  # PyTorch's
    "allocators/compiling.py": {"XDG_CACHE_HOME", "CXX"},  # where things are on this machine
    "cupy/memory_pool.py": {"CUPY_GPU_MEMORY_LIMIT"},  # CuPy's
}


@pytest.mark.parametrize("source", [*MODULES, *PLUGIN_MODULES], ids=name)
def test_python_reads_variables_as_the_core_does(source: Path) -> None:
    read = re.findall(r"environ(?:\.get\(|\[)\s*\"(\w+)\"[\]),](?!\s*=[^=])|getenv", source.read_text())
    allowed = next((names for path, names in READERS_OF_THE_ENVIRONMENT.items() if str(source).endswith(path)), set())
    assert set(read) <= allowed, "cenote._core.environment.environment_variable() reads variables"


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_files_are_opened_for_writing_where_links_are_looked_at(source: Path) -> None:
    if source.stem not in {"output_file", "file_parking"}:  # a file without a name, which no link can stand for
        opens = re.search(r"\b(fopen|freopen|creat|ofstream|O_WRONLY|O_RDWR)\b", COMMENT.sub("", source.read_text()))
        assert opens is None, "output_file and open_for_writing() open files"


@pytest.mark.parametrize("source", SOURCES, ids=name)
def test_mutexes_are_those_that_a_forked_child_does_not_wait_for(source: Path) -> None:
    plain = re.findall(r"std::\w*mutex \w+", COMMENT.sub("", source.read_text()))
    allowed = {"driver.cpp": ["std::mutex loading"]}.get(source.name, [])  # a child gets a new one
    assert source.parent.name == "ground" or plain == allowed, "ground/mutex.hpp has the others"
