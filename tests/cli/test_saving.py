"""Saving a video: our own copy first, fal's where there is none."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from threading import Thread
from typing import ClassVar

import httpx
import pytest

from app.cli.trouble import Trouble

# In the package the name stands for the command.
jobs = import_module("app.cli.jobs")
JOB = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"


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
        ([(409, b""), (307, b"/media/x")], b"ours"),
        ([(409, b"")], b"fal's"),
        ([(404, b"")], b"fal's"),
        ([(307, b"/media/broken")], b"fal's"),
    ],
)
def test_our_own_copy_is_saved_and_fals_where_there_is_none(stand, tmp_path, monkeypatch, answers, saved):
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    monkeypatch.setattr(jobs, "SAFE_S", 0.05)
    served, url = stand
    served.answers[f"/v1/jobs/{JOB}/output"] = answers
    job = {"id": JOB, "output": {"video": {"url": f"{url}/fal.mp4"}}}

    with httpx.Client(base_url=url, headers={"Authorization": "Bearer key"}) as client:
        jobs._save(client, job, tmp_path / "video.mp4")

    assert (tmp_path / "video.mp4").read_bytes() == saved
    assert set(served.with_key) == {f"/v1/jobs/{JOB}/output"}
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_video_that_is_nowhere_is_told(stand, tmp_path):
    served, url = stand
    served.answers["/fal.mp4"] = [(404, b"")]
    job = {"id": JOB, "output": {"video": {"url": f"{url}/fal.mp4"}}}

    with httpx.Client(base_url=url) as client, pytest.raises(Trouble, match=r"could not be saved"):
        jobs._save(client, job, tmp_path / "video.mp4")

    assert list(tmp_path.iterdir()) == []
