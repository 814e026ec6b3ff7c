"""Lets ``python -m medmitra_cases`` be the command ``medmitra-cases``."""

from medmitra_cases.cli import main

main(prog_name="medmitra-cases")
