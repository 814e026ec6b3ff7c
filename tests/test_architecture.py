"""Arrows between the modules point one way, and few modules know Flask."""

import ast
from pathlib import Path

import medmitra_cases

PACKAGE = Path(medmitra_cases.__file__).parent

# From the ground up: a module imports only from rows above its own.
LAYERS = (
    {
        "case_query",
        "descriptors",
        "errors",
        "findings",
        "line_handler",
        "published",
        "query_fields",
        "request_id",
        "setting_rules",
        "signals",
        "testing.client",
        "utc_datetime",
        "version",
    },
    {
        "query_schema",
        "error_schema",
        "application",
        "metrics",
        "request_parser",
        "testing.lines",
        "testing.start",
    },
    {
        "query_string",
        "schemas",
        "setting_fields",
        "signing_keys",
        "listening",
        "openapi_fields",
        "testing.__init__",
    },
    {"settings_schema", "queries", "child_process", "embedded_programs", "logs", "testing.plugin"},
    {"settings", "connection", "statements", "command_help"},
    {"tokens", "watch", "database_errors", "start_line", "command_group", "listen_option"},
    {"database", "embedded", "sample", "catalogue", "audit", "response_headers", "cors"},
    {"dao"},
    {"case_batches", "entity_tags", "error_handlers", "links", "readiness", "plan"},
    {"long_answers", "role_checks"},
    {"answers"},
    {"cases", "checks"},
    {"openapi_responses"},
    {"openapi"},
    {"docs"},
    {"app", "channel", "database_commands"},
    {"__init__", "listeners", "testing.case_editor", "testing.postgres"},
    {"server", "admin"},
    {"serving"},
    {"service_commands", "testing.command"},
    {"cli"},
)
KNOW_FLASK = {
    "admin",
    "answers",
    "app",
    "application",
    "audit",
    "cases",
    "cors",
    "docs",
    "error_handlers",
    "response_headers",
}


def imports(module: str) -> set[str]:
    """What a module imports: of ours the modules' names, of others the packages'."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = [name.split(".") for name in found]
    return {_our_module(rest) if package == "medmitra_cases" else package for package, *rest in names}


def _our_module(names: list[str]) -> str:
    """The module that ``medmitra_cases.<names>`` is, or is in."""
    if (PACKAGE / names[0]).is_dir():
        return f"{names[0]}.{names[1] if (PACKAGE / names[0] / f'{names[1]}.py').exists() else '__init__'}"
    return names[0] if (PACKAGE / f"{names[0]}.py").exists() else "__init__"


def test_every_module_has_its_layer() -> None:
    modules = {path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")}
    assert {".".join(module.parts) for module in modules} == set().union(*LAYERS)


def test_modules_import_only_from_layers_below_their_own() -> None:
    below: set[str] = set()
    for layer in LAYERS:
        for module in layer:
            ours = imports(module) & set().union(*LAYERS)
            assert ours <= below, module
        below |= layer


def test_only_the_web_modules_know_flask() -> None:
    assert {module for layer in LAYERS for module in layer if "flask" in imports(module)} == KNOW_FLASK


def test_no_import_hides_in_a_function() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for_types = [node.body for node in tree.body if isinstance(node, ast.If)]  # if TYPE_CHECKING
        top = {id(node) for body in (tree.body, *for_types) for node in body}
        hidden = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in top
        ]
        assert not hidden, path.name
