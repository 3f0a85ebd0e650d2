"""
Which differences between two OpenAPI documents break callers (pure).

What callers send may come to be taken more widely, never less; what they are sent may come to say more, never less.
A new word in an enumeration of an answer breaks nobody: callers are asked to bear words that they don't know.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

Json = Mapping[str, Any]
NOTHING: Final[Json] = {}
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
PROBLEM: Final = "application/problem+json"
UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")


def breaks(old: Json, new: Json) -> list[str]:
    """Each way in which a caller who keeps to *old* can't do with *new*, in words; none if all can."""
    both = Both(old, new)
    found = [
        *_of_paths(both, old.get("paths", NOTHING), new.get("paths", NOTHING), both.of_operation),
        *_of_paths(both, old.get("webhooks", NOTHING), new.get("webhooks", NOTHING), both.of_webhook),
    ]
    return list(dict.fromkeys(found))


def _of_paths(both: "Both", old: Json, new: Json, compare: Callable[[str, Json, Json], Iterator[str]]) -> Iterator[str]:
    for path, item in old.items():
        for method in METHODS:
            if method not in item:
                continue
            name = f"{method.upper()} {path}"
            if method not in new.get(path, NOTHING):
                yield f"{name}: is gone"
            else:
                yield from compare(name, item[method], new[path][method])


@dataclass(frozen=True)
class Both:
    """The two documents, whose parts refer to other parts."""

    old: Json
    new: Json

    def of_operation(self, at: str, old: Json, new: Json) -> Iterator[str]:
        """What callers ask, and what they are answered."""
        if old.get("operationId") != new.get("operationId"):
            yield f"{at}: its id {old.get('operationId')} is now {new.get('operationId')}"
        for one in old.get("security", ()):
            if new.get("security") and one not in new["security"]:
                yield f"{at}: no longer open to {', '.join(one) or 'anyone'}"
        yield from self._of_parameters(at, _parameters(old), _parameters(new))
        yield from self._of_body(at, old.get("requestBody"), new.get("requestBody"))
        for code, answer in old.get("responses", NOTHING).items():
            if code not in new["responses"]:
                yield f"{at}: is no longer answered with {code}"
            else:
                yield from self._of_answer(f"{at}: {code}", answer, new["responses"][code])

    def of_webhook(self, at: str, old: Json, new: Json) -> Iterator[str]:
        """What callers are sent: to them, its body is an answer, and so are its headers."""
        for name in sorted(_parameters(old).keys() - _parameters(new).keys()):
            yield f"{at}: no longer has the {name}"
        yield from self._of_answer(at, old.get("requestBody", NOTHING), new.get("requestBody", NOTHING))

    def _of_parameters(self, at: str, old: dict[str, Json], new: dict[str, Json]) -> Iterator[str]:
        for name, parameter in new.items():
            if parameter.get("required") and not old.get(name, NOTHING).get("required"):
                yield f"{at}: needs {name} now"
        for name, parameter in old.items():
            if name not in new:
                yield f"{at}: no longer takes {name}"
            else:
                yield from self._sent(
                    f"{at}: {name}", parameter.get("schema", NOTHING), new[name].get("schema", NOTHING)
                )

    def _of_body(self, at: str, old: Json | None, new: Json | None) -> Iterator[str]:
        if new and new.get("required") and not (old and old.get("required")):
            yield f"{at}: needs a body now"
        for kind, content in (old or NOTHING).get("content", NOTHING).items():
            taken = (new or NOTHING).get("content", NOTHING)
            if kind not in taken:
                yield f"{at}: no longer takes {kind}"
            else:
                yield from self._sent(f"{at}: body", content.get("schema", NOTHING), taken[kind].get("schema", NOTHING))

    def _of_answer(self, at: str, old: Json, new: Json) -> Iterator[str]:
        for header in old.get("headers", NOTHING):
            if header not in new.get("headers", NOTHING):
                yield f"{at}: no longer has the header {header}"
        for kind, content in old.get("content", NOTHING).items():
            if kind not in new.get("content", NOTHING):
                yield f"{at}: no longer comes as {kind}"
                continue
            now = new["content"][kind]
            for part in ("schema", "itemSchema"):
                yield from self._told(at, content.get(part, NOTHING), now.get(part, NOTHING))
            # Of an error, callers know the code; only the examples list them.
            for code in content.get("examples", NOTHING) if kind == PROBLEM else ():
                if code not in now.get("examples", NOTHING):
                    yield f"{at}: no longer has the code {code}"

    def _sent(self, at: str, old: Json, new: Json) -> list[str]:
        """Breaks of something that callers send: all that was taken must still be."""
        return Shapes(self.old, self.new, sent=True).breaks(at, old, new)

    def _told(self, at: str, old: Json, new: Json) -> list[str]:
        """Breaks of something that callers are told: all that is told must be of a kind they know."""
        return Shapes(self.old, self.new, sent=False).breaks(at, old, new)


