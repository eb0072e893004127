"""Draws the evidence of a suite: how near correct runs and faults come to the limits, checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from karat.errors import KaratError
from karat.evidence import ENDLESS
from karat.suites import Suite
from karat.visibility import checkpoint_kinds, kind_of

_HIGHEST, _LOWEST = 1e6, 1e-3  # of the limit; what is beyond is drawn at the edge


def draw(content: Mapping[str, Any], suite: Suite, path: Path) -> None:
    """Write the plot of the evidence `content` to `path`, an SVG file whose bytes depend on nothing else.

    A panel for each contract; along x the checkpoints, layers and steps together; along y the part of the limit: the
    worst correct run below 1, the nearest fault that is caught there above it. Raise `KaratError` without matplotlib.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise KaratError("the plot of the evidence needs matplotlib; run: python -m nox -s evidence") from None
    kinds = checkpoint_kinds(suite)
    contracts = list(dict.fromkeys(row["contract"] for row in content["checkpoints"]))
    with mpl.rc_context({"svg.hashsalt": "karat", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(max(4.0, 0.32 * len(kinds) + 1.5), 1.3 * len(contracts) + 1.6))
        panels = figure.subplots(len(contracts), 1, sharex=True, squeeze=False)[:, 0]
        for panel, contract in zip(panels, contracts, strict=True):
            rows = [row for row in content["checkpoints"] if row["contract"] == contract]
            _panel(panel, contract, kinds, rows)
        panels[0].legend(loc="upper center", bbox_to_anchor=(0.5, 1.5), ncols=3, frameon=False)
        panels[-1].set_xticks(range(len(kinds)), kinds, rotation=90)
        figure.supylabel("part of the limit")
        figure.savefig(path, format="svg", bbox_inches="tight", metadata={"Date": None})


def _panel(panel: Any, contract: str, kinds: list[str], rows: list[Mapping[str, Any]]) -> None:
    worst: dict[str, float] = {}
    nearest: dict[str, float] = {}
    for row in rows:
        kind = kind_of(row["checkpoint"])
        worst[kind] = max(worst.get(kind, 0.0), 1 / row["correct_margin"] if row["correct_margin"] else ENDLESS)
        if row["fault"]:
            nearest[kind] = min(nearest.get(kind, ENDLESS), row["fault_margin"])
    panel.set_yscale("log")
    panel.set_ylim(_LOWEST / 2, _HIGHEST * 2)
    panel.axhline(1, color="black", linewidth=0.8, label="limit")
    for values, marker, colour, label in (
        (worst, "o", "tab:green", "worst correct run"),
        (nearest, "x", "tab:red", "nearest fault that is caught there"),
    ):
        places = [place for place, kind in enumerate(kinds) if kind in values]
        heights = [min(max(values[kinds[place]], _LOWEST), _HIGHEST) for place in places]
        panel.plot(places, heights, marker, color=colour, markersize=4, label=label)
    panel.set_title(contract, loc="left", pad=2)
    panel.grid(axis="x", linewidth=0.3)
