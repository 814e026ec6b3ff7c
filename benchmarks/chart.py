"""Draws ``results.svg``: the requests per second, relative to FastAPI's."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.load import Load
from benchmarks.run import ratios
from benchmarks.servers import BARE, FASTAPI, FASTIFY, LITESTAR, OURS, Server

COLORS = {OURS: "#0b6e4f", FASTAPI: "#8d99ae", LITESTAR: "#3d6fa3", FASTIFY: "#c9a227", BARE: "#d9d9d9"}
LABELS = {BARE: f"{BARE} (no Flask, no marshmallow: the limit)"}
BAR_HEIGHT = 0.17  # of the distance between two groups


def draw(results: Mapping[str, Mapping[Server, Load]], file: Path) -> None:
    """Draw a group of bars for each number of cases, with one bar for each server.

    Args:
        results: The measurements, by number of cases and server.
        file: The SVG file to write.
    """
    with rc_context({"svg.hashsalt": "medmitra-cases", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for number, (server, color) in enumerate(COLORS.items()):
            heights = [group + (number - (len(COLORS) - 1) / 2) * BAR_HEIGHT for group in range(len(results))]
            widths = [
                median(ratios(loads[server].per_second, loads[FASTAPI].per_second))
                for loads in results.values()
            ]
            label = LABELS.get(server, server.name)
            bars = axes.barh(heights, widths, height=BAR_HEIGHT * 0.9, color=color, label=label)
            axes.bar_label(bars, fmt="%.2f", padding=4, fontsize=9)
        axes.set_yticks(range(len(results)), [f"{size} cases" for size in results])
        axes.invert_yaxis()  # the first server on top
        axes.set_xlabel(f"requests per second, {FASTAPI} = 1; one process each, 8 connections")
        axes.margins(x=0.2)  # room for the labels
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(file, metadata={"Date": None})
