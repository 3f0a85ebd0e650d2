"""How commands end in trouble: one clear line on stderr and an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    JOB_NOT_SUCCEEDED = 1
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
    from sqlalchemy.exc import OperationalError, ProgrammingError  # noqa: PLC0415 - slow to import

    from app.catalog.reading import CatalogError  # noqa: PLC0415
    from app.postgres import PostgresError  # noqa: PLC0415
    from app.settings import SettingsError  # noqa: PLC0415

    try:
        yield
    except Trouble as trouble:
        _leave(str(trouble), trouble.code)
    except (SettingsError, CatalogError, PostgresError) as error:
        _leave(str(error), Exit.REFUSED)
    except OperationalError as error:
        first, *_ = str(error.orig).splitlines()
        _leave(f"The database can't be reached: {first}", Exit.UNREACHABLE)
    except ProgrammingError:
        _leave("The database has not the tables this version needs; run `callsheet migrate` first.", Exit.REFUSED)
    except KeyboardInterrupt:
        _leave("Stopped.", Exit.REFUSED)


def _leave(text: str, code: Exit) -> None:
    print(text, file=sys.stderr)
    raise SystemExit(code)
