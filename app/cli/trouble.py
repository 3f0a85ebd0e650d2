"""How commands end in trouble: one clear line on stderr and an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    JOB_NOT_SUCCEEDED = FOUND = 1
    REFUSED = 2
    UNREACHABLE = 3


class Trouble(Exception):
    """Something a user can mend; its text says what and how."""

    def __init__(self, text: str, code: Exit = Exit.REFUSED) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Tell what a user can mend in plain words, and leave with its exit code."""
    try:
        yield
    except Trouble as trouble:
        _leave(str(trouble), trouble.code)
    except KeyboardInterrupt:
        _leave("Stopped.", Exit.REFUSED)
    except Exception as error:
        if isinstance(error, _raised("app.settings:SettingsError", "app.catalog.reading:CatalogError")):
            _leave(str(error), Exit.REFUSED)
        if isinstance(error, _raised("app.postgres:PostgresError")):
            _leave(str(error), Exit.REFUSED)
        if isinstance(error, _raised("sqlalchemy.exc:OperationalError")):
            _leave(f"The database can't be reached: {str(error).splitlines()[0]}", Exit.UNREACHABLE)
        if isinstance(error, _raised("sqlalchemy.exc:ProgrammingError")):
            _leave("The database has not the tables this version needs; run `callsheet migrate` first.", Exit.REFUSED)
        raise


def _raised(*names: str) -> tuple[type[BaseException], ...]:
    """The classes called *names*, as far as they are loaded: one that isn't can't have been raised."""
    parts = (name.split(":") for name in names)
    found = (getattr(sys.modules.get(module), name, None) for module, name in parts)
    return tuple(each for each in found if each is not None)


def _leave(text: str, code: Exit) -> None:
    print(text, file=sys.stderr)
    raise SystemExit(code)
