"""What the documents say of this tree is so: modules, dependencies, targets, paths, and where links lead."""

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
    """What is under a heading of the second level."""
    _, heading, rest = text.partition(f"\n## {title}\n")
    assert heading
    return rest.partition("\n## ")[0]


def test_the_architecture_names_every_module_once() -> None:
    rows = re.findall(r"^\| `(\w+)(/?)` \| (.+) \|$", section(ARCHITECTURE, "The wings"), re.MULTILINE)
    named = []
    for name, is_wing, rest in rows:
        modules = re.findall(r"`(\w+)`", rest.rpartition(" | ")[2]) if is_wing else []
        named += [f"{name}.{module}" for module in modules] + ([] if is_wing else [name])
    faces = {module for module in MODULES if module.endswith(".__init__")}
    assert sorted(named) == sorted(set(MODULES) - faces)


def sentences() -> dict[str, str]:
    """Each wing, with the first sentence of its ``__init__.py``, without the marks of code."""
    docstrings = {
        module.removesuffix(".__init__"): ast.get_docstring(ast.parse(path.read_text())) or ""
        for module, path in MODULES.items()
        if module.endswith(".__init__")
    }
    return {
        wing: " ".join(docstring.partition("\n\n")[0].replace("`", "").split())
        for wing, docstring in docstrings.items()
    }


def test_the_architecture_has_the_sentence_of_each_wing() -> None:
    rows = re.findall(r"^\| `(\w+)/` \| (.+) \| .+ \|$", section(ARCHITECTURE, "The wings"), re.MULTILINE)
    assert {name: sentence.replace("`", "") for name, sentence in rows} == sentences()


def test_the_readmes_tree_has_the_sentence_of_each_wing_and_a_line_for_each_module_beside_them() -> None:
    package = snippet("README.md", "How it works", "text").partition("\nsql/")[0]
    lines = re.findall(r"^  (\S+) +(\S.*)$", package, re.MULTILINE)
    assert {name[:-1]: sentence for name, sentence in lines if name.endswith("/")} == sentences()
    beside = {f"{module}.py" for module in MODULES if "." not in module and module != "__init__"}
    assert {name for name, _ in lines if not name.endswith("/")} == beside
    assert len(lines) == len(sentences()) + len(beside)


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_the_picture_names_every_wing() -> None:
    picture = section(ARCHITECTURE, "The way of a request").split("```")[1]
    wings = {module.removesuffix(".__init__") for module in MODULES if module.endswith(".__init__")}
    assert sorted(re.findall(r"<b>(\w+)/</b>", picture)) == sorted(wings)


def test_the_architecture_says_what_each_dependency_is_for() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    packages = set(re.findall(r"^([\w-]+)", "\n".join(wanted), re.MULTILINE)) - {"medmitra-cases"}
    rows = re.findall(r"^\| (`.+?`) \| .+ \|$", section(ARCHITECTURE, "Dependencies"), re.MULTILINE)
    named = [name for row in rows for name in row.replace("`", "").split(", ")]
    assert sorted(named) == sorted(packages)


def test_contributing_names_every_make_target() -> None:
    rows = re.findall(r"^\| `make ([a-z-]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert sorted(rows) == sorted(TARGETS)


def test_the_docstring_that_contributing_shows_is_one_of_ours() -> None:
    shown = CONTRIBUTING.split("```python\n")[1].split("```")[0]
    assert shown in (ROOT / "medmitra_cases/server/limits.py").read_text()


@each_document
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    assert set(re.findall(r"(?:^|`)make\s([a-z-]+)", document.read_text(), re.MULTILINE)) <= TARGETS


@each_document
def test_every_path_that_is_named_exists(document: Path) -> None:
    folders = r"medmitra_cases|sql|tests|deploy|docs|benchmarks|requirements|\.ci"
    for path in re.findall(rf"`((?:{folders})/[\w./@*-]*)`", document.read_text()):
        assert list(ROOT.glob(path.rstrip("/"))), path


@each_document
def test_every_link_within_the_tree_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
        path, _, heading = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not heading or heading in _anchors(target.read_text()), link


def _anchors(text: str) -> set[str]:
    """The names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
