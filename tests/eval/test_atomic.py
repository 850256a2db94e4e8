"""Files that appear when they are complete, also where the name is a link, a pipe or a device."""

import contextlib
import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from eval.atomic import writing


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    real, link, pipe = tmp_path / "deep" / "real.txt", tmp_path / "link.txt", tmp_path / "pipe"
    link.symlink_to(real)
    for content in ("one", "two"):  # the first through a link to nowhere
        with writing(link) as file:
            file.write(content)
        assert link.is_symlink() and real.read_text() == content
    assert [path.name for path in real.parent.iterdir()] == ["real.txt"]
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with writing(pipe) as file:
        file.write("three")
    assert os.read(reading, 99) == b"three" and pipe.is_fifo()
    os.close(reading)
    with pytest.raises(IsADirectoryError, match="deep: is a folder"), writing(tmp_path / "deep"):
        pass


def test_a_new_file_has_the_usual_rights_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    secret, usual, opened = tmp_path / "secret.txt", tmp_path / "usual.txt", tmp_path / "opened.txt"
    secret.touch(0o600)
    opened.write_text("")
    for path in (secret, usual):
        with writing(path) as file:
            file.write("new")
    assert secret.read_text() == "new" and secret.stat().st_mode & 0o777 == 0o600
    assert usual.stat().st_mode == opened.stat().st_mode


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    with writing(tmp_path / ("x" * 251 + ".txt")) as file:
        file.write("new")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_a_folder_that_takes_no_file_is_told_by_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "random")  # root would not be refused

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError) as caught, writing(tmp_path / "result.json"):
        pass
    assert caught.value.filename == str(tmp_path / "result.json")


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
def test_where_we_print_to_is_not_replaced(tmp_path: Path) -> None:
    # What /dev/stdout points to; that itself could be replaced, by root, if this went wrong.
    code = "from eval.atomic import writing\nwith writing('/proc/self/fd/1') as file:\n    file.write('x')"
    for name in ("out.txt", None):
        with (tmp_path / "out.txt").open("w") if name else contextlib.nullcontext(subprocess.PIPE) as output:
            done = subprocess.run(
                [sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
        assert ("what this program prints goes into this file" in done.stderr) == bool(name)
    assert done.stdout == "x"
