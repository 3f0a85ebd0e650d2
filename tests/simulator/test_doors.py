"""Which of fal's services a call is for."""

import pytest

from app.simulator.doors import door
from tests.simulator.conftest import O3, Box


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("queue.fal.run", "/run/me/x", ("queue", "/run/me/x")),
        ("queue.fal.run:443", f"/{O3}", ("queue", f"/{O3}")),
        ("fal.run", f"/{O3}", ("run", f"/{O3}")),
        ("FAL.run", f"/{O3}/stream", ("run", f"/{O3}/stream")),
        ("rest.fal.ai", "/storage/auth/token", ("rest", "/storage/auth/token")),
        ("rest.alpha.fal.ai", "/.well-known/jwks.json", ("rest", "/.well-known/jwks.json")),
        ("v3.fal.media", "/files/upload", ("files", "/files/upload")),
        ("v3b.fal.media", "/files/b/1/x.mp4", ("files", "/files/b/1/x.mp4")),
        ("api.fal.ai", "/v1/models", ("v1", "/v1/models")),
        ("127.0.0.1:8001", f"/{O3}", ("queue", f"/{O3}")),
        ("127.0.0.1:8001", f"/queue/{O3}", ("queue", f"/{O3}")),
        ("127.0.0.1:8001", f"/run/{O3}", ("run", f"/{O3}")),
        ("127.0.0.1:8001", "/rest/tokens/", ("rest", "/tokens/")),
        ("127.0.0.1:8001", "/tokens/", ("rest", "/tokens/")),
        ("127.0.0.1:8001", "/storage/upload/initiate", ("rest", "/storage/upload/initiate")),
        ("127.0.0.1:8001", "/files/b/1/x.mp4", ("files", "/files/b/1/x.mp4")),
        ("127.0.0.1:8001", "/v1/models", ("v1", "/v1/models")),
        ("127.0.0.1:8001", "/simulator/requests", ("own", "/simulator/requests")),
        ("127.0.0.1:8001", "/", ("own", "/")),
        ("", "/workflows/me/flow", ("queue", "/workflows/me/flow")),
    ],
)
def test_door(host: str, path: str, expected: tuple[str, str]):
    assert door(host, path) == expected


async def test_same_path_is_an_order_on_one_host_and_a_direct_call_on_another(box: Box):
    order = {"prompt": "[[sim: video_s=0.1]]"}

    queued = await box.client.post(f"/{O3}", json=order, headers={"Host": "queue.fal.run"})
    direct = await box.client.post(f"/{O3}", json=order, headers={"Host": "fal.run"})

    assert queued.json()["status"] == "IN_QUEUE"
    assert direct.json().keys() == {"video"}
