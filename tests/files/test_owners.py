"""Files have an owner: a browser token reaches its own end user's and no others, by whatever way."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests import factories as make
from tests.files import samples
from tests.files.test_use import MODEL, an_input, data_uri
from tests.world import World


async def new_token(world: World, end_user: str) -> str:
    wanted = {"end_user": end_user, "actions": ["create", "read", "files"]}
    answer = await world.api.post("/v1/tokens", json=wanted)
    return str(answer.json()["token"])


async def call(world: World, token: str, method: str, path: str, **options: Any) -> httpx.Response:
    return await world.api.request(method, path, headers={"Authorization": f"Bearer {token}"}, **options)


async def uploaded(world: World, *, end_user: str | None) -> Any:
    """A file that a backend uploaded for *end_user*, or for nobody in particular."""
    params = {} if end_user is None else {"end_user": end_user}
    answer = await world.api.post("/v1/files", content=samples.PNG, params=params)
    assert answer.status_code == 201, answer.text
    return answer.json()


def told(answer: httpx.Response) -> Any:
    """What an answer tells, apart from what is of this request alone."""
    return {name: value for name, value in answer.json().items() if name != "request_id"}


@pytest.fixture
async def ann(world: World) -> str:
    return await new_token(world, "ann")


async def test_what_a_token_uploads_is_its_end_users(world, ann):
    mine = await call(world, ann, "POST", "/v1/files", content=samples.PNG)
    others = await call(world, ann, "POST", "/v1/files", content=samples.PNG, params={"end_user": "bob"})

    assert (mine.status_code, mine.json()["end_user"]) == (201, "ann")
    assert (others.status_code, others.json()["code"]) == (403, "forbidden")


async def test_what_it_orders_with_is_its_end_users_too(world, ann):
    job = await call(world, ann, "POST", "/v1/jobs", json={"model": MODEL, "input": an_input(data_uri())})

    (file,) = (await call(world, ann, "GET", "/v1/files")).json()["data"]
    assert (file["url"], file["end_user"]) == (job.json()["input"]["image_url"], "ann")


async def test_it_sees_its_end_users_files_only(world, ann):
    mine = await uploaded(world, end_user="ann")
    hidden = [await uploaded(world, end_user=whose) for whose in ("bob", None)]

    listed = (await call(world, ann, "GET", "/v1/files")).json()["data"]
    links = await call(world, ann, "GET", f"/v1/files/{mine['id']}/content")
    assert (listed, links.status_code) == ([mine], 307)
    for file in hidden:
        for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content"):
            unknown = await call(world, ann, "GET", path.replace(file["id"], str(uuid4())))
            answer = await call(world, ann, "GET", path)
            assert (answer.status_code, told(answer)) == (404, told(unknown))
    assert len((await world.api.get("/v1/files")).json()["data"]) == 3


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/quotes"])
async def test_it_cannot_name_the_file_of_another_and_does_not_learn_that_there_is_one(world, ann, path):
    bobs, nobodys = await uploaded(world, end_user="bob"), await uploaded(world, end_user=None)
    unknown = f"callsheet://files/{uuid4()}"

    answers = [
        await call(world, ann, "POST", path, json={"model": MODEL, "input": an_input(url)})
        for url in (unknown, bobs["url"], nobodys["url"])
    ]

    assert [answer.status_code for answer in answers] == [422] * 3
    assert told(answers[0]) == told(answers[1]) == told(answers[2])
    assert [fault["code"] for fault in answers[0].json()["errors"]] == ["unknown_file"]
    # Nor does it put off their end.
    assert (await world.api.get(f"/v1/files/{bobs['id']}")).json() == bobs


async def test_it_orders_with_its_own_and_a_key_with_all(world, ann):
    anns, bobs = await uploaded(world, end_user="ann"), await uploaded(world, end_user="bob")
    body = {"model": MODEL, "input": an_input(anns["url"])}

    quoted = await call(world, ann, "POST", "/v1/quotes", json=body)
    ordered = await call(world, ann, "POST", "/v1/jobs", json=body)
    by_key = await world.api.post("/v1/jobs", json={"model": MODEL, "input": an_input(bobs["url"])})

    assert (quoted.status_code, ordered.status_code, by_key.status_code) == (200, 202, 202)


@pytest.mark.parametrize(
    ("model_input", "faults"),
    [
        ({**an_input(f"callsheet://files/{UUID(int=1)}"), "duration": "99"}, {"/input/duration", "/input/image_url"}),
        ({**an_input("data:image/png;base64,!"), "duration": "99"}, {"/input/duration", "/input/image_url"}),
        (an_input("callsheet://files/1"), {"/input/image_url"}),
        (an_input(data_uri(samples.SVG)), {"/input/image_url"}),
        ({"prompt": "x", "duration": "5"}, {"/input/image_url"}),
    ],
)
async def test_a_quote_and_an_order_name_the_same_faults_all_at_once(world, model_input, faults):
    body = {"model": MODEL, "input": model_input}

    quoted, ordered = [await world.api.post(path, json=body) for path in ("/v1/quotes", "/v1/jobs")]

    assert (quoted.status_code, told(quoted)) == (422, told(ordered))
    assert {fault["pointer"] for fault in quoted.json()["errors"]} == faults


async def test_a_quote_keeps_nothing(world):
    file = await uploaded(world, end_user=None)

    for url in (file["url"], data_uri()):
        answer = await world.api.post("/v1/quotes", json={"model": MODEL, "input": an_input(url)})
        assert answer.status_code == 200

    assert (await world.api.get("/v1/files")).json()["data"] == [file]


async def test_another_tenants_file_of_an_end_user_of_the_same_name_is_another_file(world, ann):
    _, key = await make.make_key(world.db)
    theirs = await call(world, key, "POST", "/v1/files", content=samples.PNG, params={"end_user": "ann"})

    answer = await call(world, ann, "GET", f"/v1/files/{theirs.json()['id']}")

    assert (answer.status_code, (await call(world, ann, "GET", "/v1/files")).json()["data"]) == (404, [])