@dataclass(frozen=True)
class Shapes:
    """Schemas of two documents, of what callers send or of what they are told."""

    old: Json
    new: Json
    sent: bool
    open: frozenset[tuple[str, str]] = frozenset()
    """Pairs of references that are being compared: a shape may hold itself."""

    def breaks(self, at: str, old: Json, new: Json) -> list[str]:
        """Breaks between two schemas."""
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if pair in self.open:
            return []
        inside = Shapes(self.old, self.new, self.sent, self.open | {pair}) if any(pair) else self
        was, now = list(_alternatives(self.old, old)), list(_alternatives(self.new, new))
        # Each of these must find its like among those.
        these, those = (was, now) if self.sent else (now, was)
        found: list[str] = []
        for this in these:
            tries = [
                list(inside.of_kind(at, *((this, that) if self.sent else (that, this))))
                for that in those
                if _like(this, that)
            ]
            if tries:
                fewest: list[str] = min(tries, key=len)
                found += fewest
            else:
                found.append(f"{at}: {'no longer takes' if self.sent else 'may now be'} {_kind(this)}")
        return found

    def of_kind(self, at: str, old: Json, new: Json) -> Iterator[str]:
        """Breaks between two schemas of one type."""
        yield from self._of_words(at, old, new)
        if self.sent:
            yield from _of_limits(at, old, new)
        yield from self._of_fields(at, old, new)
        for part in ("items", "additionalProperties", "propertyNames", "contentSchema"):
            was, now = old.get(part, True), new.get(part, True)
            if isinstance(was, Mapping) and isinstance(now, Mapping):
                yield from self.breaks(f"{at}/*", was, now)
            elif self.sent and was is not False and now is False:
                yield f"{at}: takes no other fields now"

    def _of_words(self, at: str, old: Json, new: Json) -> Iterator[str]:
        was, now = _words(old), _words(new)
        if was and now:
            yield from (f"{at}: no longer knows {word!r}" for word in was if word not in now)
        elif now and self.sent:
            yield f"{at}: takes only certain words now"
        was_format, now_format = old.get("format"), new.get("format")
        if was_format != now_format and (now_format if self.sent else was_format):
            yield f"{at}: its format {was_format or 'any'} is now {now_format or 'any'}"

    def _of_fields(self, at: str, old: Json, new: Json) -> Iterator[str]:
        was, now = old.get("properties", NOTHING), new.get("properties", NOTHING)
        # A caller relies on what it had to be sent, and on not having to send more.
        had_to, has_to = set(old.get("required", ())), set(new.get("required", ()))
        if self.sent:
            yield from (f"{at}/{name}: is needed now" for name in sorted(has_to - had_to))
        else:
            yield from (f"{at}/{name}: may be missing now" for name in sorted((had_to - has_to) & now.keys()))
        for name, schema in was.items():
            if name not in now:
                yield f"{at}/{name}: is gone"
            else:
                yield from self.breaks(f"{at}/{name}", schema, now[name])


def _of_limits(at: str, old: Json, new: Json) -> Iterator[str]:
    for name in UPPER:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{at}: {name} is now {new[name]}"
    for name in LOWER:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{at}: {name} is now {new[name]}"
    for pattern in new.get("patternProperties", NOTHING):
        if pattern not in old.get("patternProperties", NOTHING):
            yield f"{at}: the names of its fields must match another pattern now"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{at}: must match another pattern now"


def _parameters(operation: Json) -> dict[str, Json]:
    """The parameters of *operation*, by where they stand and what they are called."""
    return {f"{one['in']} parameter {one['name']}": one for one in operation.get("parameters", ())}


def _alternatives(document: Json, schema: Json) -> Iterator[Json]:
    """Each single type that *schema* allows."""
    while "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    for union in ("anyOf", "oneOf"):
        if union in schema:
            for one in schema[union]:
                yield from _alternatives(document, one)
            return
    types = schema.get("type")
    for one in types if isinstance(types, list) else [types]:
        yield {**schema, "type": one}


def _like(this: Json, that: Json) -> bool:
    """Whether whatever is of the type of *this* is of the type of *that*, too."""
    return that["type"] in {None, this["type"]} or (this["type"], that["type"]) == ("integer", "number")


def _kind(schema: Json) -> str:
    return schema["type"] or "anything"


def _words(schema: Json) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))
