"""callsheet files prune: let go of files for inputs whose time is over."""

import asyncio

from app.cli.database import database_url
from app.db import Database
from app.files.pruner import prune_all
from app.media.storage import Storage
from app.settings import Settings


def prune() -> None:
    """Delete the files that no order named for FILES_KEPT_DAYS, and what broken uploads left; never one in use."""
    settings = Settings.read()
    url = database_url(settings)

    async def run() -> int:
        db = Database(url, pool=1)
        storage = Storage(settings.storage_url, settings.data / "outputs")
        try:
            return await prune_all(db, storage)
        finally:
            await db.close()

    print(f"{asyncio.run(run())} files deleted.")
