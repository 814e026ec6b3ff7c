"""Paths in the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

SUPPORT = Path(__file__).parent
# A copy of the contract's example, as it was published.
PUBLISHED = SUPPORT / "published" / "example-response.json"
TYPESCRIPT = SUPPORT / "typescript"
OPENAPI_CLIENT = SUPPORT / "openapi_client"
# Absent without npm.
AXE = TYPESCRIPT / "node_modules" / "axe-core" / "axe.min.js"
