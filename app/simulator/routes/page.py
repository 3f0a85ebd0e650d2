"""The page that says what this is."""

from html import escape
from itertools import islice
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, RedirectResponse

from app.simulator.routes.admin import TheSimulator, totals

router = APIRouter(include_in_schema=False)

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="3">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>fal simulator</title>
<style>
  body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }}
  .notice {{ background: #fff3bf; color: #222; padding: .75rem 1rem; border-radius: .5rem; font-weight: 600; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8883; }}
  td.id {{ font-family: ui-monospace, monospace; font-size: 12px; }}
</style></head><body>
<h1>fal simulator</h1>
<p class="notice">This is a simulator, not fal: no money is spent and no model runs.
Its videos are test pictures.</p>
<p>{summary}</p>
<table><thead><tr><th>Request</th><th>Endpoint</th><th>State</th><th>Outcome</th><th>Would have cost</th></tr></thead>
<tbody>{rows}</tbody></table>
<p><a href="/simulator/requests">All books (JSON)</a> · <a href="/docs">What can be set here</a></p>
</body></html>
"""


@router.get("/", response_class=RedirectResponse)
async def to_page() -> str:
    return "/simulator"


@router.get("/simulator", response_class=HTMLResponse)
async def page(simulator: TheSimulator) -> str:
    """The newest requests, and the plain word that no money is spent."""
    newest = islice(reversed(simulator.queue.requests.values()), 50)
    rows = []
    for one in newest:
        result = one.result
        outcome = "" if result is None else result.error_type or "ok"
        cost = "" if result is None else f"${result.amount:f}"
        cells = (one.endpoint, one.state.value, outcome, cost)
        said = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr><td class="id">{escape(one.request_id)}</td>{said}</tr>')
    summary = " · ".join(f"{escape(name.replace('_', ' '))}: {value}" for name, value in totals(simulator).items())
    return PAGE.format(summary=summary, rows="".join(rows) or '<tr><td colspan="5">Nothing yet.</td></tr>')
