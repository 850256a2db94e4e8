"""Files that appear when they are complete, also where the name is a link, a pipe or a device."""

import contextlib
import os
import subprocess
import sys
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
