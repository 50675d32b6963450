"""Which folders are looked in, which of the user's folders have a name, and how a file appears whole or not at all."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pooch

from gapbench.spec import UserError

SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset-* packages install


def cache_folder() -> Path:
    """GAPBENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("GAPBENCH_CACHE") or pooch.os_cache("gapbench")).expanduser().absolute()


def data_folders(name: str) -> tuple[Path, ...]:
    """Folders of GAPBENCH_DATA in which `name` may lie, - and _ being equal; none when it is not set."""
    if not os.environ.get("GAPBENCH_DATA"):
        return ()
    root = Path(os.environ["GAPBENCH_DATA"]).expanduser().absolute()
    if not root.is_dir():
        raise UserError(f"GAPBENCH_DATA={root} is not a folder: make it, or unset the variable")
    return root / name, root / name.replace("_", "-"), root


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content appears at `path` whole, or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as stream:
            try:
                yield stream
                stream.close()
                os.replace(stream.name, path)
            except BaseException:
                os.unlink(stream.name)
                raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); set GAPBENCH_CACHE to a folder of yours"
        ) from error


def _registry() -> Path:
    return cache_folder() / "folders.json"


def registered() -> dict[str, str]:
    """The folders and archives added by name: name -> absolute path."""
    if not _registry().exists():
        return {}
    try:
        folders = json.loads(_registry().read_text())
        return {str(name): str(path) for name, path in folders.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{_registry()}: not readable ({error}); delete it and add your folders again") from error


def register(name: str, path: Path) -> None:
    """Remembers the absolute path of a folder or archive; a name given again points to the new path."""
    with written(_registry()) as stream:
        stream.write(json.dumps(registered() | {name: str(path)}, indent=1, sort_keys=True).encode())
