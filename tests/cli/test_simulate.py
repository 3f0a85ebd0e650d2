"""`callsheet simulate` as a process of its own."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.cli.commands import environment
from tests.ports import free_port

O3 = "/fal-ai/kling-video/o3/4k/text-to-video"


def test_it_stops_although_somebody_watches_a_request_that_never_ends(tmp_path: Path):
    port = free_port()
    command = (sys.executable, "-m", "app.cli", "simulate", "--port", str(port))
    process = subprocess.Popen(command, cwd=tmp_path, env=environment())
    try:
        transport = httpx.HTTPTransport(retries=100)
        fal = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Key k:s"}, transport=transport, timeout=60
        )
        with fal:
            script = {"X-Simulator-Script": json.dumps({"stuck": "queue"})}
            request_id = fal.post(O3, json={"prompt": "x"}, headers=script).json()["request_id"]
            with fal.stream("GET", f"/fal-ai/kling-video/requests/{request_id}/status/stream") as stream:
                # Kept, for whoever lets go of it hangs up.
                lines = stream.iter_lines()
                assert any("IN_QUEUE" in line for line in lines)
                process.terminate()

                assert process.wait(30) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
