"""FastAPI as it comes, with nothing behind it: `python -m tests.bench.rivals.plain PORT`."""

import sys
from typing import Any
from uuid import uuid4

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class VideoIn(BaseModel):
    model: str
    input: dict[str, Any]


class VideoOut(BaseModel):
    id: str
    status: str


@app.post("/v1/jobs", status_code=202)
async def create(order: VideoIn) -> VideoOut:
    return VideoOut(id=str(uuid4()), status="queued")


@app.get("/livez")
async def livez() -> None:
    return None


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
