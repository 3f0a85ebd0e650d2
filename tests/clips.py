"""fal's test videos, made once for all simulators of a process: to encode one takes longer than most tests."""

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

CLIPS = "*x*-*s-*.mp4"


@contextmanager
def shared(data_dir: Path) -> Iterator[None]:
    """A simulator on *data_dir*, begun and ended in this block, finds what others made, and leaves what it made."""
    files = data_dir / "files"
    files.mkdir(parents=True, exist_ok=True)
    _lay(_kept(), files)
    yield
    _lay(files, _kept())


def _lay(source: Path, into: Path) -> None:
    for clip in source.glob(CLIPS):
        if not (into / clip.name).exists():
            # Not linked: a test may break its own.
            shutil.copyfile(clip, into / clip.name)


@cache
def _kept() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="callsheet-clips-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
