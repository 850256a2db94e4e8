"""Files that appear only when they are complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def temporary_name(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write to; it is renamed to `path` when the block ends well.

    It ends in `.part`, so that nobody who looks for files like `path` takes what a killed process left for one.

    After an error nothing new is left and an older file of that name is untouched.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent} to write it to")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(descriptor)
    try:
        yield Path(name)
        # mkstemp makes files for the owner only; give this one the rights that open() would have.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path) -> Iterator[TextIO]:
    r"""Open a UTF-8 text file that gets the name `path` when the block ends well.

    Bytes of file names that are no text, such as an old archive's, are written as Python escapes them (`\udce9`).
    """
    with (
        temporary_name(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file
