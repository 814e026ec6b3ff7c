"""Inserts sample cases into ``medmitra.cases``."""

import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice

from psycopg2.extensions import connection as Connection

from medmitra_cases import contract
from medmitra_cases.database import read_sql

BATCH_ROWS = 10_000
HISTORY = timedelta(days=5 * 365)

_GIVEN_NAMES = {
    "female": ("Aisha", "Ana", "Chloé", "Grace", "Ingrid", "Kavya", "Priya", "Zoë", "Ольга", "美咲"),
    "male": ("Ahmed", "Arjun", "Björn", "Carlos", "David", "Emeka", "John", "Rohan", "Tomás", "Иван", "健太"),
    "other": ("Alex", "Kiran", "Robin", "Sam"),
}
_FAMILY_NAMES = (
    *("Ahmed", "Andersson", "Brown", "Castillo", "Doe", "García", "Gupta", "Haddad", "Ivanova", "Jensen"),
    *("Kim", "Lê", "Müller", "Nakamura", "Okafor", "Patel", "Rossi", "Singh", "Smith", "Şahin", "Wang"),
)
_COMPLAINTS = (
    "Chest pain and shortness of breath on exertion",
    "Follow-up appointment for diabetes management",
    "Recurrent migraine with visual aura, three episodes this month",
    "Persistent dry cough for six weeks, non-smoker",
    "Lower back pain radiating to the left leg since lifting a box",
    "Hypertension, home readings around 150/95 mmHg",
)
_PLANS = (
    "ECG and blood work ordered.",
    "Continue current medication, review in four weeks.",
    "Referred to a specialist; patient agrees.",
    "X-ray requested, physiotherapy meanwhile.",
)
_STATUSES = ("pending", "analyzing", "processing", "completed", "completed", "completed", "failed")


def insert_published_cases(connection: Connection) -> int:
    """Insert the cases of the contract's published example that the table does not have yet.

    Args:
        connection: A connection that may write ``medmitra.cases``.

    Returns:
        The number of inserted cases.

    Raises:
        psycopg2.Error: The insert failed.
    """
    with connection.cursor() as cursor:
        cursor.execute(read_sql("insert_published_cases"), {"cases": json.dumps(contract.EXAMPLE["cases"])})
        return cursor.rowcount


def copy_synthetic_cases(
    connection: Connection, user_id: str, count: int, on_progress: Callable[[int], object]
) -> None:
    """Insert synthetic cases of one doctor with COPY.

    Args:
        connection: A connection that may write ``medmitra.cases``.
        user_id: The doctor's UUID.
        count: The number of cases.
        on_progress: Called after each batch with its number of rows.

    Raises:
        psycopg2.Error: COPY failed.
    """
    lines = _copy_lines(user_id, count)
    copy_cases = read_sql("copy_cases")
    with connection.cursor() as cursor:
        while batch := list(islice(lines, BATCH_ROWS)):
            cursor.copy_expert(copy_cases, io.StringIO("".join(batch)))
            on_progress(len(batch))


def _copy_lines(user_id: str, count: int) -> Iterator[str]:
    """Yield one line of COPY's text format per case. No value needs escaping."""
    rng = random.Random()  # noqa: S311, the patients are synthetic
    now = datetime.now(timezone.utc)
    for remaining in range(count, 0, -1):
        gender = rng.choices(tuple(_GIVEN_NAMES), (49, 49, 2))[0]
        name = f"{rng.choice(_GIVEN_NAMES[gender])} {rng.choice(_FAMILY_NAMES)}"
        # One case in ten has no summary yet; \N is COPY's NULL.
        summary = f"{rng.choice(_COMPLAINTS)}. {rng.choice(_PLANS)}" if rng.random() > 0.1 else r"\N"
        created_at = now - HISTORY * (remaining / count)
        updated_at = min(now, created_at + timedelta(seconds=rng.randrange(3600)))
        yield (
            f"{user_id}\t{name}\t{rng.randrange(100)}\t{gender}\t{summary}\t{rng.choice(_STATUSES)}"
            f"\t{created_at.isoformat()}\t{updated_at.isoformat()}\n"
        )
