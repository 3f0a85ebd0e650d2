"""callsheet files prune: let go of files for inputs whose time is over."""

import asyncio

from app.cli.database import database_url
from app.db import Database
from app.files.pruner import prune as prune_some
from app.media.storage import Storage
from app.settings import Settings

AT_ONCE = 100


def prune() -> None:
    """Delete the files that no order named for FILES_KEPT_DAYS, and what broken uploads left; never one in use."""
    settings = Settings.read()
    url = database_url(settings)

    async def run() -> int:
        db = Database(url, pool=1)
        storage = Storage(settings.storage_url, settings.data / "outputs")
        removed = 0
        try:
            while some := await prune_some(db, storage, limit=AT_ONCE):
                removed += some
        finally:
            await db.close()
        return removed

    print(f"{asyncio.run(run())} files deleted.")
