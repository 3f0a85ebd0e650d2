"""The page at /incidents: what needs a person, live; from our own files, for it must work when little else does."""

from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

STATIC: Final = Path(__file__).parent / "static"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def install(app: FastAPI) -> None:
    """Serve the page. It holds nothing by itself: it asks for an admin key, and the API for the incidents."""

    @app.get("/incidents", include_in_schema=False)
    async def incidents() -> FileResponse:
        return FileResponse(STATIC / "page.html", headers={"Content-Security-Policy": POLICY})

    app.mount("/incidents/static", StaticFiles(directory=STATIC), name="incidents_static")
