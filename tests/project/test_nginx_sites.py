"""The two nginx sites of deploy/ are the same, apart from the documentation and the product's backend."""

from tests.support.paths import ROOT

# Two lines that differ in paragraphs which both sites have.
SCHEME = "    proxy_set_header X-Forwarded-Proto $scheme;  # for redirects of the product's backend\n"
UPSTREAM = "http://$medmitra_cases_upstream"


def test_each_site_is_complete_and_only_these_paragraphs_differ() -> None:
    alone = (ROOT / "deploy/nginx.conf").read_text()
    beside = (ROOT / "deploy/nginx-beside.conf").read_text()
    assert SCHEME in beside
    beside = beside.replace(SCHEME, "").replace(UPSTREAM, "http://medmitra_cases")

    def only_in(text: str, other: str) -> list[str]:
        """Return the first words of each paragraph that the other site does not have."""
        paragraphs = [part for part in text.split("\n\n") if part not in other.split("\n\n")]
        return [" ".join(part.split()[:4]) for part in paragraphs]

    assert only_in(alone, beside) == [
        "# nginx as the",
        "# A separate limit:",
        "# The documentation is",
        "location / { return",
    ]
    assert only_in(beside, alone) == [
        "# nginx as the",
        "# The product's own",
        "# The switch: medmitra_cases",
        "# All other paths",
    ]
