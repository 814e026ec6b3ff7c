"""Draws ``results.svg``: requests per second relative to FastAPI's."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.commands import BARE, FASTAPI, FASTIFY_PG, OURS
from benchmarks.load import Load
from benchmarks.report import rate

COLORS = {OURS: "#0b6e4f", FASTAPI: "#8d99ae", FASTIFY_PG: "#c9a227", BARE: "#d9d9d9"}
LABELS = {BARE: f"{BARE} (no Flask, no marshmallow: the limit)"}
BAR = 0.2  # of the distance between two groups


def draw(results: Mapping[int, Mapping[str, Load]], target: Path) -> None:
    """Draw for each number of cases one bar per server: its requests per second as a multiple of FastAPI's.

    Args:
        results: What was measured, by number of cases and server.
        target: The SVG file to write.
    """
    with rc_context({"svg.hashsalt": "medmitra-cases", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for place, server in enumerate(COLORS):
            heights = [group + (place - 1.5) * BAR for group in range(len(results))]
            rates = [loads[server].requests_per_second for loads in results.values()]
            ratios = [
                its / loads[FASTAPI].requests_per_second
                for its, loads in zip(rates, results.values(), strict=True)
            ]
            bars = axes.barh(
                heights, ratios, height=BAR * 0.9, color=COLORS[server], label=LABELS.get(server, server)
            )
            texts = [f"{ratio:.2f} ({rate(its)}/s)" for ratio, its in zip(ratios, rates, strict=True)]
            axes.bar_label(bars, texts, padding=4, fontsize=9)
        axes.set_yticks(range(len(results)), [f"{size:,} cases" for size in results])
        axes.invert_yaxis()  # the first server on top
        axes.set_xlabel(f"requests per second, {FASTAPI} = 1; one process each, 8 connections")
        axes.margins(x=0.2)  # room for the labels
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(target, metadata={"Date": None})
