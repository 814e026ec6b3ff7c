"""Any bytes on the socket get exactly one documented response, without another doctor's cases.

``make test`` sends some hundreds of requests. ``make fuzz`` sends as many as ``tests/__init__.py`` says.
"""

import base64
import json
import operator
import re
import string
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import jwt
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.support.factories import DOCTOR, CasesDatabase, case, in_json
from tests.support.processes import Running, serve

T = TypeVar("T")

OTHER = "3f2b8c1e-0d4a-4b6e-9a57-6c1d2e3f4a5b"
CASES = {
    doctor: [case(user_id=doctor, patient_name="Zoë", case_summary=None), case(user_id=doctor)]
    for doctor in (DOCTOR, OTHER)
}
EXPECTED = {doctor: {"cases": [in_json(columns) for columns in cases]} for doctor, cases in CASES.items()}
STATUSES = {200, 304, 400, 401, 403, 404, 405, 413, 431}

ORIGIN = "https://app.example"
SECRET = "this module's own" * 4  # long enough for HS512
CLAIMS: dict[str, Any] = {"sub": DOCTOR, "aud": "authenticated", "iat": 1_700_000_000, "exp": 4_000_000_000}
HEADER: dict[str, Any] = {"alg": "HS256", "typ": "JWT"}


def segment(value: object) -> bytes:
    """Encode a segment of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def signed(claims: dict[str, Any], algorithm: str = "HS256") -> bytes:
    """Sign a token of these claims, even if their types are those that ``jwt.encode`` refuses."""
    key = "" if algorithm == "none" else SECRET
    return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm).encode()


TOKEN, OTHER_TOKEN = signed(CLAIMS), signed({**CLAIMS, "sub": OTHER})
EXPIRED = signed({**CLAIMS, "exp": 1_700_000_001})
TOKEN_HEADER, TOKEN_CLAIMS, TOKEN_SIGNATURE = TOKEN.split(b".")


class Credential(NamedTuple):
    """The value of an ``Authorization`` header, and the doctor whose cases it may read."""

    value: bytes
    doctor: str | None = None


class Request(NamedTuple):
    method: bytes
    query: bytes
    credentials: list[Credential]
    raw: bytes

    @property
    def doctor(self) -> str | None:
        """The doctor whose cases it may get. None unless there is exactly one credential."""
        return self.credentials[0].doctor if len(self.credentials) == 1 else None

    @property
    def requests_all_cases(self) -> bool:
        """Whether the request has none of the optional parameters."""
        return not any(name in self.query for name in PARAMETERS)


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


@st.composite
def usually(
    draw: st.DrawFn, usual: st.SearchStrategy[T], otherwise: st.SearchStrategy[T], *, one_in: int
) -> T:
    """Draw the usual value, except in one of ``one_in`` examples."""
    return draw(otherwise if draw(st.integers(1, one_in)) == one_in else usual)


PRINTABLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map(str.encode)
# All of latin-1 except control characters.
HEADER_TEXT = st.binary(max_size=40).map(lambda value: value.translate(None, bytes([*range(0x20), 0x7F])))

METHODS = st.one_of(
    st.sampled_from([b"HEAD", b"OPTIONS", b"POST", b"PUT", b"DELETE", b"TRACE", b"CONNECT", b"get", b"GET:"]),
    st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=9).map(str.encode),
)

PATH = b"/cases/all_cases"
NEAR_MISSES = [
    *(b"", b"*", b"/", b"//", b"/cases", b"/cases/", PATH + b"/", PATH + b"%00", PATH + b"%0d%0aX:1"),
    *(b"/" + PATH, b"/cases//all_cases", b"/cases/../cases/all_cases", b"/cases/ALL_CASES", PATH[1:]),
    *(b"http://x" + PATH, b"HTTP://u:p@x:y" + PATH, b"http://[::1]:80" + PATH, b"http://[" + PATH, b"x://"),
    *(b"x:" + PATH, b"///x" + PATH, PATH + b";a", PATH + b"#a", PATH + b"%", PATH + b"%c3%a9", PATH + b" "),
]
ENCODINGS = st.lists(
    st.sampled_from([b"%c", b"%%%02x", b"%%%02X"]), min_size=len(PATH), max_size=len(PATH)
).map(lambda encodings: b"".join(map(operator.mod, encodings, PATH)))
PATHS = st.one_of(
    *(st.sampled_from(NEAR_MISSES), ENCODINGS, PRINTABLE, HEADER_TEXT),
    PRINTABLE.map(b"/".__add__),
    PRINTABLE.map(b"http://".__add__),
)

USER_ID = b"user_id=" + DOCTOR.encode()
USER_IDS = st.one_of(
    st.sampled_from([DOCTOR, OTHER, DOCTOR.upper(), "", DOCTOR + "%00", "%ff%fe", "null"]).map(str.encode),
    *(PRINTABLE, HEADER_TEXT),
)
LONG = st.builds(
    operator.mul, st.sampled_from([b"x", b"%", b"&", b"=", b"%c3", b"user_id=&"]), st.integers(1, 500)
)
# The optional parameters, each with valid values.
PARAMETERS = {
    **dict.fromkeys((b"status", b"gender", b"search"), (b"pending", b"female", b"Zo%C3%AB", b"%25_%5C", b"")),
    **dict.fromkeys((b"min_age", b"minAge", b"max_age", b"maxAge"), (b"-1", b"0", b"50", b"999999999")),
    **dict.fromkeys((b"start_date", b"startDate"), (b"0001-01-01", b"2026-01-01T05:30%2B05:30")),
    **dict.fromkeys((b"end_date", b"endDate", b"updated_since"), (b"9999-12-31", b"2026-01-01T00:02:00.5Z")),
    **dict.fromkeys((b"sort_by", b"sortBy"), (b"created_at", b"patient_name", b"patient_age", b"status")),
    **dict.fromkeys((b"sort_order", b"sortOrder"), (b"asc", b"desc")),
    b"limit": (b"1", b"2", b"1000"),
    b"page": (b"1", b"2", b"999999999"),
    b"after": tuple(columns["case_id"].encode() for cases in CASES.values() for columns in cases),
}
# These are shorter than the parts of a token, because links repeat them.
BAD_VALUES = st.one_of(
    st.sampled_from([b"", b"%00", b"%ff", b"\xff", b"%27", b"0", b"1001", b"2026-02-30", b"x" * 101]),
    *(PRINTABLE.map(lambda value: value[:30]), HEADER_TEXT.map(lambda value: value[:30])),
)
ANY_PARAMETER = st.sampled_from([*PARAMETERS]).flatmap(
    lambda name: usually(st.sampled_from(PARAMETERS[name]), BAD_VALUES, one_in=5).map((name + b"=").__add__)
)
QUERIES = st.lists(
    st.one_of(
        *(st.just(USER_ID), USER_IDS.map(b"user_id=".__add__), PRINTABLE, HEADER_TEXT, LONG, ANY_PARAMETER),
        st.builds(b"%b=%b".__mod__, st.tuples(PRINTABLE, HEADER_TEXT)),
    ),
    max_size=4,
).map(b"&".join)
HUGE = st.just(b"x" * 300_000)

JSON = st.recursive(
    st.one_of(
        st.sampled_from([None, True, "", OTHER, "none", "HS512", ["authenticated", 1], ["exp"], 10**400]),
        *(st.integers(), st.floats(), st.text(max_size=9)),
    ),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=5), values, max_size=2),
    max_leaves=4,
)
ODD_CLAIMS = st.dictionaries(
    st.sampled_from(["sub", "aud", "iat", "exp", "nbf", "iss", "jti"]), JSON, min_size=1
)
ODD_HEADERS = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "zip"]), JSON, min_size=1
)
NO_CLAIM = [signed({name: CLAIMS[name] for name in CLAIMS if name != lost}) for lost in ("sub", "aud", "exp")]
INVALID_TOKENS = st.sampled_from(
    [
        *(EXPIRED, *NO_CLAIM, signed(CLAIMS, "none"), signed(CLAIMS, "HS384"), signed(CLAIMS, "HS512")),
        jwt.encode(CLAIMS, SECRET[::-1]).encode(),
        b".".join([TOKEN_HEADER, OTHER_TOKEN.split(b".")[1], TOKEN_SIGNATURE]),
        b".".join([segment(HEADER), TOKEN_CLAIMS, b""]),
        b".".join([base64.urlsafe_b64encode(b"[" * 5_001), TOKEN_CLAIMS, TOKEN_SIGNATURE]),
        TOKEN * 50,
    ]
)
FORGED_TOKENS = st.one_of(
    ODD_CLAIMS.map(lambda odd: b".".join([TOKEN_HEADER, segment({**CLAIMS, **odd}), TOKEN_SIGNATURE])),
    ODD_HEADERS.map(lambda odd: b".".join([segment({**HEADER, **odd}), TOKEN_CLAIMS, TOKEN_SIGNATURE])),
)
POSITIONS = st.integers(0, len(TOKEN) - 1)
DAMAGED_TOKENS = st.one_of(
    st.builds(
        lambda at, byte: TOKEN[:at] + byte + TOKEN[at + 1 :], POSITIONS, st.sampled_from([b"A", b"\xe9"])
    ),
    POSITIONS.map(lambda at: TOKEN[:at]),
    POSITIONS.map(lambda at: TOKEN[at:]),
    HEADER_TEXT.map(TOKEN.__add__),
    HEADER_TEXT.map(lambda text: text + TOKEN),
)
VALID, OTHER_VALID = Credential(b"Bearer " + TOKEN, DOCTOR), Credential(b"Bearer " + OTHER_TOKEN, OTHER)
CREDENTIALS = st.one_of(
    st.sampled_from([VALID, OTHER_VALID, Credential(b"bEARER   " + TOKEN + b" ", DOCTOR)]),
    st.sampled_from([b"Basic " + TOKEN, TOKEN, b"Bearer\t" + TOKEN, b"Bearer", b""]).map(Credential),
    INVALID_TOKENS.map(lambda token: Credential(b"Bearer " + token)),
    FORGED_TOKENS.map(lambda token: Credential(b"Bearer " + token)),
    # PyJWT may accept a damaged token, which still belongs to the same doctor.
    DAMAGED_TOKENS.map(lambda token: Credential(b"Bearer " + token, DOCTOR)),
    ODD_CLAIMS.map(
        lambda odd: Credential(b"Bearer " + signed({**CLAIMS, **odd}), str(odd.get("sub", DOCTOR)))
    ),
    HEADER_TEXT.map(Credential),
)

HEADER_NAMES = [
    *(b"Origin", b"Access-Control-Request-Method", b"Access-Control-Request-Headers", b"Host", b"Cookie"),
    *(b"If-None-Match", b"If-Modified-Since", b"Range", b"If-Range", b"Accept", b"Accept-Encoding"),
    *(b"Content-Type", b"X-Request-ID", b"X-HTTP-Method-Override", b"X-Forwarded-For", b"X-Forwarded-Proto"),
    *(b"X-Forwarded-Host", b"Forwarded", b"X_Forwarded_For", b"User-Agent"),
]
HEADER_VALUES = [
    *(ORIGIN.encode(), b"null", b"HEAD", b"authorization, x", b"x:y", b"a=b; c", b'"x", W/"y"', b"Bearer"),
    *(b"Sat, 01 Jan 2000 00:00:00 GMT", b"bytes=0-1,-1", b"text/html;q=0", b"gzip, *", b"*/*"),
    *(b"application/json", b"multipart/form-data", b"nightshift-1", b"127.0.0.1, ::1", b"[::1]:1", b":."),
    *(b"https", b"for=x;proto=http", b"", b" ", b'"', b"\xff"),
]
ADDRESSES = st.text('.:[]1", ', max_size=4).map(str.encode)
ANY_HEADER = st.builds(
    b"%b: %b".__mod__,
    st.tuples(st.sampled_from(HEADER_NAMES), st.one_of(st.sampled_from(HEADER_VALUES), HEADER_TEXT)),
)
# Some contain line ends that HTTP does not have. These must not begin another header.
BROKEN_HEADERS = st.sampled_from(
    [
        *(b"Cookie: \0", b"Cookie: a\nAuthorization: Bearer " + OTHER_TOKEN, b"X\n: a", b"Cookie"),
        *(b"Authorization: Bearer " + TOKEN + end for end in (b"\r", b"\n", b"\n\n", b"\0")),
        b" Authorization: Bearer " + TOKEN,
    ]
)
HEADERS = usually(
    usually(ANY_HEADER, ADDRESSES.map(b"X-Forwarded-For: ".__add__), one_in=5), BROKEN_HEADERS, one_in=30
)
CONDITIONS = usually(
    st.just(b"*"), st.sampled_from([b'"x"', b'W/"x",,"y"', b'"x', b'*, "', b"W/", b"x"]), one_in=3
).map(lambda tags: [b"If-None-Match: " + tags])

# Each has the last header, the empty line and the body.
NO_BODY = st.just(b"\r\n")
BODIES = st.binary(max_size=40).map(lambda body: b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
CHUNKED = st.lists(st.binary(min_size=1, max_size=20), max_size=3).map(
    lambda chunks: (
        b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        + b"0\r\n\r\n"
    )
)
# The server refuses these before the client sends the body.
TOO_LARGE = st.sampled_from([5, 20, 5_000]).map(
    lambda digits: b"Content-Length: %b\r\n\r\n" % (b"9" * digits)
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    method = draw(usually(st.just(b"GET"), METHODS, one_in=3))
    target = draw(usually(st.just(PATH), PATHS, one_in=3))
    doctor = usually(st.just(USER_ID), st.just(b"user_id=" + OTHER.encode()), one_in=6)
    optional = usually(st.just([]), st.lists(ANY_PARAMETER, min_size=1, max_size=4), one_in=2)
    valid_query = st.builds(lambda doctor, optional: b"&".join([doctor, *optional]), doctor, optional)
    query = draw(usually(usually(valid_query, QUERIES, one_in=3), HUGE, one_in=40))
    version = draw(usually(st.just(b"1.1"), st.just(b"1.0"), one_in=10))
    bodies = BODIES | TOO_LARGE | CHUNKED if version == b"1.1" else BODIES | TOO_LARGE
    end = draw(usually(NO_BODY, bodies, one_in=5))
    valid_credential = usually(st.just(VALID), st.just(OTHER_VALID), one_in=6)
    one_credential = usually(valid_credential, CREDENTIALS, one_in=2).map(lambda credential: [credential])
    credentials = draw(usually(one_credential, st.lists(CREDENTIALS, max_size=3), one_in=8))
    lines = [
        b"%b %b?%b HTTP/%b" % (method, target, query, version),
        *draw(st.lists(HEADERS, max_size=3)),
        *draw(usually(st.just([]), CONDITIONS, one_in=3)),
        *(b"Authorization: " + credential.value for credential in credentials),
        *(b"Connection: close", end),
    ]
    return Request(method, query, credentials, b"\r\n".join(lines))


@pytest.fixture(scope="module")
def server(layout_database: CasesDatabase) -> Iterator[Running]:
    """The service with the cases of two doctors and decoys. At the end it must still run and answer."""
    layout_database.clear()
    layout_database.add_decoys()
    for cases in CASES.values():
        layout_database.add(*cases)
    with serve(
        layout_database.service_dsn,
        MEDMITRA_JWT_SECRET=SECRET,
        MEDMITRA_CORS_ORIGINS=ORIGIN,
        MEDMITRA_DOCS="0",  # the pages have responses of other kinds
    ) as server:
        yield server
        query, token = USER_ID.decode(), TOKEN.decode()
        response, body = server.get(f"/cases/all_cases?{query}", Authorization=f"Bearer {token}")
        assert (response.status, json.loads(body)) == (200, EXPECTED[DOCTOR])
        assert server.process.poll() is None
        assert "Traceback" not in server.printed
        assert TOKEN_SIGNATURE.decode() not in server.printed


def send(server: Running, raw: bytes) -> bytes:
    """Send bytes unchanged; returns all bytes received. The server may stop reading after it refuses."""
    response = b""
    with server.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(raw)
        with suppress(ConnectionError):
            while received := connection.recv(65_536):
                response += received
    return response


def parse(raw: bytes) -> Response:
    """Parse a response, which must be well-formed."""
    head, end, body = raw.partition(b"\r\n\r\n")
    assert end, raw
    status_line, *lines = head.decode("ascii").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.[01] (\d{3}) [ -~]+", status_line)
    assert status, status_line
    fields = [re.fullmatch(r"([A-Za-z-]+): ([ -~]+)", line) for line in lines]
    assert all(fields), lines
    headers = {field[1].lower(): field[2] for field in fields if field}
    assert len(headers) == len(fields), lines
    return Response(int(status[1]), headers, body)


@pytest.mark.parametrize("layout_database", ["own_table"], indirect=True)
@settings(max_examples=max(500, settings().max_examples), deadline=None)
@given(request=requests())
def test_any_request_gets_one_documented_response(server: Running, request: Request) -> None:
    raw = send(server, request.raw)
    assert server.process.poll() is None
    assert b"Somebody Else" not in raw
    # The response repeats no part of a token. All that it may repeat, such as a user_id, is shorter.
    for part in re.findall(rb"[\w-]{40,}", request.raw):
        assert part not in raw

    status, headers, body = parse(raw)
    event(f"status {status}")
    assert status in STATUSES
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "server" not in headers
    assert headers.get("access-control-allow-origin", ORIGIN) == ORIGIN
    assert ("www-authenticate" in headers) == (status == 401)
    assert ("content-type" in headers) == (status != 304)
    assert status in (200, 304) or headers["content-type"] == "application/json"

    # The server does not know the method of an unreadable request, so the error can have a body for HEAD.
    if request.method == b"HEAD" and not (body and status in (400, 431)):
        assert body == b""
        assert status not in (200, 304) or request.doctor in CASES
        return
    assert "transfer-encoding" not in headers
    if status == 304:
        assert request.method == b"GET"
        assert request.doctor in CASES
        assert re.fullmatch('"[0-9a-f]{32}"', headers["etag"])
        assert body == b""
        return
    assert len(body) == int(headers["content-length"])
    if status != 200:
        error = json.loads(body)
        assert list(error) == ["detail"]
        assert isinstance(error["detail"], str)
        assert error["detail"]
    elif request.method == b"OPTIONS":
        assert body == b""
    else:
        assert request.method == b"GET"
        assert request.doctor in CASES
        received, expected = json.loads(body), EXPECTED[request.doctor]
        if request.requests_all_cases:
            assert received == expected
        else:
            assert [*received] == ["cases"]
            assert all(found in expected["cases"] for found in received["cases"])
            assert len(received["cases"]) <= int(headers.get("x-total-count", 2)) <= 2
