"""
The service that a tutorial would have you write: `python -m tests.bench.rivals.tutorial PORT`.

One ORM session and one httpx client a request; the order goes to fal before it is answered.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import JSON
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(os.environ["DATABASE_URL"])
new_session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Video(Base):
    __tablename__ = "videos"

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str]
    input: Mapped[dict[str, Any]] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(default="queued")
    request_id: Mapped[str | None]


class VideoIn(BaseModel):
    model: str
    input: dict[str, Any]


class VideoOut(BaseModel):
    id: int
    status: str
    request_id: str | None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield


app = FastAPI(lifespan=lifespan)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


@app.post("/v1/jobs", status_code=202)
async def create(order: VideoIn, session: Annotated[AsyncSession, Depends(get_session)]) -> VideoOut:
    video = Video(model=order.model, input=order.input)
    session.add(video)
    await session.commit()
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{os.environ['FAL_QUEUE_URL']}/{order.model}", json=order.input)
    video.request_id = answer.json()["request_id"]
    video.status = "submitted"
    await session.commit()
    await session.refresh(video)
    return VideoOut(id=video.id, status=video.status, request_id=video.request_id)


@app.get("/livez")
async def livez() -> None:
    return None


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
