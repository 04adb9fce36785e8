"""The command as its users meet it: each test runs it in fresh processes, on the simulated device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cenote import trace

PNG = b"\x89PNG\r\n\x1a\n"


def cenote(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m cenote``; it must not end in a traceback, whatever the test is about."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CENOTE_")}
    done = subprocess.run(
        [sys.executable, "-m", "cenote", *map(str, arguments)],
        cwd=cwd,
        env={**inherited, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


def without(tmp_path: Path, *modules: str) -> str:
    """A PYTHONPATH on which these modules cannot be imported."""
    for module in modules:
        folder = tmp_path / "blocked" / module
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(f"raise ImportError('{module} is blocked')\n")
    return str(tmp_path / "blocked")


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"CENOTE_CUDA_DRIVER": "sim"}])
def test_simulated_demo_says_so_first_and_leaves_logs_and_timeline(tmp_path: Path, environment: dict[str, str]) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated" in done.stdout.splitlines()[0]
    assert "pytorch (recorded)" in done.stdout
    folder = tmp_path / "cenote-demo"
    assert (folder / "timeline.png").read_bytes().startswith(PNG)
    assert len(trace.read(folder / "allocations.dev0.csv")) == 2 * (13_098 + 1)
    lines = (folder / "held.dev0.csv").read_text().splitlines()[1:]
    held = [int(line.split(",")[1]) for line in lines]
    peak = int(trace.bytes_in_use(trace.read(folder / "allocations.dev0.csv")).max())
    assert 0 < min(held) < peak <= max(held) <= 1.1 * peak + (2 << 20)
    assert "Its pool: statistics | logging" in done.stdout and "pool | virtual" in done.stdout


@pytest.mark.slow
def test_demo_without_a_driver_is_simulated_and_says_why(tmp_path: Path) -> None:
    done = cenote("demo", cwd=tmp_path, CENOTE_CUDA_DRIVER="/no/such/libcuda.so.1")
    assert done.returncode == 0
    assert "simulated" in done.stdout.splitlines()[0]
    assert "/no/such/libcuda.so.1" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("missing", [("rich",), ("matplotlib",), ("rich", "matplotlib")])
def test_demo_without_rich_or_matplotlib_still_reports(tmp_path: Path, missing: tuple[str, ...]) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, PYTHONPATH=without(tmp_path, *missing))
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated" in done.stdout.splitlines()[0]
    assert "pytorch (recorded)" in done.stdout
    assert ("pip install 'cenote[cli]'" in done.stdout) == ("matplotlib" in missing)
    assert (tmp_path / "cenote-demo" / "timeline.png").exists() == ("matplotlib" not in missing)


@pytest.mark.slow
def test_demo_replays_a_trace_of_the_users_into_a_folder_of_theirs(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,00:00:00.000001,allocate,0x10,1000000,0x5\n")
    done = cenote("demo", "--simulate", "--trace", own, "--output", "some/where, else", cwd=tmp_path)
    assert done.returncode == 0
    assert "own.csv" in done.stdout
    assert (tmp_path / "some" / "where, else" / "timeline.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_demo_on_an_empty_trace_works(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("Thread,Time,Action,Pointer,Size,Stream\n")
    assert cenote("demo", "--simulate", "--trace", empty, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_demo_on_a_card_too_small_says_where_memory_ran_out(tmp_path: Path) -> None:
    done = cenote("demo", "--simulate", cwd=tmp_path, CENOTE_SIM="memory=4GiB")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "of 26,194" in done.stderr


@pytest.mark.parametrize("command", ["demo", "replay"])
def test_bad_trace_is_one_line_and_exit_status_2(tmp_path: Path, command: str) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,noon,allocate,0x1,1,0\n")
    done = cenote(command, *(("--trace",) if command == "demo" else ()), bad, "--simulate", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{bad}, line 2: 'noon' is not a time" in line


@pytest.mark.slow
def test_device_that_is_not_there_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    done = cenote("demo", "--simulate", "--device", 3, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "there is no device 3" in line
    assert cenote("demo", "--simulate", "--device", 3, cwd=tmp_path, CENOTE_SIM="devices=4").returncode == 0


def test_output_that_cannot_be_written_is_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = cenote("demo", "--simulate", "--output", "file/folder", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_info_is_json_with_stable_keys(tmp_path: Path) -> None:
    done = cenote("info", "--json", cwd=tmp_path, CENOTE_CUDA_DRIVER="sim", CENOTE_SIM="devices=2,memory=24GiB")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert set(facts) == {"cenote", "python", "driver", "environment", "devices", "frameworks"}
    assert [each["error"] for each in facts["environment"]] == [None, None]
    assert facts["driver"]["simulated"] is True
    assert facts["driver"]["devices"] == len(facts["devices"]) == 2
    assert facts["devices"][1]["total_bytes"] == 24 * 1024**3
    assert facts["devices"][1]["resource"] == "cuda"
    names = [each["name"] for each in facts["frameworks"]]
    assert names[:6] == ["torch", "cupy", "numba.cuda", "cuda.core", "rmm", "warp"] and "jax" in names
    assert all(each["way"] and each["needs"].startswith("pip install ") for each in facts["frameworks"])


SIMULATED = {"CENOTE_CUDA_DRIVER": "sim"}


@pytest.mark.slow
@pytest.mark.parametrize(("there", "said"), [(1, "maps pages"), (0, "takes chunks")])
def test_info_says_of_each_device_whether_a_pool_maps_pages(tmp_path: Path, there: int, said: str) -> None:
    settings = SIMULATED | {"CENOTE_SIM": f"memory=24GiB,virtual_memory={there}"}
    shown = cenote("info", cwd=tmp_path, **settings).stdout
    assert said in shown
    assert ("UCX, NIXL, MPI and GPUDirect" in shown and "'pool | cuda'" in shown) == bool(there)
    facts = json.loads(cenote("info", "--json", cwd=tmp_path, **settings).stdout)
    assert facts["devices"][0]["virtual_memory"] is bool(there)


def test_info_without_a_driver_says_what_is_missing(tmp_path: Path) -> None:
    nowhere = {"CENOTE_CUDA_DRIVER": "sim", "CENOTE_SIM": "devices=0"}
    done = cenote("info", cwd=tmp_path, **nowhere)
    assert done.returncode == 0
    assert "No driver" in done.stdout
    facts = json.loads(cenote("info", "--json", cwd=tmp_path, **nowhere).stdout)
    assert facts["driver"]["available"] is False
    assert "no device" in facts["driver"]["error"]
    assert facts["devices"] == []


WRONG_VARIABLES = {
    "CENOTE_AS_RMM": "yes",
    "CENOTE_CAPTURES": "anounced",
    "CENOTE_CUDA_DRIVER": "/no/such/libcuda.so.1",
    "CENOTE_DEBUG_LOG_FILE": "no/such/folder/log.txt",
    "CENOTE_LOG_FILE": "no/such/folder/log.csv",
    "CENOTE_LOG_LEVEL": "loud",
    "CENOTE_NVTX": "off",
    "CENOTE_RESOURCE": "lake | cuda",
    "CENOTE_RESORCE": "cuda",
    "CENOTE_SIM": "devices=many",
    "RMM_DEBUG_LOG_FILE": "no/such/folder/log.txt",
    "RMM_LOG_FILE": "no/such/folder/log.csv",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), WRONG_VARIABLES.items())
def test_info_names_each_variable_that_is_wrong_with_exit_status_2(tmp_path: Path, name: str, value: str) -> None:
    done = cenote("info", "--json", cwd=tmp_path, **(SIMULATED | {name: value}))
    assert done.returncode == 2
    (wrong,) = [each for each in json.loads(done.stdout)["environment"] if each["error"] is not None]
    assert (wrong["name"], wrong["value"]) == (name, value)
    shown = cenote("info", cwd=tmp_path, **(SIMULATED | {name: value}))
    assert shown.returncode == 2
    assert name in shown.stdout


@pytest.mark.slow
def test_info_shows_no_resource_as_current_where_none_can_be_made(tmp_path: Path) -> None:
    for text in ("lake | cuda", "pool:max= | cuda", "pool:initial=12x", "statistics|" * 200 + "cuda"):
        done = cenote("info", "--json", cwd=tmp_path, **SIMULATED, CENOTE_RESOURCE=text)
        (device,) = json.loads(done.stdout)["devices"]
        assert (done.returncode, device["resource"]) == (2, None), text
        assert device["error"].startswith("CENOTE_RESOURCE: "), text


def test_variable_that_is_empty_counts_as_not_set(tmp_path: Path) -> None:
    empty = dict.fromkeys(WRONG_VARIABLES, "") | SIMULATED
    done = cenote("info", "--json", cwd=tmp_path, **empty)
    assert (done.returncode, done.stderr) == (0, "")
    assert [each["name"] for each in json.loads(done.stdout)["environment"]] == ["CENOTE_CUDA_DRIVER"]
    assert json.loads(done.stdout)["devices"][0]["resource"] == "cuda"


@pytest.mark.parametrize("columns", ["0", "1", "-5", "nonsense", "", "9" * 30, "\u00b2", "10.5"])
@pytest.mark.parametrize("missing", [(), ("rich",)])
def test_nonsense_about_the_terminal_keeps_nothing_back(tmp_path: Path, columns: str, missing: tuple[str, ...]) -> None:
    blocked = {"PYTHONPATH": without(tmp_path, *missing)} if missing else {}
    done = cenote("info", cwd=tmp_path, **SIMULATED, **blocked, COLUMNS=columns, LINES=columns, TERM="nonsense")
    assert (done.returncode, done.stderr) == (0, "")
    assert "compute capability" in done.stdout
    assert "80.00 GiB free of" in done.stdout


OPTIONS = [
    ("replay", "--limit"),
    ("replay", "--resource"),
    ("replay", "--output"),
    ("replay", "--device"),
    ("demo", "--output"),
    ("demo", "--trace"),
    ("demo", "--device"),
]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_option_given_empty_is_named_with_exit_status_2(tmp_path: Path, command: str, option: str) -> None:
    traces = (trace.example(),) if command == "replay" else ()
    done = cenote(command, *traces, "--simulate", option, "", cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument {option}: " in done.stderr
    assert done.stdout == ""


def test_empty_name_of_a_trace_is_named(tmp_path: Path) -> None:
    done = cenote("replay", "", "--simulate", cwd=tmp_path)
    assert done.returncode == 2
    assert "argument TRACE: a name is needed" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(
            ("--limit", text)
            for text in ("1MiB | managed", "8GiB,initial=1", "lots", "-1", "101%", "nan%", "1e9", "50 %")
        ),
        *(("--resource", text) for text in ("pool:max=", "pool:max=lots", "cuda | pool", "x" * 5000)),
        *(("--output", text) for text in ("run", "run.jpg", "run.csv", ".png", "run.png/")),
        *(("--device", text) for text in ("-1", "one", "0x1", "9" * 400, "1.0")),
    ],
)
def test_option_that_is_wrong_is_named_before_anything_is_done(tmp_path: Path, option: str, value: str) -> None:
    done = cenote("replay", trace.example(), "--simulate", f"{option}={value}", cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument {option}: " in done.stderr
    assert len(done.stderr) < 1500
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_info_imports_no_framework(tmp_path: Path) -> None:
    """Broken frameworks do not break it: it looks at what is installed, and imports nothing of it."""
    blocked = without(tmp_path, "torch", "cupy", "numba")
    assert cenote("info", cwd=tmp_path, PYTHONPATH=blocked).returncode == 0


@pytest.mark.slow
def test_replay_reports_and_draws(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--limit", "12GiB", "--output", "run.png", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7.46 GiB" in done.stdout
    assert (tmp_path / "run.png").read_bytes().startswith(PNG)


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "begins"), [("png", PNG), ("svg", b"<?xml"), ("PDF", b"%PDF")])
def test_replay_draws_what_the_ending_says(tmp_path: Path, ending: str, begins: bytes) -> None:
    small = tmp_path / "small.csv"
    small.write_text("Thread,Time,Action,Pointer,Size,Stream\n1,00:00:00.000001,allocate,0x10,1000000,0x5\n")
    done = cenote("replay", small, "--simulate", "--output", f"run.{ending}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / f"run.{ending}").read_bytes().startswith(begins)


@pytest.mark.parametrize("output", ["no/such/folder/run.png", "folder.png"])
def test_picture_that_cannot_be_written_is_told_before_the_replay(tmp_path: Path, output: str) -> None:
    (tmp_path / "folder.png").mkdir()
    done = cenote("replay", trace.example(), "--simulate", "--output", output, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


RECORDED = """\
Thread,Time,Action,Pointer,Size,Stream
1,00:00:00.000001,allocate,0x1000,1000,0
1,00:00:00.000002,allocate failure,(nil),10737418240,0
1,00:00:00.000003,free,0x9999000,5000,0
1,00:00:00.000004,free,0x1000,500,0
"""


@pytest.mark.parametrize("command", ["demo", "replay"])
def test_replay_says_what_it_did_not_make(tmp_path: Path, command: str) -> None:
    recorded = tmp_path / "run.csv"
    recorded.write_text(RECORDED + "1,00:00:00.0000")
    done = cenote(command, *(("--trace",) if command == "demo" else ()), recorded, "--simulate", cwd=tmp_path)
    assert done.returncode == 0
    assert "Allocations that had failed in the recorded run: 1, the largest of 10.00 GiB" in done.stdout
    assert "Frees of blocks whose allocation is not in the trace: 1." in done.stdout
    assert "Frees of another size than their allocation, whose size is taken: 1." in done.stdout
    (line,) = done.stderr.splitlines()
    assert f"{recorded}, line 6: left out, as it is cut short" in line


def in_shell(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    run = f"{sys.executable} -m cenote"
    everything = {**os.environ, "COLUMNS": "100", "CENOTE_SIM": "devices=2", **environment}
    return subprocess.run(
        ["bash", "-c", command.replace("cenote", run)],
        cwd=cwd,
        env=everything,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    for arguments in ("info", "--help", "info --json"):
        done = in_shell(f"cenote {arguments} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
        assert done.returncode in (0, 1), arguments
        assert done.stderr == "", arguments


@pytest.mark.slow
def test_output_that_is_full_or_closed_is_an_error_in_one_line(tmp_path: Path) -> None:
    for redirection in (">/dev/full", ">&-"):
        for arguments in ("info", "--help", "--version"):
            done = in_shell(f"cenote {arguments} {redirection}", tmp_path)
            assert done.returncode == 1, (redirection, arguments)
            (line,) = done.stderr.splitlines()
            assert "output" in line, (redirection, arguments)


@pytest.mark.slow
def test_encoding_that_lacks_letters_keeps_nothing_back(tmp_path: Path) -> None:
    for command in (("info",), ("replay", trace.example(), "--simulate", "--limit", "12GiB"), ("--help",)):
        done = cenote(
            *command, cwd=tmp_path, PYTHONIOENCODING="ascii", CENOTE_CUDA_DRIVER="sim", CENOTE_SIM="name=k\u00e4rtchen"
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout, command


def test_replay_that_does_not_fit_is_exit_status_1(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--limit", "4GiB", cwd=tmp_path)
    assert done.returncode == 1
    assert "out of memory at event" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_wrong_specification_is_exit_status_2(tmp_path: Path) -> None:
    done = cenote("replay", trace.example(), "--simulate", "--resource", "lake | cuda", cwd=tmp_path)
    assert done.returncode == 2
    assert "'lake' is not a known resource" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("demo",), ("info",), ("replay",)])
def test_help_shows_examples(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = cenote(*arguments, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "examples:" in done.stdout


def test_no_command_shows_the_help_with_exit_status_2(tmp_path: Path) -> None:
    done = cenote(cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == cenote("--help", cwd=tmp_path).stdout


def test_page_that_is_no_html_is_refused_before_the_recording_is_read(tmp_path: Path) -> None:
    done = cenote("report", "page.pdf", "--recording", "none.rec", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "'page.pdf' is no page of HTML: write a name that ends with .html" in done.stderr


@pytest.mark.slow
def test_replay_takes_the_recording_that_a_run_has_left(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import cenote\n"
        "cenote.mr.set_current_device_resource(cenote.mr.from_spec('pool'))\n"
        "kept = [cenote.DeviceBuffer(size=1 << 20) for _ in range(7)]\n"
    )
    environment = {**os.environ, "CENOTE_CUDA_DRIVER": "sim", "CENOTE_RECORDER_FILE": "run.rec"}
    subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=environment, check=True)
    for options in ([], ["--resource", "cuda", "--resource", "pool"], ["--capacity", "min", "--resource", "pool"]):
        done = cenote("replay", "run.dev0.rec", "--simulate", *options, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "7.00 MiB" in done.stdout
