"""The edge: what every answer carries, keys in addresses, and pages of other origins."""

import pytest

from app.main import create_app
from app.settings import Settings, SettingsError
from tests.conftest import client_of

PAGE = "https://app.example.com"


@pytest.fixture
async def public(database_url):
    """The API as a page of another origin meets it."""
    given = {"cors_origins": f"{PAGE}, https://b.example.com", "public_url": "https://api.example.com", "hsts_s": 600}
    app = create_app(Settings.read(database_url=database_url, fal_key="test", _env_file=None, **given))
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/jobs", "/docs", "/nowhere", "/v1/jobs?key=x", "/docs/static/start.js"])
async def test_every_answer_carries_the_headers_of_safety(public, path):
    headers = (await public.get(path)).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["strict-transport-security"] == "max-age=600"
    assert headers["x-request-id"]


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "Token", "%6bey"])
async def test_a_key_in_an_address_is_refused_and_not_echoed(api, name):
    answer = await api.get(f"/v1/jobs?limit=1&{name}=cs_secret")

    assert (answer.status_code, answer.json()["code"]) == (400, "key_in_address")
    assert "Authorization" in answer.json()["title"]
    assert "cs_secret" not in answer.text + str(answer.headers)


async def test_labels_and_links_may_be_called_as_they_like(api):
    assert (await api.get("/v1/jobs?metadata.key=x&metadata.token=y")).status_code == 401
    assert (await api.get("/media/ct_token?link=x")).status_code == 404


async def test_a_page_of_a_listed_origin_may_call_and_read_the_headers_it_needs(public):
    asks = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    asks["Access-Control-Request-Headers"] = "authorization, idempotency-key, content-type"

    asked = await public.options("/v1/jobs", headers=asks)
    called = await public.get("/v1/jobs", headers={"Origin": PAGE})

    assert asked.headers["x-request-id"] != called.headers["x-request-id"]
    for name in ("x-content-type-options", "referrer-policy", "strict-transport-security", "content-security-policy"):
        assert asked.headers[name] == called.headers[name]
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, PAGE)
    assert "access-control-allow-credentials" not in asked.headers
    assert (called.status_code, called.headers["access-control-allow-origin"]) == (401, PAGE)
    exposed = called.headers["access-control-expose-headers"].split(", ")
    assert {"Location", "Idempotent-Replayed", "RateLimit", "Retry-After", "X-Request-Id"} <= set(exposed)


@pytest.mark.parametrize("refused", ["an address", "a size", "a failure"])
async def test_a_page_can_read_what_goes_wrong_at_the_edge(public, monkeypatch, refused):
    path, content = "/v1/jobs", b""
    if refused == "an address":
        path += "?token=x"
    elif refused == "a size":
        content = b" " * 20_000_000
    else:
        monkeypatch.delattr(public._transport.app.state, "known")

    answer = await public.post(path, content=content, headers={"Origin": PAGE, "Authorization": "Bearer x"})

    codes = {"an address": "key_in_address", "a size": "body_too_large", "a failure": "internal_error"}
    assert answer.json()["code"] == codes[refused]
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_a_page_of_another_origin_may_not(public, api):
    asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}

    asked = await public.options("/v1/jobs", headers=asks)
    assert (asked.status_code, asked.headers["x-content-type-options"]) == (400, "nosniff")
    assert "access-control-allow-origin" not in asked.headers
    answer = await public.get("/v1/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    # Without the setting, no page may.
    assert (await api.options("/v1/jobs", headers={**asks, "Origin": PAGE})).status_code == 405


@pytest.mark.parametrize(
    ("asks", "refused"),
    [
        ({"Origin": "https://evil.example"}, "origin"),
        ({"Access-Control-Request-Method": "TRACE"}, "method"),
        ({"Access-Control-Request-Headers": "authorization, x-mine"}, "headers"),
    ],
)
async def test_what_a_page_may_not_is_told_as_every_other_error(public, asks, refused):
    answer = await public.options("/v1/jobs", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST", **asks})

    told = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert (told["code"], told["detail"]) == ("cross_origin_refused", f"Disallowed CORS {refused}.")
    assert told["request_id"] == answer.headers["x-request-id"]
    assert "Origin" in answer.headers["vary"]
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    "given", [{"cors_origins": "app.example.com"}, {"cors_origins": "https://a.example/path"}, {"hsts_s": 600}]
)
def test_settings_that_would_not_work_are_refused(given):
    with pytest.raises(SettingsError):
        Settings.read(_env_file=None, **given)
