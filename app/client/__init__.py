"""
Callsheet from Python: order a video, follow it, fetch it.

    from app.client import Client

    with Client("https://callsheet.example.com", "cs_…") as callsheet:
        job = callsheet.run("fal-ai/kling-video/o3/4k/text-to-video", {"prompt": "A lighthouse in a storm"})
        callsheet.download(job.id, "lighthouse.mp4")

It stands by itself, and needs httpx and the standard library only. `calls` says what is asked and when it is asked
again, without doing it; `Client` does it, `AsyncClient` does it in an event loop. `callbacks` is the other direction.
"""

from app.client.asynchronous import AsyncClient
from app.client.callbacks import Callback, InvalidCallback, verify_callback
from app.client.errors import (
    CallsheetError,
    Conflict,
    Fault,
    Forbidden,
    InvalidOrder,
    JobNotSucceeded,
    NotFound,
    PaymentRequired,
    Refused,
    StillRunning,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from app.client.orders import OrderOptions, Wanted
from app.client.results import Balance, Cost, Event, File, Job, JobError, Quote, Waiting
from app.client.synchronous import Client

__all__ = [
    "AsyncClient",
    "Balance",
    "Callback",
    "CallsheetError",
    "Client",
    "Conflict",
    "Cost",
    "Event",
    "Fault",
    "File",
    "Forbidden",
    "InvalidCallback",
    "InvalidOrder",
    "Job",
    "JobError",
    "JobNotSucceeded",
    "NotFound",
    "OrderOptions",
    "PaymentRequired",
    "Quote",
    "Refused",
    "StillRunning",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "Waiting",
    "Wanted",
    "verify_callback",
]
