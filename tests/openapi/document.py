"""
docs/openapi.json: the API reference that clients are generated from, as it is handed out.

`make openapi` renews it, and refuses to where callers would break, unless BREAKING says why that is meant.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from app.main import create_app
from app.settings import Settings
from tests.openapi.changes import breaks

PATH: Final = Path(__file__).parents[2] / "docs" / "openapi.json"


def current() -> dict[str, Any]:
    """The document as the code has it now."""
    # No setting shows in it; these are only those without which there is no service.
    settings = Settings.read(database_url="postgresql://nowhere/callsheet", fal_key="none", _env_file=None)
    return create_app(settings).openapi()


def kept() -> dict[str, Any]:
    """The document as it was last handed out."""
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return found


def written(document: dict[str, Any]) -> str:
    """*document* as a text that differs only where it differs."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Renew the kept document."""
    now = current()
    broken = breaks(kept(), now) if PATH.exists() else []
    if broken and not os.environ.get("BREAKING"):
        print("This would break callers:", *broken, sep="\n  ")
        sys.exit("Change it so that it doesn't; or, if it is meant, see 'Change the API' in CONTRIBUTING.md.")
    PATH.write_text(written(now), encoding="utf-8")


if __name__ == "__main__":
    main()
