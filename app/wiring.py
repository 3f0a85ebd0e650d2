"""Opens what a process needs (database, fal, HTTP) and closes it in reverse."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import httpx

from app.catalog.catalog import Catalog, load
from app.db import Database
from app.fal.client import FalClient
from app.fal.platform import Platform
from app.fal.signature import Verifier
from app.fal.storage import FalStorage
from app.files.inbox import Inbox
from app.files.reaching import Reach
from app.http import guarded_transport, new_client
from app.jobs import lifecycle
from app.jobs.dispatcher import Dispatcher
from app.jobs.reconciler import Reconciler
from app.media import links
from app.media.download import Limits
from app.media.measure import Measure
from app.media.rescuer import Rescuer
from app.media.storage import Storage
from app.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loops and routes of one process share."""

    settings: Settings
    db: Database
    catalog: Catalog
    measure: Measure
    verifier: Verifier
    fal: FalClient
    platform: Platform
    storage: Storage
    inbox: Inbox
    reach: Reach
    files_http: httpx.AsyncClient
    owner: str

    def dispatcher(self) -> Dispatcher:
        """The loop that tells fal."""
        return Dispatcher(
            db=self.db,
            fal=self.fal,
            reach=self.reach,
            owner=self.owner,
            at_once=self.settings.dispatch_at_once,
            lease_s=self.settings.lease_s,
            progress_s=self.settings.progress_s,
            priority=self.settings.fal_priority,
            public_url=self.settings.public_url,
        )

    def reconciler(self) -> Reconciler:
        """The loop that asks fal."""
        return Reconciler(
            db=self.db,
            fal=self.fal,
            platform=self.platform,
            measure=self.measure,
            owner=self.owner,
            at_once=self.settings.reconcile_at_once,
            lease_s=self.settings.lease_s,
            progress_s=self.settings.progress_s,
        )

    def rescuer(self) -> Rescuer:
        """The loop that keeps results."""
        return Rescuer(
            db=self.db,
            http=self.files_http,
            storage=self.storage,
            settle=lifecycle.files_settled,
            owner=self.owner,
            at_once=self.settings.rescue_at_once,
            lease_s=self.settings.lease_s,
            limits=Limits(size=self.settings.output_limit_bytes),
        )


@asynccontextmanager
async def opened(settings: Settings, *, fal_transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Parts]:
    """
    The parts of one process, open while the block runs.

    *fal_transport* stands in for the network to fal, in tests. Raises SettingsError without a database.
    """
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: is needed here; `callsheet up` brings a Postgres of its own")
    async with AsyncExitStack() as stack:
        db = Database(
            settings.database_url.get_secret_value(),
            pool=settings.database_pool,
            pooler=settings.database_pooler,
        )
        stack.push_async_callback(db.close)
        fal_http = await stack.enter_async_context(new_client(settings.fal_timeout_s, transport=fal_transport))
        key = settings.fal_key.get_secret_value() if settings.fal_key else ""
        media_http, files_http = [
            await stack.enter_async_context(
                new_client(
                    timeout_s,
                    transport=fal_transport or guarded_transport(allow_private=settings.allow_private_outputs),
                )
            )
            for timeout_s in (5.0, 20.0)
        ]
        storage = Storage(settings.storage_url, settings.data / "outputs")
        fal_storage = FalStorage(fal_http, rest_url=settings.fal_rest_url, timeout_s=settings.fal_timeout_s, key=key)
        yield Parts(
            settings=settings,
            db=db,
            catalog=load(extra=settings.catalog),
            measure=Measure(media_http),
            verifier=Verifier(fal_http, settings.fal_jwks_url, user_id=settings.fal_user_id),
            fal=FalClient(
                fal_http,
                queue_url=settings.fal_queue_url,
                timeout_s=settings.fal_timeout_s,
                key=key,
            ),
            platform=Platform(fal_http, api_url=settings.fal_api_url, timeout_s=settings.fal_timeout_s, key=key),
            storage=storage,
            inbox=Inbox(
                db,
                storage,
                kept_for=timedelta(days=settings.files_kept_days),
                most_files=settings.files_limit,
                most_bytes=settings.files_limit_bytes,
                limits=Limits(size=settings.upload_limit_bytes),
            ),
            reach=Reach(
                db,
                storage,
                fal_storage,
                public_url=settings.public_url,
                link_key=links.key_of(settings.link_secret.get_secret_value()) if settings.link_secret else None,
            ),
            files_http=files_http,
            owner=f"{socket.gethostname()}:{os.getpid()}",
        )
