"""Draws ``results.svg``: the requests per second, relative to FastAPI's."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.load import Load
from benchmarks.run import rate
from benchmarks.servers import BARE, FASTAPI, FASTIFY, OURS, Server

COLORS = {OURS: "#0b6e4f", FASTAPI: "#8d99ae", FASTIFY: "#c9a227", BARE: "#d9d9d9"}
LABELS = {BARE: f"{BARE} (no Flask, no marshmallow: the limit)"}
BAR_HEIGHT = 0.2  # of the distance between two groups


def draw(results: Mapping[int, Mapping[Server, Load]], file: Path) -> None:
    """Draw a group of bars for each number of cases, with one bar for each server.

    Args:
        results: What was measured, by number of cases and server.
        file: The SVG file to write.
    """
    with rc_context({"svg.hashsalt": "medmitra-cases", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, (server, color) in enumerate(COLORS.items()):
            heights = [group + (number - (len(COLORS) - 1) / 2) * BAR_HEIGHT for group in range(len(results))]
            ratios = [loads[server].ratio_to(loads[FASTAPI]) for loads in results.values()]
            label = LABELS.get(server, server.name)
            bars = axes.barh(heights, ratios, height=BAR_HEIGHT * 0.9, color=color, label=label)
            rates = [rate(loads[server].requests_per_second) for loads in results.values()]
            texts = [f"{ratio:.2f} ({text}/s)" for ratio, text in zip(ratios, rates, strict=True)]
            axes.bar_label(bars, texts, padding=4, fontsize=9)
        axes.set_yticks(range(len(results)), [f"{size:,} cases" for size in results])
        axes.invert_yaxis()  # the first server on top
        axes.set_xlabel(f"requests per second, {FASTAPI} = 1; one process each, 8 connections")
        axes.margins(x=0.2)  # room for the labels
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(file, metadata={"Date": None})
