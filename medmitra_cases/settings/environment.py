"""Selects the settings from the environment, and reads the files that it names."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from marshmallow import ValidationError

from medmitra_cases.settings.schema import SettingsSchema

# Bytes. A secret or a URL is much shorter: such a file is the wrong one.
MAX_FILE_BYTES = 65_536

_FIELDS = {str(field.data_key): field for field in SettingsSchema().fields.values()}
_SECRETS = [name for name, field in _FIELDS.items() if field.metadata.get("secret")]

# Settings that decide who may ask. An empty one is a mistake, such as a template's variable that is not set.
# If it counted as not set, the service would require less than it seems to.
_NEVER_EMPTY = re.compile(r"MEDMITRA_(JWT_\w+|JWKS_URL|TRUST_USER_ID)\Z")

_PREFIX = "MEDMITRA_"
# Variables that other parts read: the test harness.
_OTHERS = {"MEDMITRA_TEST_DATABASE_URL"}
# Kubernetes describes each Service in such variables, also one that is called medmitra-something.
_KUBERNETES = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)\Z")
_KUBERNETES_URL = re.compile(r"(tcp|udp|sctp)://")


def read_settings(environ: Mapping[str, str], overrides: Mapping[str, str]) -> dict[str, str]:
    """Select the variables of settings, and read the files of secrets.

    Args:
        environ: The environment variables by name.
        overrides: Values that take the place of a variable and of its file.

    Returns:
        The values by the name of the variable. Empty ones are left out, unless they decide who may ask.

    Raises:
        ValidationError: A file cannot be read, or its setting has a value, too.
    """
    given = {**environ, **overrides}
    values = {
        name: given[name]
        for name in _FIELDS
        if given.get(name) or (name in given and _NEVER_EMPTY.match(name))
    }
    mistakes: dict[str, list[str]] = {}
    for name in _SECRETS:
        path = environ.get(file_variable(name))
        if path is None or name in overrides:
            continue
        try:
            if name in values:
                raise ValidationError(f"cannot be combined with {name}: set only one of them")
            values[name] = _read_file(path)
        except ValidationError as error:
            mistakes[file_variable(name)] = [str(message) for message in error.messages]
    if mistakes:
        raise ValidationError(mistakes)
    return values


def file_variable(name: str) -> str:
    """Return the variable with the path of a file that has a setting's value.

    Args:
        name: The variable of the setting.

    Returns:
        The name with ``_FILE`` at its end.
    """
    return f"{name}_FILE"


def describe_source(name: str, environ: Mapping[str, str]) -> str:
    """Name the place of a value in the environment.

    Args:
        name: The variable of a setting, or another name.
        environ: The environment variables by name.

    Returns:
        The name; with the variable of the file if the value is in a file.
    """
    is_in_file = name in _SECRETS and file_variable(name) in environ and name not in environ
    return f"{name} (in the file of {file_variable(name)})" if is_in_file else name


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Describe the variables that look like settings of this service but are none, such as misspelt ones.

    Args:
        environ: The environment variables by name.

    Returns:
        For each variable one line, which names it and the setting with the most similar name.
    """
    known = [*_FIELDS, *map(file_variable, _SECRETS)]
    endings = {name.removeprefix(_PREFIX): name for name in known}
    unknown = [
        name
        for name, value in environ.items()
        if name.upper().startswith(_PREFIX)
        and name not in _OTHERS.union(known)
        and not (_KUBERNETES.match(name) or _KUBERNETES_URL.match(value))
    ]
    nearest = [
        difflib.get_close_matches(name.upper().removeprefix(_PREFIX), endings, 1, cutoff=0)[0]
        for name in unknown
    ]
    return [
        f"{name} is not a setting; the most similar is {endings[ending]}"
        for name, ending in zip(unknown, nearest, strict=True)
    ]


def _read_file(path: str) -> str:
    """Return the text of a file without the line break that editors put at its end."""
    if not path:
        raise ValidationError("is set but empty: remove the variable, or give it a value")
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its path is not valid"
        raise ValidationError(f"names a file that cannot be read: {reason}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValidationError("names a file of more than 64 KiB")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ValidationError("names a file that is not UTF-8") from None
    if "\0" in text:  # libpq would ignore the rest
        raise ValidationError("names a file that is not text")
    if not text.removesuffix("\n"):
        raise ValidationError("names an empty file")
    return text.removesuffix("\n")
