"""callsheet jobs submit, show, list, cancel: over the REST API, as any caller would."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from app.cli.running import Running
from app.cli.tables import show_table
from app.cli.trouble import Exit, Trouble
from app.settings import Settings

POLL_S: Final = 0.5
SENDS: Final = 5
SAFE_S: Final = 10.0
"""How long our own copy of a finished video is waited for before fal's is taken."""
ENDED: Final = ("succeeded", "failed", "canceled", "expired")
Data = Annotated[Path | None, Parameter(help="Data folder of the running `callsheet up`, instead of DATA.")]
AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print the job as JSON, and nothing else.")]


def submit(
    model: str,
    /,
    *,
    input_: Annotated[tuple[str, ...], Parameter(name=["--input", "-i"], negative="")] = (),
    input_file: Path | None = None,
    watch: Annotated[bool, Parameter(name=["--watch", "-w"], negative="")] = False,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    max_cost: str | None = None,
    idempotency_key: str | None = None,
    as_json: AsJson = False,
    data: Data = None,
) -> int:
    """
    Order a video; exits 0 if it succeeded (with --watch), 1 if not, 2 if refused, 3 if unreachable.

    Parameters
    ----------
    model
        Id of the model, from `callsheet models`.
    input_
        One field of the model's input: name=text, or name:=json for anything else. Give it several times.
    input_file
        JSON file with the model's input; fields given with -i win.
    watch
        Follow the job to its end.
    output
        Save the video here; watches by itself.
    max_cost
        Refuse the order if it costs more than this, in USD.
    idempotency_key
        Makes sending it again safe; made up if you give none.
    """
    if output is not None and not output.parent.is_dir():
        raise Trouble(f"--output: there is no folder {output.parent}")
    body: dict[str, Any] = {"model": model, "input": _input(input_, input_file)}
    if max_cost is not None:
        body["max_cost"] = max_cost
    with _client(data) as client:
        job = _send(client, body, idempotency_key or str(uuid4()))
        if not as_json:
            Console(stderr=True, highlight=False).print(f"accepted {job['id']}", markup=False)
        if watch or output:
            job = _follow(client, job, quiet=as_json)
        if output and job["status"] == "succeeded":
            _save(client, job, output)
            # By now it is safe, and its real length known.
            job = _ask(client, "GET", f"/v1/jobs/{quote(job['id'])}")
    _tell(job, output, as_json=as_json)
    return Exit.JOB_NOT_SUCCEEDED if job["status"] in ENDED and job["status"] != "succeeded" else Exit.DONE


def show(job_id: UUID, /, *, as_json: AsJson = False, data: Data = None) -> None:
    """
    Look at a job.

    Parameters
    ----------
    job_id
        The job's id.
    """
    with _client(data) as client:
        _tell(_ask(client, "GET", f"/v1/jobs/{job_id}"), None, as_json=as_json)


def index(
    *,
    status: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    limit: int = 20,
    as_json: AsJson = False,
    data: Data = None,
) -> None:
    """
    List jobs, newest first.

    Parameters
    ----------
    status
        Only these statuses.
    limit
        How many.
    """
    with _client(data) as client:
        found = _ask(client, "GET", "/v1/jobs", params={"status": list(status), "limit": limit})
    if as_json:
        print(json.dumps(found["data"], indent=2, ensure_ascii=False))
        return
    table = Table("id", "status", "model", "USD", "created", box=box.SIMPLE_HEAD)
    for job in found["data"]:
        cost = job["cost"]
        table.add_row(job["id"], job["status"], job["model"], cost["charged"] or cost["held"], job["created_at"][:19])
    show_table(table)


def cancel(job_id: UUID, /, *, as_json: AsJson = False, data: Data = None) -> None:
    """
    Cancel a job: free if fal never had it; else fal is asked to stop, and the job ends as fal says.

    Parameters
    ----------
    job_id
        The job's id.
    """
    with _client(data) as client:
        job = _ask(client, "POST", f"/v1/jobs/{job_id}/cancel")
    _tell(job, None, as_json=as_json)


def _client(data: Path | None) -> httpx.Client:
    running = Running.find(data or Settings.read().data)
    return httpx.Client(
        base_url=running.url,
        headers={"Authorization": f"Bearer {running.api_key}"},
        timeout=30,
        trust_env=False,
    )


