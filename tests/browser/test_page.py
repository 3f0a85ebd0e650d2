"""A page of another origin, in a real browser, makes and plays a video with nothing but a browser token."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from app import clock
from app.cli.serving import Server, config
from tests.files.test_use import MODEL, an_input
from tests.world import World, build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ACTIONS = ["create", "read", "events", "files"]
LATER = (clock.now() + timedelta(days=1)).isoformat()

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt install chromium")


class Quiet(SimpleHTTPRequestHandler):
    """Files of this folder, and no log."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def origin() -> Iterator[str]:
    """A web server that has the page; it knows nothing of Callsheet."""
    handler = partial(Quiet, directory=str(Path(__file__).parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def ours() -> Iterator[str]:
    with origin() as url:
        yield url


@pytest.fixture
def others() -> Iterator[str]:
    with origin() as url:
        yield url


@pytest.fixture
async def served(database_url: str, tmp_path: Path, ours: str) -> AsyncIterator[tuple[World, str]]:
    """Callsheet on a socket of its own, for pages of one origin; its worker and fal are the test's to move."""
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, cors_origins=ours)
        chosen = config(world.app, "127.0.0.1", 0, stop_s=2)
        chosen.lifespan = "off"  # it runs already
        server = Server(chosen)
        serving = asyncio.create_task(server._serve())
        async with asyncio.timeout(60):
            while not server.started:
                await asyncio.sleep(0.005)
        yield world, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        await launched.close()


async def opened(browser: Browser, url: str, api: str, token: str) -> Page:
    page = await browser.new_page()
    page.set_default_timeout(60_000)
    await page.goto(f"{url}/page.html")
    await page.evaluate("([api, token]) => app.begin(api, token)", [api, token])
    return page


async def filmed(world: World, job_id: str) -> None:
    """What a worker and fal do for a job, until our own copy of its video is safe."""
    await world.dispatch()
    await world.at_fal(60)
    await world.ended(job_id)
    await world.rescue()


async def test_a_page_of_another_origin_makes_and_plays_a_video_with_a_token_alone(browser, ours, others, served):
    world, api = served
    backend = world.api
    wanted = {"end_user": "ann", "actions": ACTIONS, "models": [MODEL], "max_spend": "2.50"}
    token = (await backend.post("/v1/tokens", json=wanted)).json()
    bobs = await world.order(model=MODEL, input=an_input("https://a.example/b.png"), end_user="bob", run_after=LATER)
    page = await opened(browser, ours, api, token["token"])

    file = await page.evaluate("app.upload()")
    order = {"model": MODEL, "input": an_input(file["body"]["url"])}
    made, repeated, over = [await page.evaluate("([b, k]) => app.order(b, k)", [order, key]) for key in "112"]
    job = made["body"]["id"]
    following = page.evaluate("job => Promise.all([app.follow(job), app.listen(job), app.play(job)])", job)
    (fetched, listened, shown), _ = await asyncio.gather(following, filmed(world, job))

    assert (file["status"], file["body"]["content_type"], file["body"]["end_user"]) == (201, "image/png", "ann")
    assert (made["status"], repeated["status"], repeated["body"]["id"]) == (202, 200, job)
    assert made["requestId"]
    assert [int(number) for number, _ in listened] == list(range(1, len(listened) + 1))
    assert (listened[0], listened[-1][1]) == (["1", "queued"], "succeeded")
    assert fetched == listened[1:]
    assert (shown["width"] > 0, shown["at"] > 0, round(shown["seconds"])) == (True, True, 5)
    assert shown["url"].startswith(f"{api}/media/")

    # And nothing else.
    assert (over["status"], over["body"]["code"]) == (402, "token_spend_exceeded")
    for path in (f"/v1/jobs/{bobs['id']}", f"/v1/jobs/{bobs['id']}/events/link"):
        hidden = await page.evaluate("path => app.get(path)", path)
        assert (hidden["status"], hidden["body"]["code"]) == (404, "not_found")
    assert [one["id"] for one in (await page.evaluate("app.get('/v1/jobs')"))["body"]["data"]] == [job]
    for path in ("/v1/keys", "/v1/balance"):
        refused = await page.evaluate("path => app.get(path)", path)
        assert (refused["status"], refused["body"]["code"]) == (403, "forbidden"), path

    # Nor does any other page, whatever token it has, nor this one once the token is over.
    stranger = await opened(browser, others, api, token["token"])
    assert [await one.evaluate("app.reachable('/v1/jobs')") for one in (page, stranger)] == [True, False]
    await backend.delete(f"/v1/tokens/{token['id']}")
    assert (await page.evaluate("app.get('/v1/jobs')"))["status"] == 401
