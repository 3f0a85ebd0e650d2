"""Opens what a process needs (database, fal, HTTP) and closes it in reverse."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import httpx
from ssrfguard import Policy

from app import pruning
from app.callbacks import pruner as callbacks
from app.callbacks import targets
from app.callbacks.sender import Sender
from app.catalog.catalog import Catalog, load
from app.chores import Chores, Duty, Result
from app.db import Database
from app.fal.accounts import Account, Accounts
from app.fal.client import FalClient
from app.fal.platform import Platform
from app.fal.signature import Verifier
from app.fal.storage import FalStorage
from app.files import pruner
from app.files.inbox import Inbox
from app.files.reaching import Reach
from app.http import download_transport, guarded_transport, new_client
from app.incidents import queries as incidents
from app.incidents.watcher import watch
from app.jobs import inbox, keeping, thinning
from app.jobs.dispatcher import Dispatcher
from app.jobs.expirer import Expirer
from app.jobs.fairness import Caps
from app.jobs.reconciler import Reconciler
from app.media import links
from app.media.download import Limits
from app.media.measure import Measure
from app.media.rescuer import Rescuer
from app.media.storage import Storage
from app.settings import Settings, SettingsError
from app.tenants import audit, known
from app.verify.kept import kept
from app.verify.verifier import verify

SPARE_CALLS: Final = 32
"""Calls to fal at once beside those of the loops: for its keys, its prices, its books."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loops and routes of one process share."""

    settings: Settings
    db: Database
    catalog: Catalog
    measure: Measure
    verifier: Verifier
    accounts: Accounts
    caps: Caps
    storage: Storage
    inbox: Inbox
    reach: Reach
    files_http: httpx.AsyncClient
    callback_policy: Policy
    callbacks_http: httpx.AsyncClient
    owner: str

    def dispatcher(self) -> Dispatcher:
        """The loop that tells fal."""
        return Dispatcher(
            db=self.db,
            accounts=self.accounts,
            caps=self.caps,
            reach=self.reach,
            owner=self.owner,
            at_once=self.settings.dispatch_at_once,
            lease_s=self.settings.lease_s,
            progress_s=self.settings.progress_s,
            priority=self.settings.fal_priority,
            public_url=self.settings.public_url,
        )

    def expirer(self) -> Expirer:
        """The loop that ends what waited too long."""
        return Expirer(self.db)

    def reconciler(self) -> Reconciler:
        """The loop that asks fal."""
        return Reconciler(
            db=self.db,
            accounts=self.accounts,
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
            note=keeping.note_ended,
            owner=self.owner,
            at_once=self.settings.rescue_at_once,
            lease_s=self.settings.lease_s,
            limits=Limits(size=self.settings.output_limit_bytes),
        )

    def sender(self) -> Sender:
        """The loop that calls callers."""
        return Sender(
            db=self.db,
            http=self.callbacks_http,
            owner=self.owner,
            at_once=self.settings.callback_at_once,
            lease_s=self.settings.lease_s,
            timeout_s=self.settings.callback_timeout_s,
            disable_after_s=self.settings.callback_disable_after_s,
        )

    def chores(self) -> Chores:
        """The loop that does what is to be done every so often."""

        async def watch_for_incidents(_: Result | None) -> Result:
            return {"blind": await watch(self.db)}

        async def prove(before: Result | None) -> Result:
            return kept(await verify(self.db), before)

        async def prune_inbox(_: Result | None) -> Result:
            return {"deleted": await inbox.prune(self.db, timedelta(days=self.settings.inbox_days))}

        async def prune_callbacks(_: Result | None) -> Result:
            return {"deleted": await callbacks.prune(self.db, timedelta(days=self.settings.callbacks_days))}

        async def prune_audit(_: Result | None) -> Result:
            return {"deleted": await audit.prune(self.db, timedelta(days=self.settings.audit_days))}

        async def thin_jobs(_: Result | None) -> Result:
            days = self.settings.jobs_days
            # What is broken is proved by what would go.
            if days is None or await self.db.run(incidents.promise_is_broken):
                return {"thinned": 0}
            return {"thinned": await thinning.thin(self.db, timedelta(days=days))}

        async def prune_files(_: Result | None) -> Result:
            return {"deleted": await pruner.prune_all(self.db, self.storage)}

        async def prune_tokens(_: Result | None) -> Result:
            return {"deleted": await known.prune(self.db)}

        duties = (
            Duty(incidents.CHORE, self.settings.watch_s, watch_for_incidents),
            Duty("verify", self.settings.verify_every_s, prove),
            Duty("prune_inbox", pruning.EVERY_S, prune_inbox),
            Duty("prune_callbacks", pruning.EVERY_S, prune_callbacks),
            Duty("prune_audit", pruning.EVERY_S, prune_audit),
            Duty("prune_tokens", pruning.EVERY_S, prune_tokens),
            Duty("prune_files", pruner.EVERY_S, prune_files),
            Duty("thin_jobs", pruning.EVERY_S, thin_jobs),
        )
        return Chores(self.db, duties, owner=self.owner, lease_s=self.settings.lease_s)


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
        # Who waits for a place of ours to call from would seem to wait for the other side.
        calls = settings.dispatch_at_once + settings.reconcile_at_once + SPARE_CALLS
        fal_http = await stack.enter_async_context(
            new_client(settings.fal_timeout_s, at_once=calls, transport=fal_transport)
        )
        catalog = load(extra=settings.catalog)
        media_http, files_http = [
            await stack.enter_async_context(
                new_client(
                    timeout_s,
                    transport=fal_transport or download_transport(allow_private=settings.allow_private_outputs),
                )
            )
            for timeout_s in (5.0, 20.0)
        ]
        accounts = fal_accounts(settings, fal_http, files_http)
        callback_policy = targets.policy(settings.callback_networks())
        callbacks_http = await stack.enter_async_context(
            new_client(
                settings.callback_timeout_s,
                transport=guarded_transport(policy=callback_policy, at_once=settings.callback_at_once),
            )
        )
        storage = Storage(settings.storage_url, settings.data / "outputs")
        yield Parts(
            settings=settings,
            db=db,
            catalog=catalog,
            measure=Measure(media_http),
            verifier=Verifier(fal_http, settings.fal_jwks_url, user_id=settings.fal_user_id),
            accounts=accounts,
            caps=Caps(accounts.caps, catalog.at_once, settings.tenant_at_once),
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
                public_url=settings.public_url,
                link_key=links.key_of(settings.link_secret.get_secret_value()) if settings.link_secret else None,
            ),
            files_http=files_http,
            callback_policy=callback_policy,
            callbacks_http=callbacks_http,
            owner=f"{socket.gethostname()}:{os.getpid()}",
        )


def fal_accounts(settings: Settings, http: httpx.AsyncClient, files_http: httpx.AsyncClient) -> Accounts:
    """The accounts that *settings* name, over *http*; files go up over *files_http*, in parts."""
    wanted = {"X-Fal-No-Retry": settings.fal_no_retry, "x-app-fal-disable-fallback": settings.fal_no_fallback}
    submit_headers = {name: "true" for name, is_wanted in wanted.items() if is_wanted}
    timeout_s = settings.fal_timeout_s
    return Accounts(
        Account(
            name,
            FalClient(
                http,
                queue_url=settings.fal_queue_url,
                key=key,
                timeout_s=timeout_s,
                submit_headers=submit_headers,
            ),
            Platform(http, api_url=settings.fal_api_url, key=key, timeout_s=timeout_s),
            FalStorage(http, files_http, rest_url=settings.fal_rest_url, key=key, timeout_s=timeout_s),
            at_once,
        )
        for name, (key, at_once) in settings.accounts().items()
    )
