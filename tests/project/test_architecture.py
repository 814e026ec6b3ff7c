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
    {"errors", "models", "contract"},
)
KNOW_FLASK = {
    *("app", "blueprint", "responses.cases", "admin.app", "docs.blueprint"),
    *("web.application", "web.audit", "web.cors", "web.error_handlers", "web.headers"),
}
# Every run of pytest imports the face of testing, as a plugin; the command harness alone needs these.
BEHIND_THE_FACE = {"testing.case_editor", "testing.json_lines", "testing.postgres"}
MAX_MODULES = 10

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


def test_no_wing_has_too_many_modules() -> None:
    for room in set().union(*ROWS):
        assert sum(wing(module) == room for module in MODULES) <= MAX_MODULES, room


def test_arrows_between_wings_point_down() -> None:
    below: set[str] = set()
    for row in reversed(ROWS):
        for module in MODULES:
            if wing(module) in row:
                assert {wing(origin) for origin, _ in of_other_wings(module)} <= below, module
        below |= row


def test_other_wings_are_entered_by_their_face() -> None:
    for module in MODULES:
        for origin, name in of_other_wings(module):
            if origin in MODULES:  # a module of the ground, or one behind a face
                assert "." not in origin or origin in BEHIND_THE_FACE, (module, origin)
            elif name:
                assert name in faces()[origin], (module, origin, name)


def faces() -> dict[str, list[str]]:
    """What each wing hands out."""
    handed_out = {}
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            tree = ast.parse(path.read_text())
            lists = [node.value for node in tree.body if isinstance(node, ast.Assign)]
            handed_out[wing(module)] = [name for value in lists for name in ast.literal_eval(value)]
    return handed_out


def test_a_face_hides_no_module() -> None:
    """A function ``serve`` that a wing hands out would hide its module ``serve``."""
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            hands_out = {name for origin, name in imports(module) if origin != wing(module)}
            assert not hands_out & {other.stem for other in path.parent.glob("*.py")}, module


def test_every_face_begins_with_one_sentence() -> None:
    for module, path in MODULES.items():
        if module.endswith(".__init__"):
            sentence = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0]
            assert sentence.endswith((".", "?")), module


def test_arrows_within_a_wing_make_no_circle() -> None:
    """A module that imports another of its wing is not imported by it, by however many steps."""
    within = {
        module: {
            f"{origin}.{name}" if f"{origin}.{name}" in MODULES else origin
            for origin, name in imports(module)
        }
        & set(MODULES)
        for module in MODULES
    }
    while leaves := {module for module, origins in within.items() if not origins & set(within)}:
        within = {module: origins for module, origins in within.items() if module not in leaves}
    assert not within


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
