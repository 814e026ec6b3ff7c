"""Arrows between the wings of the package point down, and few modules know Flask."""

import ast
from collections.abc import Iterator
from pathlib import Path

import medmitra_cases

PACKAGE = Path(medmitra_cases.__file__).parent

# From the roof to the ground: wings and modules of a row import only from rows below it.
ROWS = (
    {"cli"},
    {"server", "__init__"},
    {"app"},
    {"blueprint"},
    {"responses", "docs", "admin", "checks"},
    {"testing", "web", "auth", "dao"},
    {"database", "settings", "schemas", "embedded"},
    {"telemetry"},
    {"errors", "models", "contract", "version"},
)
KNOW_FLASK = {
    *("app", "blueprint", "responses.cases", "admin.app", "docs.blueprint"),
    *("web.application", "web.audit", "web.cors", "web.error_handlers", "web.headers"),
}

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def wing(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str) -> Iterator[tuple[str, str]]:
    """What a module imports: the module, of ours without the package's name, and the name out of it."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = (node.module or "").removeprefix("medmitra_cases").removeprefix(".")
            for alias in node.names:
                yield (origin, alias.name) if origin else (alias.name, "")


def of_other_wings(module: str) -> set[tuple[str, str]]:
    rooms = set().union(*ROWS)
    return {(origin, name) for origin, name in imports(module) if wing(origin) in rooms - {wing(module)}}


def test_every_module_belongs_to_a_wing() -> None:
    assert {wing(module) for module in MODULES} == set().union(*ROWS)


def test_arrows_between_wings_point_down() -> None:
    below: set[str] = set()
    for row in reversed(ROWS):
        for module in MODULES:
            if wing(module) in row:
                assert {wing(origin) for origin, _ in of_other_wings(module)} <= below, module
        below |= row


def test_only_the_web_modules_know_flask() -> None:
    assert {
        module for module in MODULES if "flask" in {wing(origin) for origin, _ in imports(module)}
    } == KNOW_FLASK


def test_no_import_hides_in_a_function() -> None:
    for path in MODULES.values():
        tree = ast.parse(path.read_text())
        for_types = [node.body for node in tree.body if isinstance(node, ast.If)]  # if TYPE_CHECKING
        top = {id(node) for body in (tree.body, *for_types) for node in body}
        hidden = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top
        ]
        assert not hidden, path.name
