"""callsheet jobs submit, show, list, cancel: over the REST API, as any caller would."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import httpx
from cyclopts import Parameter
from cyclopts.validators import Number
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from app.cli.running import Running
from app.cli.tables import show_table
from app.cli.trouble import Exit, Trouble
from app.client import (
    CallsheetError,
    Client,
    Event,
    Job,
    OrderOptions,
    Refused,
    TooManyRequests,
    Unavailable,
    Unreachable,
)
from app.client.saving import target
from app.settings import Settings

POLL_S: Final = 0.5
RETRIES: Final = 2
"""For commands that people type again."""
SAFE_S: Final = 10.0
"""How long our own copy of a finished video is waited for before fal's is taken."""
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
        One field of the model's input: name=text, name=@path for a file, or name:=json for anything else. Give it
        several times; name[]=… adds to a list.
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
    value = _input(input_, input_file)
    options: OrderOptions = {}
    if max_cost is not None:
        options["max_cost"] = max_cost
    if idempotency_key is not None:
        options["idempotency_key"] = idempotency_key
    with _callsheet(data, retries=RETRIES * 2) as client:
        job = client.create(model, _with_files(client, value, quiet=as_json), **options)
        if not as_json:
            Console(stderr=True, highlight=False).print(f"accepted {job.id}", markup=False)
        if watch or output:
            job = _follow(client, job, quiet=as_json)
        if output and job.succeeded:
            _save(client, job, output)
            # By now it is safe, and its real length known.
            job = client.get(job.id)
    _tell(job, output, as_json=as_json)
    return Exit.JOB_NOT_SUCCEEDED if job.ended and not job.succeeded else Exit.DONE


def show(job_id: UUID, /, *, as_json: AsJson = False, data: Data = None) -> None:
    """
    Look at a job.

    Parameters
    ----------
    job_id
        The job's id.
    """
    with _callsheet(data) as client:
        _tell(client.get(str(job_id)), None, as_json=as_json)


