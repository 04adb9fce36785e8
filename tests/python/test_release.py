"""What a release says of itself: one version, one home, and a README whose links lead somewhere from anywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import readme_of_release

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
FORGE = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HOME = PROJECT["urls"]["Source"]
HOMES = re.compile(r"https://(?:github\.com/([\w-]+)/cenote|([\w-]+)\.github\.io/cenote)\b")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def read_yaml(name: str) -> Any:
    return yaml.safe_load(text(name))


def version() -> str:
    numbers = re.findall(r"VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", text("core/cpp/cenote/ground/version.h"))
    return ".".join(numbers)


def newest_release() -> tuple[str, str]:
    found = re.search(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", text("CHANGELOG.md"), re.MULTILINE)
    assert found is not None
    return found[1], found[2]


def test_version_is_the_newest_one_of_the_changelog() -> None:
    assert newest_release()[0] == version()


def test_citation_has_the_version_and_its_date() -> None:
    citation = read_yaml("CITATION.cff")
    assert (citation["version"], str(citation["date-released"])) == newest_release()


def test_conda_recipe_has_the_version_and_what_the_package_needs() -> None:
    recipe = read_yaml(".ci/conda/recipe.yaml")
    assert recipe["context"]["version"] == version()
    needed = {re.sub(r"(?<=\w)(?=[<>=])", " ", each) for each in PROJECT["dependencies"]}
    assert {f"python {PROJECT['requires-python']}", *needed} == set(recipe["requirements"]["run"])


def test_nothing_names_another_home() -> None:
    owner = HOME.split("/")[-2]
    files = [ROOT / name for name in ("CITATION.cff", "pyproject.toml", ".ci/conda/recipe.yaml", "docs/conf.py")]
    files += [path for path in FORGE.rglob("*") if path.is_file()]
    named = {(path.name, "".join(home)) for path in files for home in HOMES.findall(path.read_text(encoding="utf-8"))}
    assert len(named) > 5
    assert {owner for _, owner in named} == {owner}


def test_links_of_the_readme_lead_to_the_release_on_the_forge() -> None:
    readme = readme_of_release.dynamic_metadata({}, {"urls": PROJECT["urls"], "version": "1.2.3"})["readme"]["text"]
    links = re.findall(r"\]\(([^)]+)\)", readme)
    ours = [link for link in links if link.startswith(HOME)]
    assert len(ours) > 5
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    for link in ours:
        file = re.fullmatch(rf"{HOME}/(?:blob|raw)/v1\.2\.3/([^#]+)(#.*)?", link)
        assert file is not None, link
        assert (ROOT / file[1]).exists(), link
    assert "pip install 'cenote[cli]' && cenote demo" in readme


@pytest.mark.parametrize(
    ("relative", "absolute"),
    [
        ("[a](b/c.md#d)", "[a](h/blob/v1/b/c.md#d)"),
        ("![a](b.png)", "![a](h/raw/v1/b.png)"),
        ("[a](https://b) [c](#d) `e(f)`", "[a](https://b) [c](#d) `e(f)`"),
    ],
)
def test_link_becomes_absolute(relative: str, absolute: str) -> None:
    assert readme_of_release.absolute_links(relative, "h", "v1") == absolute


def test_classifiers_and_wheels_are_for_the_same_versions_of_python() -> None:
    minor = [int(v) for v in re.findall(r"Python :: 3\.(\d+)", "\n".join(PROJECT["classifiers"]))]
    assert minor == list(range(minor[0], minor[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minor[0]}"


def test_forms_for_faults_ask_for_the_machine_and_a_trace() -> None:
    for name in ("bug", "out-of-memory"):
        fields = {each.get("id"): each for each in read_yaml(f".github/ISSUE_TEMPLATE/{name}.yml")["body"]}
        assert "cenote info --json" in fields["info"]["attributes"]["label"]
        assert fields["info"]["validations"]["required"]
        assert "CENOTE_RECORDER_FILE" in fields["trace"]["attributes"]["description"]


@pytest.mark.parametrize("workflow", sorted(FORGE.glob("workflows/*.yml")), ids=lambda path: path.stem)
def test_workflow_may_read_alone_and_ends(workflow: Path) -> None:
    described = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert described["permissions"] == {"contents": "read"}
    for job in described["jobs"].values():
        assert job["timeout-minutes"] <= 360
