"""
Event streams in the API's document: a stream is a text, and `itemSchema`, as OpenAPI 3.2 has it, says what an event is.

FastAPI says that the text is at once of the shape that the route names, so that it comes into the document at all.
"""

from typing import Any

from app.sse import EventStream


def tell_streams(document: dict[str, Any]) -> None:
    """Let *document* say of each stream that it is a text, and no more."""
    for item in document["paths"].values():
        for operation in item.values():
            content = operation["responses"].get("200", {}).get("content", {})
            if EventStream.media_type in content:
                content[EventStream.media_type]["schema"] = {"type": "string"}