def _input(fields: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Trouble(f"--input-file: {file} isn't readable JSON: {error}") from None
        if not isinstance(found, dict):
            raise Trouble(f"--input-file: {file} must hold a JSON object")
    for field in fields:
        name, sign, value = field.partition("=")
        if not sign or not name.rstrip(":"):
            raise Trouble(f"-i: {field!r} must be name=text or name:=json")
        if name.endswith(":"):
            try:
                found[name[:-1]] = json.loads(value)
            except ValueError:
                raise Trouble(f"-i: {name}= must be followed by JSON") from None
        else:
            found[name] = value
    return found


def _send(client: httpx.Client, body: dict[str, Any], key: str) -> Any:
    """Order, and order again if the answer got lost: the key makes that one job."""
    for attempt in range(SENDS):
        try:
            return _ask(client, "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})
        except Trouble as trouble:
            if trouble.code is not Exit.UNREACHABLE:
                raise
            if attempt == SENDS - 1:
                again = f"To try again without ordering twice, add --idempotency-key {key}"
                raise Trouble(f"{trouble}\n{again}", Exit.UNREACHABLE) from None
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise Trouble(f"{client.base_url} can't be reached ({type(error).__name__}).", Exit.UNREACHABLE) from None
    if answer.is_success:
        return answer.json()
    raise Trouble(_refusal(answer), Exit.UNREACHABLE if answer.status_code >= 500 else Exit.REFUSED)


def _refusal(answer: httpx.Response) -> str:
    try:
        told = answer.json()
    except ValueError:
        return f"The service answers {answer.status_code}."
    lines = [" ".join(filter(None, [told.get("title"), told.get("detail")]))]
    lines += [f"  {fault['pointer']}: {fault['detail']}" for fault in told.get("errors", [])]
    return "\n".join(lines)


def _follow(client: httpx.Client, job: Any, *, quiet: bool) -> Any:
    console = Console(stderr=True, quiet=quiet)
    since = time.monotonic()
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        away = ""
        while job["status"] not in ENDED:
            live.update(_line(job, time.monotonic() - since) + away)
            time.sleep(POLL_S)
            try:
                job, away = _ask(client, "GET", f"/v1/jobs/{quote(job['id'])}"), ""
            except Trouble as trouble:
                away = " · Callsheet can't be reached just now"
                # A service that restarts keeps the job; so it pays to keep asking.
                if trouble.code is not Exit.UNREACHABLE:
                    raise
    return job


def _line(job: Any, elapsed_s: float) -> str:
    waiting = job["waiting"] or {}
    place = waiting.get("queue_position")
    where = f", {place} ahead in fal's queue" if place is not None else ""
    return f"{job['status']}{where} · {elapsed_s:.0f} s · {job['cost']['held']} USD held"


def _save(client: httpx.Client, job: Any, path: Path) -> None:
    """Save the job's video: our own copy, or fal's if there is none."""
    theirs = (job["output"].get("video") or {}).get("url")
    urls = [url for url in (_kept(client, job), theirs) if url is not None]
    if not urls:
        raise Trouble("The output names no video to save; see it with --json.")
    beside = path.with_name(path.name + ".part")
    for url in urls:
        try:
            # It may be another host's file: our key stays at home.
            with httpx.stream("GET", url, timeout=60, follow_redirects=True) as answer, beside.open("wb") as file:
                answer.raise_for_status()
                for part in answer.iter_bytes():
                    file.write(part)
        except (httpx.HTTPError, OSError) as error:
            beside.unlink(missing_ok=True)
            if url == urls[-1]:
                text = f"The video is at {theirs or url}, but could not be saved: {error}"
                raise Trouble(text, Exit.UNREACHABLE) from None
        else:
            beside.replace(path)
            return


def _kept(client: httpx.Client, job: Any) -> str | None:
    """The address of our own copy, once it is safe; None if it takes long, or there is none."""
    until = time.monotonic() + SAFE_S
    while time.monotonic() < until:
        try:
            answer = client.get(f"/v1/jobs/{quote(job['id'])}/output")
        except httpx.HTTPError:
            return None
        if answer.status_code == 307:
            return str(client.base_url.join(answer.headers["location"]))
        if answer.status_code != 409:
            return None
        time.sleep(POLL_S)
    return None


def _tell(job: Any, saved: Path | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    cost = job["cost"]
    console.print(f"{job['id']}  {job['status']}", style="bold", markup=False)
    if job["output"]:
        url = (job["output"].get("video") or {}).get("url")
        console.print(f"  video    {url or json.dumps(job['output'])}", markup=False)
    if saved and job["status"] == "succeeded":
        console.print(f"  saved    {saved} ({saved.stat().st_size:,} bytes)", markup=False)
    if job["error"]:
        console.print(f"  reason   {job['error']['title']} {job['error']['detail'] or ''}", markup=False)
    if job["cancel_requested_at"] and job["status"] not in ENDED:
        console.print("  cancel   requested; fal may still finish it, and it is charged then", markup=False)
    if cost["charged"] is not None:
        console.print(f"  charged  {cost['charged']} USD for {cost['seconds']} s", markup=False)
    else:
        console.print(f"  held     {cost['held']} USD for {cost['seconds']} s", markup=False)
