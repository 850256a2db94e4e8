"""The manners every command line of this project shares: one clear sentence instead of a traceback."""

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

BAD_INPUT = 2  # exit code: nothing was done, the input has to change
PARTLY_DONE = 1  # exit code: some of the inputs failed, the rest is done
INTERRUPTED = 130  # exit code: stopped by Ctrl-C (the shell's convention, 128 + SIGINT)

Files = Iterable[tuple[str, str | Path]]  # each after the option that means it, without its dashes


def run(command: Callable[[], int]) -> int:
    """Run `command` and return its exit code.

    `ValueError` and `OSError` are how this project's packages report bad input: their message becomes one
    line on stderr and the exit code 2. Any other exception is a defect of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):  # a file's name may hold bytes that are no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _reader_gone()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich turns it into an exit with 1
            return _reader_gone()
        raise
    except (ValueError, OSError) as error:
        print(f"error: {one_sentence(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _reader_gone() -> int:
    """The exit code where the reader of our output (`| head`) has gone, which is not an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def one_sentence(error: BaseException) -> str:
    """The message of `error` on one line, in words a user understands."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        # Where a file got its final name, the second is what the user called it.
        return f"{os.fsdecode(error.filename2 or error.filename)}: {error.strerror.lower()}"
    return " ".join(str(error).split()) or type(error).__name__


def check_outputs(outputs: Files, inputs: Files) -> None:
    """Refuse results that would take the place of what is read, or of one another.

    Raises:
        ValueError: Two options mean the same file, whatever way their paths take.
    """
    taken = {os.path.realpath(path): option for option, path in inputs}
    for option, path in outputs:
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option:
            raise ValueError(f"{path}: --{option} would take the place of the file of --{other}")


def check_file(path: str | Path, option: str) -> None:
    """Refuse a folder where an option names a file for results, and a file of a folder that is not there."""
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: --{option} is a folder, not a file to write to")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {Path(path).parent} to write it to")


def check_folder(path: str | Path, option: str = "output") -> None:
    """Refuse a file where an option names a folder for results."""
    if Path(path).exists() and not Path(path).is_dir():
        raise ValueError(f"--{option} {path}: is a file, name a folder")


# How jsonargparse says that a value is of none of several types.
_UNION = re.compile(
    r"Does not validate against any of the Union subtypes Subtypes: [\[(](.*?)[\])] Errors: .*?"
    r"Given value type: .*? Given value: (.*)$"
)
_TYPES = {"<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'NoneType'>": "null"}


def _expected(found: re.Match[str]) -> str:
    types = found[1]
    for kind, words in _TYPES.items():
        types = types.replace(kind, words)
    return f"expected {types.replace(', ', ' or ')}, not {found[2]}"


class ArgumentParser(jsonargparse.ArgumentParser):
    """Parser of options and YAML files that complains in one line, like `run`."""

    _file = ""  # that is being read, before what is wrong with it

    def parse_path(
        self, path: str | os.PathLike[str], *arguments: Any, **more: Any
    ) -> jsonargparse.Namespace:
        """The options in a file."""
        self._file = f"{path}: "
        try:
            found = super().parse_path(path, *arguments, **more)
            # now: when all options are looked at together, nobody knows where one is from
            self.validate(found, skip_required=True)
            return found
        except (TypeError, KeyError) as error:
            self.error(str(error))
        except UnicodeDecodeError:
            self.error("is no text")
        finally:
            self._file = ""

    def format_help(self, *arguments: Any, **more: Any) -> str:
        """The help, most of it docstrings for Python: of its None the command line and YAML files say null."""
        return re.sub(r"\bNone\b", "null", super().format_help(*arguments, **more))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong with the command line or the file and exit with 2."""
        print(f"error: {self.complaint(message)}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)

    def complaint(self, message: str) -> str:
        """What jsonargparse says is wrong, on one line, in words a user understands."""
        text = " ".join(message.split()).replace(' in "<unicode string>"', "")
        if text.startswith("Unexpected config:"):  # and then all of it
            text = "has no options in it, expected lines `option: value`"
        text = re.sub(
            r'expected "command" to be one of .*, but it was not provided\.', "name a command", text
        )
        return self._file + _UNION.sub(_expected, text)

    def _check_value_key(
        self, action: argparse.Action, value: Any, key: str, *arguments: Any, **more: Any
    ) -> Any:
        """Of `image: photo.jpg` in a file jsonargparse itself says neither the option nor what would be right."""
        if action.nargs == "+" and isinstance(value, str | float | int):
            raise TypeError(
                f'Parser key "{key}": takes several values and has a single one: write it as a [list]'
            )
        return super()._check_value_key(action, value, key, *arguments, **more)
