"""Collects what was measured as Markdown and prints it meanwhile."""

from collections.abc import Sequence

import click


class Report:
    """The text of ``results.md``, and what went wrong.

    Attributes:
        failures: One line for each thing that went wrong; the run then fails at its end.
    """

    def __init__(self) -> None:
        """Begin an empty one."""
        self._lines: list[str] = []
        self.failures: list[str] = []

    def say(self, text: str) -> None:
        """Add a paragraph or a heading.

        Args:
            text: Markdown.
        """
        self._lines += [text, ""]
        click.echo(f"{text}\n")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table.

        Args:
            header: The columns' names.
            rows: The cells.
        """
        lines = [header, ["---"] * len(header), *rows]
        self.say("\n".join(f"| {' | '.join(cells)} |" for cells in lines))

    def fail(self, what: str) -> None:
        """Add something that went wrong.

        Args:
            what: One line.
        """
        self.failures.append(what)
        self.say(f"**Failed:** {what}")

    def text(self) -> str:
        """Put it together.

        Returns:
            All of it, as a Markdown file.
        """
        return "\n".join(self._lines).rstrip() + "\n"


def rate(per_second: float) -> str:
    """Write requests per second.

    Args:
        per_second: How many.

    Returns:
        For example ``2,610`` or ``8.3``.
    """
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def times(ratio: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Write a ratio beside its target.

    Args:
        ratio: The ratio.
        at_least: The target, if it is a lower bound.
        at_most: The target, if it is an upper bound.

    Returns:
        For example ``1.62 (≥ 1.5 ✓)``, or ``1.62`` without a target.
    """
    written = f"{ratio:.2f}"
    if at_least is not None:
        return f"{written} (≥ {at_least:g} {'✓' if ratio >= at_least else '✗'})"
    if at_most is not None:
        return f"{written} (≤ {at_most:g} {'✓' if ratio <= at_most else '✗'})"
    return written


def amount(value: float, unit: str, at_most: float) -> str:
    """Write a quantity beside its target.

    Args:
        value: The quantity.
        unit: Its unit.
        at_most: The target.

    Returns:
        For example ``28.1 MB (≤ 32 ✓)``.
    """
    return f"{value:.3g} {unit} (≤ {at_most:g} {'✓' if value <= at_most else '✗'})"
