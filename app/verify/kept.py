"""What the last proof found, as it is kept for whoever looks later."""

from typing import Any

from app.verify.check import Severity
from app.verify.verifier import Report


def kept(report: Report, before: dict[str, Any] | None) -> dict[str, Any]:
    """
    *report* as JSON: each broken promise by its check, with how often, the first ids, and since when.

    A finding keeps its `since` from the proof *before*, and its `changed` for as long as nothing about it changes.
    """
    known = (before or {}).get("failures", {})
    now = report.at.isoformat()
    failures: dict[str, Any] = {}
    for finding in report.findings:
        if finding.check.severity is not Severity.FAILURE:
            continue
        name, facts = finding.check.name, {"count": finding.count, "examples": finding.examples}
        old = known.get(name, {})
        same = facts.items() <= old.items()
        failures[name] = {**facts, "since": old.get("since", now), "changed": old["changed"] if same else now}
    return {"at": now, "took_s": round(report.took_s, 3), "failures": failures}
