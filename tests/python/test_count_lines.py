"""The figures of the README: files and lines of the C++ API and of the pool."""

from __future__ import annotations

import count_lines
import pytest


def test_readme_has_the_figures_of_now() -> None:
    readme = count_lines.README.read_text(encoding="utf-8")
    assert count_lines.replace_table(readme) == readme, "python docs/count_lines.py --write"


def test_pool_is_one_header_and_one_source_and_all_that_they_include() -> None:
    files = count_lines.pool_files()
    assert files[:2] == [f"{count_lines.POOL}.hpp", f"{count_lines.POOL}.cpp"]
    assert len(files) == len(set(files)) > 2
    for file in files:
        of_folders = {
            h for h in count_lines.includes(count_lines.CORE / file) if h.startswith(count_lines.POOL_FOLDERS)
        }
        assert of_folders <= set(files)


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", 0), ("// a\n\nint a;  // b\n", 1), ("/* a\n * b\n */\nint a; /* c */\n}\n", 2), ('"http://";\n', 1)],
)
def test_comments_and_empty_lines_are_no_code(text: str, lines: int) -> None:
    assert count_lines.lines_of_code(text) == lines


def test_readme_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="the README has no lines"):
        count_lines.replace_table("# cenote\n")
