"""The report: JSON for machines, a table for people."""

import json
from pathlib import Path
from typing import Any

from tests.bench import indexes

HEADER = "| | figure | ours | rival | ratio | bound | |\n|---|---|---|---|---|---|---|"


def write(folder: Path, report: dict[str, Any]) -> str:
    """Write `report.json` and `report.md` into *folder*, and return the latter's text."""
    text = table(report)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(text, encoding="utf-8")
    return text


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    rows = [_row(key, figure) for key, figure in report["figures"].items()]
    facts = "; ".join(f"{name}: {value}" for name, value in report["machine"].items())
    told = [line for key, figure in report["figures"].items() for line in _profile(key, figure)]
    why = ["", "Where our processes' time goes in what is missed, in percent by package:", "", *told] if told else []
    weights = indexes.table(report.get("indexes", []))
    return "\n".join([HEADER, *rows, *why, "", *weights, f"Medians (least–most) of alternating rounds. {facts}", ""])


def _row(key: str, figure: dict[str, Any]) -> str:
    bound = f"≥ {figure['at_least']:g}" if figure["at_least"] is not None else f"≤ {figure['at_most']:g}"
    verdict = {True: "met", False: "**missed**", None: f"{figure['state']}: {figure['why']}"}[figure["met"]]
    ratio = f"{figure['ratio']:.3g}" if figure["ratio"] is not None else ""
    if figure["met"] is not None and figure["instead"]:
        verdict += f"; {figure['instead']}"
    cells = (key, f"{figure['what']}; vs {figure['against']}", *(_number(figure, side) for side in ("value", "rival")))
    return f"| {' | '.join(cells)} | {ratio} | {bound} | {verdict} |"


def _profile(key: str, figure: dict[str, Any]) -> list[str]:
    told = []
    for process, seen in figure.get("profile", {}).items():
        text = seen if isinstance(seen, str) else ", ".join(f"{package} {share:g}" for package, share in seen.items())
        told.append(f"- {key}, `{process}`: {text}")
    return told


def _number(figure: dict[str, Any], side: str) -> str:
    if figure[side] is None:
        return ""
    least, most = figure["spread"].get(side, [figure[side]] * 2)
    return f"{_short(figure[side])} ({_short(least)}–{_short(most)})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
