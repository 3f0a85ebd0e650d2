"""`callsheet jobs submit`: what goes in, and saving a video: our own copy first, fal's where there is none."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from threading import Thread
from types import SimpleNamespace
from typing import ClassVar, cast

import pytest

from app.cli.trouble import Trouble
from app.client import Client, Job
from app.client.results import job as job_of
from app.jobs.schemas import JOB_EXAMPLE
from tests.files import samples

# In the package the name stands for the command.
jobs = import_module("app.cli.jobs")
NOT_YET = b'{"code": "not_safe_yet"}'
NEVER = [(409, NOT_YET)]
JOB = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"


def job_at(url: str) -> Job:
    return job_of({**JOB_EXAMPLE, "id": JOB, "output": {"video": {"url": url}}})


class Stand(BaseHTTPRequestHandler):
    """Answers by path, in order, the last answer for ever; notes who brought a key."""

    answers: ClassVar[dict[str, list[tuple[int, bytes]]]]
    with_key: ClassVar[list[str]]

    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            self.with_key.append(self.path)
        coming = self.answers.get(self.path, [(404, b"")])
        code, content = coming.pop(0) if len(coming) > 1 else coming[0]
        self.send_response(code)
        if code == 307:
            self.send_header("Location", content.decode())
            content = b""
        if code == 409:
            self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def stand() -> Iterator[tuple[type[Stand], str]]:
    class Own(Stand):
        answers: ClassVar[dict[str, list[tuple[int, bytes]]]] = {
            "/fal.mp4": [(200, b"fal's")],
            "/media/x": [(200, b"ours")],
        }
        with_key: ClassVar[list[str]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Own, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "saved"),
    [
        ([(307, b"/media/x")], b"ours"),
        ([(409, NOT_YET), (307, b"/media/x")], b"ours"),
        (NEVER, b"fal's"),
        ([(404, b"")], b"fal's"),
        ([(307, b"/media/broken")], b"fal's"),
    ],
)
def test_our_own_copy_is_saved_and_fals_where_there_is_none(stand, tmp_path, monkeypatch, answers, saved):
    monkeypatch.setattr(jobs, "SAFE_S", 0.05 if answers == NEVER else 30.0)
    monkeypatch.setattr("app.client.exchange.FIRST_S", 0.01)
    served, url = stand
    served.answers[f"/v1/jobs/{JOB}/output?number=1"] = answers

    with Client(url, "key") as client:
        jobs._save(client, job_at(f"{url}/fal.mp4"), tmp_path / "video.mp4")

    assert (tmp_path / "video.mp4").read_bytes() == saved
    assert set(served.with_key) == {f"/v1/jobs/{JOB}/output?number=1"}
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_video_that_is_nowhere_is_told(stand, tmp_path):
    served, url = stand
    served.answers["/fal.mp4"] = [(404, b"")]

    with Client(url, "key") as client, pytest.raises(Trouble, match=r"could not be saved"):
        jobs._save(client, job_at(f"{url}/fal.mp4"), tmp_path / "video.mp4")

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_input_is_handed_in_and_a_missing_one_told(tmp_path):
    (tmp_path / "first.png").write_bytes(samples.PNG)

    value = jobs._input((f"image_url=@{tmp_path}/first.png", 'prompt:="@Image1 walks"', "mail=a@b.c"), None)

    assert value == {"image_url": tmp_path / "first.png", "prompt": "@Image1 walks", "mail": "a@b.c"}
    with pytest.raises(Trouble, match=r"no file Image1 walks .* write prompt:='\"@Image1 walks\"'"):
        jobs._input(("prompt=@Image1 walks",), None)


def test_a_list_is_given_one_by_one_and_wins_over_the_files(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        path.write_bytes(samples.PNG)
    (tmp_path / "input.json").write_text('{"image_urls": ["https://x.example/old.png"], "prompt": "p"}')

    value = jobs._input(
        (f"image_urls[]=@{first}", "image_urls[]=https://x.example/c.png", f"image_urls[]=@{second}", "shots[]:=5"),
        tmp_path / "input.json",
    )

    assert value == {"image_urls": [first, "https://x.example/c.png", second], "prompt": "p", "shots": [5]}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (["a=x", "a[]=y"], "a is given as one value and as a list"),
        (["[]=x"], "must be name=text"),
        (["[]:=1"], "must be name=text"),
        (["a[]:=x"], "must be followed by JSON"),
        (["a[]=@nowhere"], r"write a\[\]:='\"@nowhere\"'"),
    ],
)
def test_a_list_that_cannot_be_is_told(fields, told):
    with pytest.raises(Trouble, match=told):
        jobs._input(tuple(fields), None)


def test_each_file_of_a_list_is_handed_in(tmp_path):
    class Uploading:
        def upload(self, path):
            return SimpleNamespace(url=f"callsheet://files/{path.name}")

    value = {"image_urls": [tmp_path / "a", "https://x.example/b"], "n": 5}

    given = jobs._with_files(cast("Client", Uploading()), value, quiet=True)

    assert given == {"image_urls": ["callsheet://files/a", "https://x.example/b"], "n": 5}