def index(
    *,
    status: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
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
    with _callsheet(data) as client:
        found = list(islice(client.list(status=status), limit))
    if as_json:
        print(json.dumps([job.raw for job in found], indent=2, ensure_ascii=False))
        return
    table = Table("id", "status", "model", "USD", "created", box=box.SIMPLE_HEAD)
    for job in found:
        cost = job.cost.held if job.cost.charged is None else job.cost.charged
        table.add_row(job.id, job.status, job.model, str(cost), job.raw["created_at"][:19])
    show_table(table)


def cancel(job_id: UUID, /, *, as_json: AsJson = False, data: Data = None) -> None:
    """
    Cancel a job: free if fal never had it; else fal is asked to stop, and the job ends as fal says.

    Parameters
    ----------
    job_id
        The job's id.
    """
    with _callsheet(data) as client:
        job = client.cancel(str(job_id))
    _tell(job, None, as_json=as_json)


@contextmanager
def _callsheet(data: Path | None, retries: int = RETRIES) -> Iterator[Client]:
    running = Running.find(data or Settings.read().data)
    with Client(running.url, running.api_key, retries=retries, http=httpx.Client(trust_env=False)) as client:
        try:
            yield client
        except CallsheetError as error:
            away = isinstance(error, Unreachable | Unavailable)
            text = f"{running.url} can't be reached: {error}" if isinstance(error, Unreachable) else str(error)
            if away and error.idempotency_key:
                text += f"\nTo try again without ordering twice, add --idempotency-key {error.idempotency_key}"
            raise Trouble(text, Exit.UNREACHABLE if away else Exit.REFUSED) from None


def _input(fields: tuple[str, ...], file: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Trouble(f"--input-file: {file} isn't readable JSON: {error}") from None
        if not isinstance(found, dict):
            raise Trouble(f"--input-file: {file} must hold a JSON object")
    given: dict[str, Any] = {}
    for field in fields:
        written, sign, text = field.partition("=")
        name = written.removesuffix(":").removesuffix("[]")
        if not sign or not name:
            raise Trouble(f"-i: {field!r} must be name=text or name:=json")
        value = _value(written, text)
        if not written.removesuffix(":").endswith("[]"):
            given[name] = value
        elif isinstance(given.setdefault(name, []), list):
            given[name].append(value)
        else:
            raise Trouble(f"-i: {name} is given as one value and as a list")
    return {**found, **given}


def _value(written: str, text: str) -> Any:
    """What *text* stands for in a field whose name is *written* so."""
    if not written.endswith(":"):
        return _file(written, text) if text.startswith("@") else text
    try:
        return json.loads(text)
    except ValueError:
        raise Trouble(f"-i: {written}= must be followed by JSON") from None


def _file(name: str, value: str) -> Path:
    path = Path(value[1:]).expanduser()
    if path.is_file():
        return path
    as_text = json.dumps(value, ensure_ascii=False)
    raise Trouble(f"-i: there is no file {path} to hand in; if {value} is meant as text, write {name}:='{as_text}'")


def _with_files(client: Client, value: Any, *, quiet: bool) -> Any:
    """*value*, with each Path in it handed in, and its address instead."""
    if isinstance(value, dict):
        return {name: _with_files(client, one, quiet=quiet) for name, one in value.items()}
    if isinstance(value, list):
        return [_with_files(client, one, quiet=quiet) for one in value]
    if not isinstance(value, Path):
        return value
    url = client.upload(value).url
    # Who sends the order again says the address: another upload would make it another order.
    Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet).print(f"uploaded {value} as {url}", markup=False)
    return url


def _follow(client: Client, job: Job, *, quiet: bool) -> Job:
    console = Console(stderr=True, quiet=quiet)
    since = time.monotonic()
    seen: Event | Job = job
    last: str | None = None
    away = ""

    def line() -> str:
        place = seen.waiting.queue_position if seen.waiting else None
        where = f", {place} ahead in fal's queue" if place is not None else ""
        return f"{seen.status}{where} · {time.monotonic() - since:.0f} s · {job.cost.held} USD held{away}"

    with Live(get_renderable=line, console=console, refresh_per_second=8, transient=True):
        while not job.ended:
            try:
                for event in client.events(job.id, after=last):
                    seen, last, away = event, event.id or last, ""
            except (Unreachable, Unavailable, TooManyRequests):
                # All its streams may be taken; then it is asked now and then.
                time.sleep(POLL_S)
            try:
                seen = job = client.get(job.id)
                away = ""
            except (Unreachable, Unavailable):
                # A service that restarts keeps the job; so it pays to keep asking.
                away = " · Callsheet can't be reached just now"
    return job


def _save(client: Client, job: Job, path: Path) -> None:
    """Save the job's video: our own copy, or fal's if there is none in time."""
    try:
        client.download(job.id, path, timeout_s=SAFE_S)
    except (Refused, Unreachable) as error:
        if job.video_url is None:
            raise Trouble(f"There is no video to save: {error} See the output with --json.") from None
        _save_theirs(job.video_url, path)
    except OSError as error:
        raise Trouble(f"--output: {path} can't be written: {error.strerror}") from None


def _save_theirs(url: str, path: Path) -> None:
    try:
        with target(path) as file, httpx.stream("GET", url, timeout=60, follow_redirects=True) as answer:
            answer.raise_for_status()
            for part in answer.iter_bytes():
                file.write(part)
    except (httpx.HTTPError, OSError) as error:
        raise Trouble(f"The video is at {url}, but could not be saved: {error}", Exit.UNREACHABLE) from None


def _tell(job: Job, saved: Path | None, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job.raw, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    cost = job.cost
    console.print(f"{job.id}  {job.status}", style="bold", markup=False)
    if job.output:
        console.print(f"  video    {job.video_url or json.dumps(job.output)}", markup=False)
    if saved and job.succeeded:
        console.print(f"  saved    {saved} ({saved.stat().st_size:,} bytes)", markup=False)
    if job.error:
        console.print(f"  reason   {job.error.title} {job.error.detail or ''}", markup=False)
    if job.cancel_requested_at and not job.ended:
        console.print("  cancel   requested; fal may still finish it, and it is charged then", markup=False)
    if cost.charged is not None:
        console.print(f"  charged  {cost.charged} USD for {cost.seconds} s", markup=False)
    else:
        console.print(f"  held     {cost.held} USD for {cost.seconds} s", markup=False)
