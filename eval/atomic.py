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

    After an error nothing new is left and an older file of that name is untouched. A link stays one, what it points
    to is replaced. A device or pipe (/dev/null, /dev/stdout) is no file that could be: it is given to write to itself.

    Raises:
        OSError: There is no folder to write it to, `path` is a folder, or what this program prints goes there.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{target}: is a folder, not a file to write to")
    if target.exists() and not target.is_file():
        yield target
        return
    if _is_our_output(target):
        raise FileExistsError(f"{target}: what this program prints goes into this file")
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent} to write it to")
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".new-", suffix=".part")
    except OSError as error:  # which names the temporary file, of which nobody knows
        raise OSError(error.errno, error.strerror, str(target)) from error
    os.close(descriptor)
    try:
        yield Path(name)
        # mkstemp makes files for the owner only; give this one the rights that open() would leave it or give it.
        Path(name).chmod(target.stat().st_mode & 0o777 if target.exists() else _rights_of_a_new_file())
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _rights_of_a_new_file() -> int:
    mask = os.umask(0)  # there is no other way to ask
    os.umask(mask)
    return 0o666 & ~mask


def _is_our_output(target: Path) -> bool:
    """Whether standard output was redirected into this file, which a new one would take the place of."""
    try:
        return os.path.samestat(target.stat(), os.fstat(1))
    except OSError:  # no such file yet, or nothing to print to
        return False


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
