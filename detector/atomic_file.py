"""Files that are whole or not there: written under a temporary name, renamed when complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def temporary_name(path: str | Path) -> Iterator[Path]:
    """A name beside `path` to write to, with its suffix; the file moves to `path` if the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; results are ordinary ones
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[TextIO]:
    """A text file to write (UTF-8, line ends as given) that appears at `path` only when complete."""
    with temporary_name(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def _umask() -> int:
    umask = os.umask(0)  # there is no way to ask without setting
    os.umask(umask)
    return umask
