"""Imports between the wings of the package point down, and few modules import Flask."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import medmitra_cases

PACKAGE = Path(medmitra_cases.__file__).parent

# From top to bottom: the wings and modules of a row import only from the rows below it.
ROWS = (
    {"__main__"},
    {"cli"},
    {"server", "__init__"},
    {"app"},
    {"blueprint"},
    {"responses", "docs", "admin", "checks"},
    {"testing", "web", "auth", "dao"},
    {"database", "settings", "schemas", "embedded"},
    {"telemetry"},
    {"errors", "models", "contract"},
)
FLASK_MODULES = {
    *("app", "blueprint", "responses.cases", "admin.app", "docs.blueprint"),
    *("web.application", "web.audit", "web.cors", "web.error_handlers", "web.headers"),
}
# pytest imports testing/__init__.py in every run, as a plugin. Only the command harness needs these modules.
IMPORTED_DIRECTLY = {"testing.case_editor", "testing.failures", "testing.json_lines", "testing.postgres"}
MAX_MODULES = 10

MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def wing(module: str) -> str:
    return module.partition(".")[0]


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import, without ``medmitra_cases.`` in our modules."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = (node.module or "").removeprefix("medmitra_cases").removeprefix(".")
            for alias in node.names:
                yield (origin, alias.name) if origin else (alias.name, "")


def imports_from_other_wings(module: str) -> set[tuple[str, str]]:
    wings = set().union(*ROWS)
    return {(origin, name) for origin, name in imports(module) if wing(origin) in wings - {wing(module)}}


def test_every_module_belongs_to_a_wing() -> None:
    assert {wing(module) for module in MODULES} == set().union(*ROWS)


def test_no_wing_has_too_many_modules() -> None:
    for name in set().union(*ROWS):
        assert sum(wing(module) == name for module in MODULES) <= MAX_MODULES, name


def test_imports_between_wings_point_down() -> None:
    below: set[str] = set()
    for row in reversed(ROWS):
        for module in MODULES:
            if wing(module) in row:
                assert {wing(origin) for origin, _ in imports_from_other_wings(module)} <= below, module
        below |= row


def test_modules_import_only_exported_names_of_other_wings() -> None:
    for module in MODULES:
        for origin, name in imports_from_other_wings(module):
            if origin in MODULES:  # a module without a wing, or an exception
                assert "." not in origin or origin in IMPORTED_DIRECTLY, (module, origin)
            elif name:
                assert name in exported_names()[origin], (module, origin, name)


def exported_names() -> dict[str, list[str]]:
    """Return the ``__all__`` of each wing."""
    exported = {}
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            tree = ast.parse(path.read_text())
            lists = [node.value for node in tree.body if isinstance(node, ast.Assign)]
            exported[wing(module)] = [name for value in lists for name in ast.literal_eval(value)]
    return exported


def test_no_exported_name_hides_a_module() -> None:
    """Check that no exported name is a module's: a function ``serve`` would hide the module ``serve``."""
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            exported = {name for origin, name in imports(module) if origin != wing(module)}
            assert not exported & {other.stem for other in path.parent.glob("*.py")}, module


def test_the_docstring_of_every_wing_begins_with_one_sentence() -> None:
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
            assert sentence.endswith((".", "?")), module


def test_imports_within_a_wing_have_no_cycle() -> None:
    """Remove the modules that import no remaining module, again and again, until none are left."""
    imported = {
        module: {
            f"{origin}.{name}" if f"{origin}.{name}" in MODULES else origin
            for origin, name in imports(module)
        }
        & set(MODULES)
        for module in MODULES
    }
    while leaves := {module for module, origins in imported.items() if not origins & set(imported)}:
        imported = {module: origins for module, origins in imported.items() if module not in leaves}
    assert not imported


def test_only_listed_modules_import_flask() -> None:
    assert {
        module for module in MODULES if "flask" in {wing(origin) for origin, _ in imports(module)}
    } == FLASK_MODULES


def test_no_function_contains_an_import() -> None:
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


def test_queries_are_files_of_sql() -> None:
    """A string may hold a command (SET, EXPLAIN, CREATE DATABASE), but no query."""
    query = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\s(?!pg_advisory_lock)")
    for module, path in MODULES.items():
        strings = [
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        composed = module == "testing.case_editor"  # of the keys that a test sends
        assert composed or not any(query.match(text) for text in strings), module
