"""`callsheet up` and the commands beside it, as a user runs them: real processes, sockets, database and video."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

import av
import httpx
import pytest

from app.cli.up import STOP_S
from tests.cli.commands import Done, call, environment, fork, fresh, nursery
from tests.faults.stage import ROOT
from tests.files import samples
from tests.ports import free_port

O3 = "fal-ai/kling-video/o3/4k/text-to-video"
IMAGE = "fal-ai/kling-video/o3/4k/image-to-video"
V1 = "fal-ai/kling-video/v1/pro/text-to-video"
MECHA = 'A mecha lands on the ground to save the city, and says "I\'m here", in anime style'
TOKYO = "A stylish woman walks down a Tokyo street filled with warm glowing neon and animated city signage"


class Up:
    """A running `callsheet up`."""

    def __init__(self, folder: Path, **given: str) -> None:
        self.folder = folder
        self.ports = {"PORT": str(free_port()), "SIMULATOR_PORT": str(free_port())}
        self.exit_code: int | None = None
        log = folder / "up.log"
        log.unlink(missing_ok=True)
        self.pid = fork("up", cwd=folder, stdout=log, stderr=log, **self.ports, **given)
        try:
            self.running = self._told()
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def _told(self) -> dict[str, Any]:
        """What it says of itself, once it runs."""
        told = self.folder / ".callsheet" / "up.json"
        until = time.monotonic() + 100
        while not told.exists() or json.loads(told.read_text())["pid"] != self.pid:
            assert nursery().ask(do="look", pid=self.pid) is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.02)
        found: dict[str, Any] = json.loads(told.read_text())
        return found

    @property
    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it; how long that took, in seconds."""
        since = time.monotonic()
        self.exit_code = nursery().ask(do="signal", pid=self.pid, number=number)
        return time.monotonic() - since

    def submit(self, *arguments: str) -> Done:
        return call("jobs", "submit", *arguments, cwd=self.folder)


@contextmanager
def running(folder: Path, **given: str) -> Iterator[Up]:
    up = Up(folder, **given)
    try:
        yield up
    finally:
        up.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("up")) as started:
        yield started


