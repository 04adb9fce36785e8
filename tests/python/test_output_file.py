"""Files that Python writes in one go: whole, and where the user meant them to be."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cenote.logs._output_file import write_whole


def test_content_replaces_what_was_there(tmp_path: Path) -> None:
    for content in (b"long content", b"short", b""):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content


def test_content_of_one_of_many_writers_is_there_whole(tmp_path: Path) -> None:
    contents = [bytes([number]) * size for number, size in enumerate((10, 300_000, 1_000, 2_000_000))]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(10):
            list(threads.map(lambda content: write_whole(tmp_path / "file", content), contents))
            assert (tmp_path / "file").read_bytes() in contents


def test_full_disk_is_an_error_with_the_files_name() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_whole("/dev/full", b"content")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small disk")
def test_full_disk_keeps_no_part_of_the_content(tmp_path: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(OSError, match=r"No space left on device: .*page"):
            write_whole(tmp_path / "page", bytes(1 << 20))
        assert (tmp_path / "page").stat().st_size == 0
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_own_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("../target")
    write_whole(tmp_path / "folder" / "link", b"content")
    assert (tmp_path / "target").read_bytes() == b"content"
    assert (tmp_path / "folder" / "link").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make another user's link")
def test_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("precious")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(OSError, match="another user has made") as caught:
        write_whole(tmp_path / "link", b"content")
    assert caught.value.filename == str(tmp_path / "link")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_stdout_keeps_what_it_has(tmp_path: Path, run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        f"""
        import os
        from cenote.logs._output_file import write_whole
        file = os.open({str(tmp_path / "out")!r}, os.O_WRONLY | os.O_CREAT)
        os.write(file, b"before,")
        os.dup2(file, 1)
        write_whole("/dev/stdout", b"content")
        """
    )
    assert (tmp_path / "out").read_bytes() == b"before,content"


def test_what_a_process_has_open_is_written_by_the_kernels_name_for_it(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, (tmp_path / "out").open("w+b", buffering=0) as file:
        file.write(b"before,")
        (tmp_path / "out").unlink()
        for folder in (f"/proc/{os.getpid()}/fd", "/proc/thread-self/fd", "/dev/fd/"):
            write_whole(f"{folder}/{writer}", b"content")
            assert os.read(reader, 100) == b"content"
            write_whole(f"{folder}/{file.fileno()}", b"content,")
        os.close(writer)
        assert pipe.read() == b""
        file.seek(0)
        assert file.read() == b"before," + 3 * b"content,"


def test_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        write_whole(tmp_path / "no" / "file", b"")
    assert missing.value.filename == str(tmp_path / "no" / "file")
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, b"")
    with pytest.raises(ValueError, match="null character"):
        write_whole("a\0b", b"")
