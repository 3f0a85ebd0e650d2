"""The page at /incidents, in a real browser. `make pictures` also keeps what it looks like, for the README."""

import os
import shutil
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.async_api import Page, async_playwright, expect
from sqlalchemy import func, text

from app import clock
from app.chores import Chore
from app.main import create_app
from app.settings import Settings
from app.tenants.keys import Scope
from tests import factories as make
from tests import signing
from tests.incidents.test_routes import add

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURE = Path(__file__).parents[2] / "docs" / "incidents.png"
JOB = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"

# However slow the machine is.
expect.set_options(timeout=30_000)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium")


@pytest.fixture
async def key(db) -> str:
    return (await make.make_key(db))[1]


@pytest.fixture
async def url(db, database_url: str) -> AsyncIterator[str]:
    """The service on a socket of its own, with a worker that has just watched."""
    async with db.session() as session:
        session.add(Chore(name="watch", done_at=func.now() + timedelta(minutes=10), result={"blind": []}))
    fal = httpx.MockTransport(lambda _: httpx.Response(200, json=signing.JWKS))
    chosen = Settings.read(database_url=database_url, fal_key="test", _env_file=None)
    config = uvicorn.Config(create_app(chosen, fal_transport=fal), port=0, log_config=None, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.005)
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
async def page(url: str) -> AsyncIterator[Page]:
    """A tab on it; anything it complains about, or asks of others, fails the test."""
    wrong: list[Any] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = await browser.new_page(viewport={"width": 960, "height": 640}, color_scheme="dark")
        tab.on("pageerror", lambda error: wrong.append(error))  # noqa: PLW0108 - playwright marks what it is given
        tab.on("request", lambda asked: None if asked.url.startswith(url) else wrong.append(asked.url))
        tab.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        tab.set_default_timeout(30_000)
        await tab.goto(f"{url}/incidents")
        yield tab
        await browser.close()
    assert wrong == []


async def enter(page: Page, key: str) -> None:
    await page.get_by_label("An API key").fill(key)
    await page.keyboard.press("Enter")


async def test_all_is_well_then_trouble_comes_and_goes_by_keyboard_alone(page, db, key):
    await enter(page, key)
    await expect(page.get_by_text("All is well")).to_be_visible()
    detail = {"jobs": [JOB], "at_least": False}
    hours = {"since": clock.now() - timedelta(hours=2)}
    await add(
        db,
        {"kind": "rescue_failed", "jobs": 1, "amount": "2.10", "detail": detail, **hours},
        {"kind": "submit_unknown", "jobs": 3, "amount": "6.30", "detail": detail, **hours},
        {"kind": "overdue", "closed_at": func.now(), **hours},
    )

    # By itself: nobody reloads.
    await expect(page.locator("#open li")).to_have_count(2)
    first = page.locator("#open li").first
    for said in ("fal's answer to a submit got lost", "3 jobs · 6.30 USD", JOB, "callsheet jobs resolve"):
        await expect(first).to_contain_text(said)
    await expect(page.locator("#closed li")).to_have_count(1)
    await expect(page.get_by_text("All is well")).to_be_hidden()
    if os.environ.get("PICTURES"):
        PICTURE.parent.mkdir(exist_ok=True)
        await page.screenshot(path=PICTURE)

    await page.locator("#open li").last.locator("summary").focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.type("saved <b>by hand</b>")
    await page.keyboard.press("Enter")
    await expect(page.locator("#open li")).to_have_count(1)
    await expect(page.locator("#closed")).to_contain_text("saved <b>by hand</b>")


async def test_a_key_that_may_not_look_is_told_so_and_not_kept(page, db):
    _, key = await make.make_key(db, scopes=[Scope.JOBS_READ])

    await enter(page, key)

    await expect(page.get_by_role("alert")).to_contain_text("admin")
    assert await page.evaluate("sessionStorage.length + localStorage.length") == 0


async def test_the_key_stays_in_the_tab_until_it_is_forgotten(page, key):
    await enter(page, key)
    await expect(page.get_by_text("All is well")).to_be_visible()
    await page.reload()
    await expect(page.get_by_text("All is well")).to_be_visible()
    assert await page.evaluate("localStorage.length") == 0

    await page.get_by_role("button", name="Forget the key").click()

    await expect(page.get_by_label("An API key")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_nobody_watching_is_no_good_news(page, db, key):
    async with db.session() as session:
        await session.execute(text("DELETE FROM chores"))

    await enter(page, key)

    await expect(page.get_by_role("status")).to_contain_text("Nobody has watched")
    await expect(page.get_by_text("All is well")).to_be_hidden()
