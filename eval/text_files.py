"""Text files that people and spreadsheets write."""

from pathlib import Path


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without the mark that some programs begin it with.

    Raises:
        OSError, ValueError: No such file, or no UTF-8 in it; the sentence names it.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def refuse_pipe(path: str | Path) -> None:
    """Refuse what can only be read once and from its beginning, where a file is looked at more than that.

    Raises:
        ValueError: In one sentence.
    """
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise ValueError(f"{path}: is a pipe or device, give a file (gzipped ones are read, too)")
