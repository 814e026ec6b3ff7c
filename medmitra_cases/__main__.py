"""``python -m medmitra_cases``: the command, also if its folder is not in PATH."""

from medmitra_cases.cli import run

if __name__ == "__main__":
    run()
