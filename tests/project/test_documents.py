"""The documents describe this tree correctly: modules, dependencies, make targets, paths and links."""

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from tests.project.test_architecture import MODULES
from tests.support.paths import README, ROOT
from tests.support.snippets import snippet

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]

MAX_README_LINES = 200

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)


def section(text: str, title: str) -> str:
    """Return the text below a heading of the second level."""
    _, heading, rest = text.partition(f"\n## {title}\n")
    assert heading
    return rest.partition("\n## ")[0]


def test_the_architecture_names_every_module_once() -> None:
    rows = re.findall(r"^\| `(\w+)(/?)` \| (.+) \|$", section(ARCHITECTURE, "The wings"), re.MULTILINE)
    named = []
    for name, is_wing, rest in rows:
        modules = re.findall(r"`(\w+)`", rest.rpartition(" | ")[2]) if is_wing else []
        named += [f"{name}.{module}" for module in modules] + ([] if is_wing else [name])
    inits = {module for module in MODULES if module.endswith(".__init__")}
    assert sorted(named) == sorted(set(MODULES) - inits)


def first_sentences() -> dict[str, str]:
    """Return the first sentence of each wing's ``__init__.py``, without backticks."""
    docstrings = {
        module.removesuffix(".__init__"): ast.get_docstring(ast.parse(path.read_text())) or ""
        for module, path in MODULES.items()
        if module.endswith(".__init__")
    }
    return {
        wing: " ".join(docstring.partition("\n\n")[0].replace("`", "").split())
        for wing, docstring in docstrings.items()
    }


def test_the_architecture_repeats_the_first_sentence_of_each_wing() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.+) \| .+ \|$", section(ARCHITECTURE, "The wings"), re.MULTILINE)
    assert {name: sentence.replace("`", "") for name, sentence in rows} == first_sentences()


def test_the_tree_of_the_readme_has_every_wing_and_every_module_without_a_wing() -> None:
    package = snippet("README.md", "How it works", "text").partition("\nsql/")[0]
    lines = re.findall(r"^  (\S+) +(\S.*)$", package, re.MULTILINE)
    assert {name[:-1]: sentence for name, sentence in lines if name.endswith("/")} == first_sentences()
    modules = {f"{module}.py" for module in MODULES if "." not in module and "__" not in module}
    assert {name for name, _ in lines if not name.endswith("/")} == modules
    assert len(lines) == len(first_sentences()) + len(modules)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_the_diagram_names_every_wing() -> None:
    diagram = section(ARCHITECTURE, "The way of a request").split("```")[1]
    wings = {module.removesuffix(".__init__") for module in MODULES if module.endswith(".__init__")}
    assert sorted(re.findall(r"<b>(\w+)/</b>", diagram)) == sorted(wings)


def test_the_architecture_describes_each_dependency() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    requirements = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    packages = set(re.findall(r"^([\w-]+)", "\n".join(requirements), re.MULTILINE)) - {"medmitra-cases"}
    rows = re.findall(r"^\| (`.+?`) \| .+ \|$", section(ARCHITECTURE, "Dependencies"), re.MULTILINE)
    named = [name for row in rows for name in row.replace("`", "").split(", ")]
    assert sorted(named) == sorted(packages)


def test_contributing_names_every_make_target() -> None:
    rows = re.findall(r"^\| `make ([a-z-]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert sorted(rows) == sorted(TARGETS)


def test_contributing_shows_a_docstring_of_this_tree() -> None:
    shown = CONTRIBUTING.split("```python\n")[1].split("```")[0]
    assert shown in (ROOT / "medmitra_cases/server/sockets.py").read_text()


@each_document
def test_every_named_make_target_exists(document: Path) -> None:
    assert set(re.findall(r"(?:^|`)make\s([a-z-]+)", document.read_text(), re.MULTILINE)) <= TARGETS


@each_document
def test_every_named_path_exists(document: Path) -> None:
    folders = r"medmitra_cases|sql|tests|deploy|docs|benchmarks|requirements|\.ci"
    for path in re.findall(rf"`((?:{folders})/[\w./@*-]*)`", document.read_text()):
        assert list(ROOT.glob(path.rstrip("/"))), path


@each_document
def test_every_link_within_the_tree_has_a_target(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not heading or heading in _anchors(target.read_text()), link


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
