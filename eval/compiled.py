"""Functions that numba compiles, and where their machine code is kept from run to run.

numba itself keeps it by the file a function stands in: after a change in another file, of what the function calls or
of a constant it reads, the old code would go on running. So here it lies in a folder that is named by a digest of all
files of the package, and a compiled function may use what is compiled in, or constant of, its own package only.
"""

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config
from numba.misc.appdirs import AppDirs

_settings: Any = config  # a module whose names are set as it reads the environment
_decorating = threading.Lock()  # one at a time, since numba takes the folder from its global settings


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Decorator: numba's `njit` that lets other threads run, and keeps what it compiles where it can.

    Args:
        options: Further ones of `njit`.
    """
    if function is None:
        return partial(compiled, **options)
    folder = folder_of(Path(function.__code__.co_filename).parent)
    with _decorating:
        before, _settings.CACHE_DIR = _settings.CACHE_DIR, str(folder or "")
        try:
            return njit(function, nogil=True, cache=folder is not None, **options)
        finally:
            _settings.CACHE_DIR = before


@cache
def folder_of(package: Path) -> Path | None:
    """Where the compiled functions of a package are kept, made now: `compiled-...` in the first place that takes it.

    These are $NUMBA_CACHE_DIR if there is one, the package's own `__pycache__`, numba's folder of the user. Without any
    (None) each process compiles anew. Those of older sources are removed from `__pycache__`; elsewhere they may belong
    to another copy of the package, and stay.
    """
    digest = hashlib.sha256()
    for file in filter(Path.is_file, sorted(package.glob("*.py"))):  # an editor's locks are links to nowhere
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    name = f"compiled-{digest.hexdigest()[:16]}"
    own = package / "__pycache__"
    users = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    for place in (Path(_settings.CACHE_DIR or own).absolute(), own, users):
        folder = place / name
        if not place.is_absolute():  # that of a user without a home
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        if place == own:
            for other in own.glob("compiled-*"):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        return folder
    return None