def seconds_of(path: Path) -> tuple[str, float, float]:
    """Codec, length and length of one frame of a video file."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        assert video.duration is not None
        assert video.time_base is not None
        assert video.average_rate is not None
        return video.codec_context.name, float(video.duration * video.time_base), float(1 / video.average_rate)


def listens(port: str) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def test_the_printed_command_brings_a_playable_video_and_its_price(up):
    assert O3 in up.log
    path = up.folder / "mecha.mp4"

    inputs = ("-i", f"prompt={MECHA}", "-i", "duration=5", "-i", "aspect_ratio=16:9")
    done = fresh("jobs", "submit", O3, *inputs, "--watch", "--json", "-o", str(path), cwd=up.folder)

    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["cost"]["quoted"], job["cost"]["charged"]) == ("succeeded", "2.10", "2.10")
    assert job["safe_at"] is not None
    assert job["cost"]["measured_seconds"] == "5"
    codec, length, frame = seconds_of(path)
    assert codec == "h264"
    assert abs(length - 5) <= frame


def test_the_second_order_is_priced_from_the_unverified_entry(up):
    path = up.folder / "tokyo.mp4"

    done = up.submit(V1, "-i", f"prompt={TOKYO}", "-i", "duration=10", "--json", "-o", str(path))

    job = json.loads(done.stdout)
    assert (job["status"], job["cost"]["seconds"], job["cost"]["charged"]) == ("succeeded", "10", "1.00")
    _, length, frame = seconds_of(path)
    assert abs(length - 10) <= frame


def test_shots_are_charged_by_their_sum(up):
    shots = json.dumps([{"prompt": "one", "duration": n} for n in ("3", "4", "5")])
    path = up.folder / "shots.mp4"

    done = up.submit(O3, "-i", f"multi_prompt:={shots}", "--json", "-o", str(path))

    assert json.loads(done.stdout)["cost"]["charged"] == "5.04"
    _, length, frame = seconds_of(path)
    assert abs(length - 12) <= frame


def test_one_key_from_fifty_connections_at_once_makes_one_job_and_one_hold(up):
    headers = {"Authorization": f"Bearer {up.running['api_key']}", "Idempotency-Key": "fifty"}
    body = {"model": O3, "input": {"prompt": "[[sim: run_s=60]] x"}}

    async def order() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=up.running["url"], headers=headers, limits=limits, timeout=30) as client:
            return await asyncio.gather(*(client.post("/v1/jobs", json=body) for _ in range(50)))

    answers = asyncio.run(order())

    (job_id,) = {answer.json()["id"] for answer in answers}
    entries = httpx.get(f"{up.running['url']}/v1/ledger", params={"job_id": job_id}, headers=headers).json()["data"]
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == [("hold", "2.10")]


def test_a_job_that_fails_says_why_and_exits_with_one(up):
    done = up.submit(O3, "-i", "prompt=[[sim: outcome=content_policy_violation]] x", "--watch")

    assert done.returncode == 1
    assert "content policy" in done.stdout
    assert "charged  0.00 USD" in done.stdout


def test_an_order_that_is_refused_names_every_fault_and_exits_with_two(up):
    done = up.submit(O3, "-i", "duration=2", "-i", "promt=x")

    assert done.returncode == 2
    assert "/input/duration" in done.stderr
    assert "/input/promt" in done.stderr


def status_of(up: Up, job_id: str, *wanted: str) -> Any:
    """The job once its status is one of *wanted*, as the command line tells."""
    headers = {"Authorization": f"Bearer {up.running['api_key']}"}
    until = time.monotonic() + 100
    # A process for each look would take longer than most jobs do.
    with httpx.Client(base_url=up.running["url"], headers=headers, trust_env=False) as client:
        while (job := client.get(f"/v1/jobs/{job_id}").json())["status"] not in wanted:
            assert time.monotonic() < until, job
            time.sleep(0.02)
    return json.loads(call("jobs", "show", job_id, "--json", cwd=up.folder).stdout)


def test_a_job_is_canceled(up):
    job = json.loads(up.submit(O3, "-i", "prompt=[[sim: queue_s=500]] x", "--json").stdout)
    status_of(up, job["id"], "submitted")

    done = call("jobs", "cancel", job["id"], cwd=up.folder)

    assert (done.returncode, "requested" in done.stdout) == (0, True), done.stderr
    assert status_of(up, job["id"], "canceled")["cost"]["charged"] == "0.00"


def test_an_operator_decides_about_a_lost_submit(up):
    job = json.loads(up.submit(O3, "-i", "prompt=[[sim: lost_request, times=1]] x", "--json").stdout)
    status_of(up, job["id"], "submit_unknown")

    unsaid = call("jobs", "resolve", job["id"], "--not-accepted", cwd=up.folder)
    decided = call("jobs", "resolve", job["id"], "--not-accepted", "--reason", "support said so", cwd=up.folder)

    assert (unsaid.returncode, "--reason" in unsaid.stderr) == (2, True)
    assert decided.returncode == 0, decided.stderr
    assert status_of(up, job["id"], "succeeded")["attempts"] == 2
    late = call("jobs", "resolve", job["id"], "--accepted", job["id"], cwd=up.folder)
    assert (late.returncode, "submit_unknown" in late.stderr) == (2, True)


def test_other_commands_find_the_running_one(up):
    made = fresh("keys", "create", "app", cwd=up.folder)
    listed = call("keys", "list", cwd=up.folder)
    jobs = call("jobs", "list", "--json", cwd=up.folder)
    table = call("jobs", "list", cwd=up.folder, COLUMNS="80")
    tenants = fresh("tenants", "list", cwd=up.folder)

    key = made.stdout.strip()
    assert key.startswith("cs_")
    assert key not in listed.stdout
    assert all(job["id"] in table.stdout for job in json.loads(jobs.stdout))
    assert "default" in tenants.stdout
    answer = httpx.get(f"{up.running['url']}/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_every_promise_holds_on_both_sides(up):
    job = json.loads(up.submit(O3, "-i", "prompt=[[sim: lost_answer]] x", "--watch", "--json").stdout)
    assert job["status"] == "succeeded"

    told = call("verify", "--fal", "--json", cwd=up.folder)
    read = call("verify", cwd=up.folder, COLUMNS="300")
    url = f"{up.running['url']}/v1/admin/verify"
    asked = httpx.get(url, headers={"Authorization": f"Bearer {up.running['api_key']}"})

    assert told.returncode == 0, told.stdout
    report = json.loads(told.stdout)
    assert report["ok"]
    assert report["checked"]["requests_at_fal"] > 0
    assert report["checked"]["cents_off"] == "0.00"
    assert (read.returncode, asked.json()["ok"]) == (0, True)
    assert "Every promise holds." in read.stdout


def test_a_file_named_in_an_order_is_handed_in(up):
    (up.folder / "first.png").write_bytes(samples.PNG)

    done = up.submit(IMAGE, "-i", "prompt=x", "-i", "image_url=@first.png", "--json")

    job = json.loads(done.stdout)
    path = f"/v1/files/{job['input']['image_url'].removeprefix('callsheet://files/')}"
    headers = {"Authorization": f"Bearer {up.running['api_key']}"}
    file = httpx.get(up.running["url"] + path, headers=headers).json()
    assert (file["name"], file["size"]) == ("first.png", len(samples.PNG))


def test_the_readmes_python_runs_as_it_stands(up):
    (code,) = re.findall(r"^```python\n(.+?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=up.folder, env=environment(), capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "2.10 USD at most"
    assert done.stdout.splitlines()[-1] == "succeeded None charged 2.10 USD"
    assert seconds_of(up.folder / "mecha.mp4")[0] == "h264"


def test_a_revoked_key_works_no_more(up):
    key = call("keys", "create", "leaked", cwd=up.folder).stdout.strip()
    row = next(
        line for line in call("keys", "list", cwd=up.folder, COLUMNS="300").stdout.splitlines() if "leaked" in line
    )

    call("keys", "revoke", row.split()[0], cwd=up.folder)

    answer = httpx.get(f"{up.running['url']}/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 401


def test_where_it_runs_is_for_its_owner_only(up):
    for name in ("up.json", "api_key"):
        assert (up.folder / ".callsheet" / name).stat().st_mode & 0o777 == 0o600
    assert up.running.keys() == {"url", "api_key", "simulator_url", "pid"}


def test_a_second_one_on_the_same_folder_gets_one_clear_line(up):
    second = call("up", cwd=up.folder, PORT=str(free_port()), SIMULATOR_PORT=str(free_port()))

    assert second.returncode == 2
    assert len(second.stderr.strip().splitlines()) == 1
    assert ".callsheet" in second.stderr


def test_a_taken_port_gets_one_clear_line(up, tmp_path):
    second = fresh("up", cwd=tmp_path, PORT=up.ports["PORT"], SIMULATOR_PORT=str(free_port()))

    assert second.returncode == 2
    assert len(second.stderr.strip().splitlines()) == 1
    assert up.ports["PORT"] in second.stderr


def test_wrong_settings_get_a_line_each(tmp_path):
    done = call("up", cwd=tmp_path, PORT="many", POLL_S="-1")

    assert done.returncode == 2
    assert [line.split(":")[0] for line in done.stderr.strip().splitlines()] == ["PORT", "POLL_S"]


def test_a_wrong_fal_key_gets_one_clear_line(tmp_path):
    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as fal:
        Thread(target=fal.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{fal.server_port}"
        done = call("up", cwd=tmp_path, PORT=str(free_port()), FAL_KEY="wrong", FAL_QUEUE_URL=url, LOG_LEVEL="ERROR")
        fal.shutdown()

    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [line for line in done.stderr.strip().splitlines() if "FAL_KEY" in line]
    assert "FAL_KEY" in done.stderr


def test_a_submit_that_fal_takes_its_time_over_is_waited_for_when_it_stops(tmp_path):
    reached, answer = Event(), Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(404, {"detail": "no such request"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            reached.set()
            answer.wait(30)
            urls = {name: f"http://fal.example/{name}" for name in ("status_url", "response_url", "cancel_url")}
            self._say(200, {"request_id": "r1", "status": "IN_QUEUE", "queue_position": 0, **urls})

        def _say(self, code: int, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as fal:
        Thread(target=fal.serve_forever, daemon=True).start()
        given = {"FAL_KEY": "good", "FAL_QUEUE_URL": f"http://127.0.0.1:{fal.server_port}"}
        with running(tmp_path, **given) as up:
            headers = {"Authorization": f"Bearer {up.running['api_key']}"}
            order = {"model": O3, "input": {"prompt": "x", "duration": "5"}}
            assert httpx.post(f"{up.running['url']}/v1/jobs", json=order, headers=headers).status_code == 202
            assert reached.wait(30)
            # Longer than it gives whoever waits for an answer of ours.
            Timer(STOP_S + 0.5, answer.set).start()
            up.stop()
        fal.shutdown()

    assert up.exit_code == 0
    assert "job_submitted" in up.log, up.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_and_keeps_everything_for_the_next_start(tmp_path, number):
    with running(tmp_path) as first:
        done = json.loads(first.submit(O3, "-i", "prompt=x", "--watch", "--json").stdout)
        took_s = first.stop(number)

        assert (first.exit_code, took_s < 60) == (0, True), first.log
        assert not any(listens(port) for port in first.ports.values())
        assert not (tmp_path / ".callsheet" / "up.json").exists()

    with running(tmp_path) as second:
        assert second.running["api_key"] == first.running["api_key"]
        again = json.loads(call("jobs", "show", done["id"], "--json", cwd=tmp_path).stdout)
        # Our own copy, which tells the length, may have become safe since.
        known = {name: amount for name, amount in done["cost"].items() if amount is not None}
        assert known.items() <= again["cost"].items()


def test_what_was_accepted_survives_a_kill(tmp_path):
    # One at fal at a time: when it is killed, one job is there for sure, and another still waits for its turn.
    with running(tmp_path, TENANT_AT_ONCE="1") as first:
        # The next start has a clock that goes on.
        httpx.put(f"{first.running['simulator_url']}/simulator/clock", json={"stopped": True})
        at_fal = json.loads(first.submit(O3, "-i", "prompt=x", "--json").stdout)
        status_of(first, at_fal["id"], "submitted")
        waiting = json.loads(first.submit(O3, "-i", "prompt=y", "--json").stdout)
        first.stop(signal.SIGKILL)

    with running(tmp_path) as second:
        ended = [status_of(second, job["id"], "succeeded") for job in (at_fal, waiting)]
        assert [(job["cost"]["charged"], job["attempts"]) for job in ended] == [("2.10", 1), ("2.10", 1)]


def test_without_a_running_one_commands_say_so(tmp_path):
    done = call("jobs", "list", cwd=tmp_path)

    assert done.returncode == 3
    assert "callsheet up" in done.stderr


def test_config_shows_what_is_set_and_hides_secrets(tmp_path):
    told = fresh("config", cwd=tmp_path, FAL_KEY="id:secret", PORT="1234", COLUMNS="200").stdout

    assert "id:secret" not in told
    assert "1234" in told
    assert "environment" in told


def test_models_are_listed_and_told(tmp_path):
    listed = fresh("models", cwd=tmp_path, COLUMNS="200").stdout
    told = json.loads(call("models", O3, cwd=tmp_path).stdout)
    unknown = call("models", "kling", cwd=tmp_path)

    assert O3 in listed
    assert told["input_schema"]["type"] == "object"
    assert unknown.returncode == 2


def test_streams_end_when_everything_stops_and_lose_nothing_when_it_is_killed(tmp_path):
    with running(tmp_path) as up:
        client = httpx.Client(
            base_url=up.running["url"], headers={"Authorization": f"Bearer {up.running['api_key']}"}, trust_env=False
        )
        # fal has it for an hour by its own clock, so nothing ends it but us.
        client.put(f"{up.running['simulator_url']}/simulator/clock", json={"stopped": True})
        order = {"model": O3, "input": {"prompt": MECHA, "duration": "5"}}
        job = client.post("/v1/jobs", json=order).json()
        path = f"/v1/jobs/{job['id']}/events"
        seen: list[str] = []
        with client.stream("GET", path, timeout=20) as answer:
            lines = answer.iter_lines()
            while len(seen) < 3:
                seen += [line[4:] for line in (next(lines),) if line.startswith("id: ")]
            up.stop(signal.SIGKILL)
    with running(tmp_path) as up:
        client = httpx.Client(
            base_url=up.running["url"], headers={"Authorization": f"Bearer {up.running['api_key']}"}, trust_env=False
        )
        assert client.post(f"/v1/jobs/{job['id']}/cancel").is_success
        with client.stream("GET", path, headers={"Last-Event-ID": seen[-1]}, timeout=20) as answer:
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    seen.append(line[4:])
                if len(seen) == 4:
                    break
        with client.stream("GET", "/v1/events", timeout=20) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line) == ": hello"
            took = up.stop()
            rest = list(lines)

    assert seen == ["1", "2", "3", "4"]
    # It begins with what happens from now on, and has an end rather than being cut.
    assert not any(f'"number":{past},' in line.replace(" ", "") for line in rest for past in seen)
    assert (took < 60, up.exit_code) == (True, 0), up.log
