"""Brings a database's schema to the newest step; also for the Alembic commands that developers run."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

FOLDER: Final = Path(__file__).parent.parent / "migrations"


def config(url: str | None) -> Config:
    """Alembic's configuration for the database at *url*."""
    found = Config()
    found.set_main_option("script_location", str(FOLDER))
    found.set_main_option("file_template", "%%(year)d-%%(month).2d-%%(day).2d-%%(hour).2d%%(minute).2d_%%(slug)s")
    found.set_main_option("timezone", "utc")
    found.attributes["url"] = url
    return found


def upgrade(url: str) -> None:
    """Bring the database at *url* to the newest step; does nothing if it is there."""
    command.upgrade(config(url), "head")
