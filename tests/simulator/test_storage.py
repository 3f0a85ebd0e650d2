"""Uploads by both clients' protocols, and downloads."""

from datetime import UTC, datetime

import pytest

from tests.simulator.conftest import AUTH, BASE, Box, OpenBox

DAY = '{"expiration_duration_seconds": 86400}'


async def test_python_uploads_with_a_token_in_one_post(box: Box):
    token = (await box.client.post("/rest/storage/auth/token?storage_type=fal-cdn-v3", json={})).json()
    bearer = {"Authorization": f"{token['token_type']} {token['token']}"}
    headers = bearer | {"Content-Type": "text/plain", "X-Fal-File-Name": "../a b.txt"}

    uploaded = await box.client.post(f"{token['base_url']}/files/upload", content=b"hello", headers=headers)
    answer = await box.client.get(uploaded.json()["access_url"], headers={"Authorization": ""})

    assert datetime.fromisoformat(token["expires_at"]) > datetime.now(UTC)
    assert uploaded.json()["access_url"].startswith(f"{BASE}/files/b/")
    assert uploaded.json()["access_url"].endswith("_a%20b.txt")
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("kind", ["fal-cdn-v3", "gcs"])
async def test_promised_address_takes_a_put_and_answers_without_json(box: Box, kind: str):
    body = {"file_name": "a.txt", "content_type": "text/plain"}
    promise = (await box.client.post(f"/rest/storage/upload/initiate?storage_type={kind}", json=body)).json()

    before = await box.client.get(promise["file_url"])
    put = await box.client.put(
        promise["upload_url"], content=b"x", headers={"Content-Type": "text/plain", "Authorization": ""}
    )
    after = await box.client.get(promise["file_url"])

    assert before.status_code == 404
    assert (put.status_code, put.content) == (200, b"")
    assert "json" not in put.headers["content-type"]
    assert put.headers["etag"]
    assert after.content == b"x"


async def test_python_multipart_lists_its_parts_in_any_order(box: Box):
    begun = (await box.client.post("/files/upload/multipart", headers={"X-Fal-File-Name": "big.bin"})).json()
    base = f"{begun['access_url']}/multipart/{begun['uploadId']}"
    etags = {}
    for number in (2, 1, 3):
        part = await box.client.put(f"{base}/{number}", content=str(number).encode() * 3)
        etags[number] = part.headers["etag"]

    parts = [{"partNumber": number, "etag": etags[number]} for number in (3, 1, 2)]
    done = await box.client.post(f"{base}/complete", json={"parts": parts})

    assert done.status_code == 200
    assert (await box.client.get(begun["access_url"])).content == b"111222333"


async def test_javascript_multipart_carries_no_key_and_keeps_the_query(box: Box):
    body = {"file_name": "big.bin", "content_type": "application/zip"}
    path = "/rest/storage/upload/initiate-multipart?storage_type=fal-cdn-v3"
    begun = (await box.client.post(path, json=body)).json()
    address, _, query = begun["upload_url"].partition("?")
    nobody = {"Authorization": ""}

    parts = []
    for number in (1, 2):
        url = f"{address}/{number}?{query}"
        parts.append((await box.client.put(url, content=bytes([number]), headers=nobody)).json())
    done = await box.client.post(f"{address}/complete?{query}", json={"parts": parts}, headers=nobody)

    assert [part["partNumber"] for part in parts] == [1, 2]
    assert all(part["etag"] for part in parts)
    assert done.status_code == 200
    assert (await box.client.get(begun["file_url"])).content == b"\x01\x02"


async def test_multipart_with_a_missing_part_is_not_completed(box: Box):
    begun = (await box.client.post("/files/upload/multipart")).json()
    base = f"{begun['access_url']}/multipart/{begun['uploadId']}"

    done = await box.client.post(f"{base}/complete", json={"parts": [{"partNumber": 1, "etag": "x"}]})

    assert done.status_code == 400
    assert (await box.client.put(f"{begun['access_url']}/multipart/other/1", content=b"x")).status_code == 404


async def test_too_large_an_upload_is_refused_and_leaves_nothing(open_box: OpenBox):
    box = await open_box(max_upload_bytes=10)

    answer = await box.client.post("/files/upload", content=b"x" * 11)

    assert answer.status_code == 413
    assert list(box.simulator.files.folder.iterdir()) == []


async def test_upload_expires_with_its_lifecycle(box: Box):
    headers = {"X-Fal-Object-Lifecycle": DAY}
    url = (await box.client.post("/files/upload", content=b"x", headers=headers)).json()["access_url"]

    before = await box.client.get(url)
    await box.advance(86_401)

    assert (before.status_code, (await box.client.get(url)).status_code) == (200, 404)


async def test_output_expires_as_its_order_asked(box: Box):
    request_id = await box.submit(x_fal_object_lifecycle_preference='{"expiration_duration_seconds": 60}')
    await box.ended(request_id)
    url = (await box.result(request_id)).json()["video"]["url"]

    before = await box.client.get(url)
    await box.advance(61)

    assert (before.status_code, (await box.client.get(url)).status_code) == (200, 404)


async def test_file_may_be_gone_while_its_result_is_there(box: Box):
    request_id = await box.submit(script={"file_s": 0})
    await box.ended(request_id)

    result = await box.result(request_id)

    assert result.status_code == 200
    assert (await box.client.get(result.json()["video"]["url"])).status_code == 404


async def test_downloads_answer_ranges_and_head(box: Box):
    url = (await box.client.post("/files/upload", content=b"0123456789")).json()["access_url"]

    part = await box.client.get(url, headers={"Range": "bytes=2-4"})
    beyond = await box.client.get(url, headers={"Range": "bytes=50-"})
    head = await box.client.head(url)

    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert beyond.status_code == 416
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")


async def test_uploads_need_a_key_and_tokens_end(open_box: OpenBox):
    box = await open_box(keys=frozenset({"kid:ksecret"}))
    token = (await box.client.post("/rest/storage/auth/token", json={})).json()["token"]
    bearer = {"Authorization": f"Bearer {token}"}

    fresh = await box.client.post("/files/upload", content=b"x", headers=bearer)
    await box.advance(3601)
    stale = await box.client.post("/files/upload", content=b"x", headers=bearer)
    nobody = await box.client.post("/rest/storage/auth/token", json={}, headers={"Authorization": "Key x"})

    assert (fresh.status_code, stale.status_code, nobody.status_code) == (200, 401, 401)


async def test_browser_token_opens_its_apps_only(open_box: OpenBox):
    box = await open_box(keys=frozenset({"kid:ksecret"}))
    minted = await box.client.post("/tokens/", json={"allowed_apps": ["kling-video"], "token_expiration": 60})
    bearer = {"Authorization": f"Bearer {minted.json()}"}

    allowed = await box.client.post("/fal-ai/kling-video/o3/4k/text-to-video", json={}, headers=bearer)
    other = await box.client.post("/fal-ai/flux/dev", json={}, headers=bearer)

    assert (minted.status_code, type(minted.json())) == (201, str)
    assert (allowed.status_code, other.status_code) == (200, 401)


async def test_files_outlive_the_process(open_box: OpenBox, tmp_path):
    first = await open_box(data_dir=tmp_path)
    url = (await first.client.post("/files/upload", content=b"kept", headers=AUTH)).json()["access_url"]

    second = await open_box(data_dir=tmp_path)

    assert (await second.client.get(url)).content == b"kept"
