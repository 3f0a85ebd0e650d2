"""Brings a database's schema to the newest step; also for the Alembic commands that developers run."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg

if TYPE_CHECKING:
    from alembic.config import Config

FOLDER: Final = Path(__file__).parent.parent / "migrations"
STEP: Final = re.compile(r'^(down_)?revision = "(\w+)"', re.MULTILINE)


def config(url: str | None) -> "Config":
    """Alembic's configuration for the database at *url*."""
    from alembic.config import Config  # noqa: PLC0415 - takes a tenth of the start, and mostly for nothing

    found = Config()
    found.set_main_option("script_location", str(FOLDER))
    found.set_main_option("file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s")
    found.set_main_option("timezone", "utc")
    found.attributes["url"] = url
    return found


def upgrade(url: str) -> None:
    """Bring the database at *url* to the newest step; does nothing if it is there."""
    if _steps_of(url) == newest():
        return
    from alembic import command  # noqa: PLC0415

    command.upgrade(config(url), "head")


def newest() -> set[str]:
    """The step that no other one follows."""
    texts = (path.read_text(encoding="utf-8") for path in (FOLDER / "versions").glob("*.py"))
    named = [step for text in texts for step in STEP.findall(text)]
    return {step for down, step in named if not down} - {step for down, step in named if down}


def _steps_of(url: str) -> set[str]:
    """Where the database is; empty if it can't say."""
    dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
    except psycopg.Error:
        return set()
