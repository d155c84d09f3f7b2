"""Requests that the service refuses, each with a 4xx status and one sentence."""

import http.client
import io
import json
import resource
import socket
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from cots.errors import BadInput
from cots.service import connections
from cots.service.middleware import RequestLimits
from cots.service.server import allowed_hosts, read_token
from tests.data.test_images import with_scans

from .conftest import LIMITS, Served, encoded, in_base64, serving

pytestmark = pytest.mark.slow
SECRET = "a-secret-of-enough-characters"


def error_of(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error"}
    sentence: str = body["error"]
    assert sentence
    assert "\n" not in sentence
    return sentence


def png_of(width: int, height: int) -> bytes:
    """A small PNG whose header claims this size."""
    small = encoded("red")
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[24:29]
    return small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"text": "a" * 1001}, "text: string should have at most 1000 characters"),
        ({"text": ""}, "text: string should have at least 1 character"),
        ({"text": "  \n"}, "text: it is blank"),
        ({"text": 3}, "text: input should be a valid string"),
        ({"text": "a", "k": 101}, "k: input should be less than or equal to 100"),
        ({"text": "a", "k": 0}, "k: input should be greater than or equal to 1"),
        ({"text": "a", "k": "3"}, "k: input should be a valid integer"),
        ({"text": "a", "k": True}, "k: input should be a valid integer"),
        ({"text": "a", "media": "audio"}, "media: input should be 'any', 'image', 'video' or 'text'"),
        ({"text": "a", "colour": "red"}, "unexpected field colour: a query is a text, an image or both"),
        ({"text": "a", "cursor": "b"}, "unexpected field cursor: a query is a text, an image or both"),
        ({"cursor": "b"}, "the cursor is malformed: send the `next` of an answer"),
        ({"cursor": in_base64(b"[]")}, "the cursor is malformed"),
        ({"cursor": in_base64(b"[" * 50_000)}, "the cursor is malformed"),
        ({"text": "a", "where": {"colour": "red"}}, "the items have no column 'colour': they have split"),
        ({"text": "a", "where": {"split": 1}}, "input should be a valid string"),
        ({"text": "a", "min_score": 2}, "min_score: input should be less than or equal to 1"),
        ({"text": "a", "minus": [" "]}, "it is blank or malformed"),
        ({"text": "a", "minus": ["b"] * 11}, "minus: list should have at most 10 items"),
        ({}, "no text: a query is a text, an image or both"),
        ([], "a query is a text, an image or both"),
        ("a", "a query is a text, an image or both"),
        (None, "a query is a text, an image or both"),
        ({"image": "%%%"}, "the image is not base64"),
        ({"image": "é"}, "the image is not base64"),
        ({"image": ""}, "image: string should have at least 1 character"),
        ({"image": in_base64(b"no picture")}, "none of JPEG, PNG"),
        ({"image": in_base64(encoded("red", "EPS"))}, "none of JPEG, PNG"),
        ({"image": in_base64(encoded("red")[:70])}, "the image cannot be used: "),
        ({"image": in_base64(encoded("red", size=(7, 40)))}, "the image cannot be used: too small: 7 x 40"),
        (
            {"image": in_base64(with_scans(2000))},
            "the image cannot be used: too many scans: 2000, at most 32 are decoded",
        ),
        ({"image": in_base64(png_of(2000, 1000))}, "too many pixels: 2000 x 1000, at most 1000000 are opened"),
        ({"image": in_base64(png_of(60000, 60000))}, "the image cannot be used: too many pixels"),
    ],
)
def test_a_query_that_cannot_be_one_is_refused_in_a_sentence(served: Served, query: object, sentence: str) -> None:
    assert sentence in error_of(served.client.post("/search", json=query), 422)


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (b"{", "application/json", "the body is not JSON"),
        (b'{"text": "\\ud800"}', "application/json", "text: "),
        (b'{"text": "a"}', "text/plain", "a query is a text, an image or both"),
        (b"\xff\xfe", "application/json", ""),
        (b"[" * 50_000, "application/json", "the body has more values than a request of its kind"),
        (b"[" * 1_000, "application/json", ""),
        (
            b'{"text": "a"' + b', "a": 1' * 1_100 + b"}",
            "application/json",
            "the body has more values than a request of its kind",
        ),
        (b'{"text": "a"' + b', "a": 1' * 1_000 + b"}", "application/json", "unexpected field a"),
        (b'{"text": "a", "k": 1' + b"0" * 5_000 + b"}", "application/json", ""),
        (b"", "application/json", ""),
    ],
)
def test_a_body_that_is_no_query_is_refused(served: Served, body: bytes, kind: str, sentence: str) -> None:
    answer = served.client.post("/search", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (400, 422), answer.text
    assert sentence in error_of(answer, answer.status_code)


@pytest.mark.parametrize("parameters", ["k=0", "k=101", "k=x", "media=audio", "colour=red"])
def test_the_parameters_beside_an_image_are_checked_likewise(served: Served, parameters: str) -> None:
    error_of(served.client.post(f"/search/image?{parameters}", content=encoded("red")), 422)


def test_a_text_of_commas_and_brackets_is_answered(served: Served) -> None:
    for mark in ",[{":
        assert served.search(text=mark * 1000, k=1)["results"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("POST", "/search/image"), ("GET", "/lineage/folder"), ("POST", "/search")],
)
def test_a_query_string_that_is_too_long_is_refused(served: Served, method: str, path: str) -> None:
    parameters = "&".join(f"a{number}=" for number in range(300))
    answer = served.client.request(method, f"{path}?{parameters}")
    assert error_of(answer, 400) == "the query string is longer than 1,000 bytes"


@pytest.mark.parametrize("path", ["/search", "/search/image"])
def test_a_body_that_is_too_large_is_refused(served: Served, path: str) -> None:
    large = b"x" * (LIMITS.body + 1)
    assert error_of(served.client.post(path, content=large), 413) == "the body is larger than 200,000 bytes"
    chunks = (large[start : start + 10_000] for start in range(0, len(large), 10_000))
    assert error_of(served.client.post(path, content=chunks), 413) == "the body is larger than 200,000 bytes"
    assert served.search(text="a red square")


def test_a_body_without_end_is_not_read_to_its_end(served: Served) -> None:
    """The sender of chunks gets an answer, or is cut off, while it is still sending."""
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    connection.putrequest("POST", "/search")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    chunk = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
    sent = 0
    try:
        while sent < 400 * len(chunk):
            connection.send(chunk)
            sent += len(chunk)
    except OSError:
        pass
    connection.close()
    assert sent < 400 * len(chunk)
    assert served.search(text="a red square")


def test_a_body_that_does_not_come_is_not_waited_for(mixed_package: Path) -> None:
    quick = RequestLimits(body=1000, pixels=1000, in_flight=4, seconds=0.2)
    with serving(mixed_package, limits=quick) as served:
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port), timeout=20) as slow:
            slow.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert answer.status == 408
            assert json.loads(answer.read())["error"] == "the body took longer than 0.2 s"


@pytest.fixture
def impatient(mixed_package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A service that waits for clients a quarter of a second."""
    monkeypatch.setattr(connections, "CLIENT_SECONDS", 0.25)
    with serving(mixed_package) as served:
        yield served


def connected(served: Served) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def is_cut_off(client: socket.socket) -> bool:
    """Whether the service ends the connection; waits until it does, and fails after the socket's timeout."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nX: ",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nX: ",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    ],
    ids=["nothing", "half a head", "a second half head", "an unwanted half body"],
)
def test_a_client_that_does_not_go_on_is_cut_off(impatient: Served, sent: bytes) -> None:
    with connected(impatient) as silent:
        silent.sendall(sent)
        assert is_cut_off(silent)


def test_a_head_that_arrives_byte_by_byte_gets_no_more_time(impatient: Served) -> None:
    with connected(impatient) as slow, pytest.raises(OSError, match="reset|Broken pipe"):
        for _ in range(2000):
            slow.sendall(b"x")
            impatient.client.get("/healthz")  # about a millisecond


def test_a_client_that_does_not_read_its_answers_is_cut_off(impatient: Served) -> None:
    with connected(impatient) as deaf, pytest.raises((ConnectionResetError, BrokenPipeError)):
        while True:
            deaf.sendall(1000 * b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_connections_beyond_what_the_process_can_open_are_closed_at_once(
    mixed_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(mixed_package) as served:
        monkeypatch.setattr(connections, "max_connections", lambda: 3)
        silent = [connected(served) for _ in range(2)]  # beside that of the client
        for _ in range(5):
            with connected(served) as surplus:
                assert is_cut_off(surplus)
        assert served.client.get("/healthz").status_code == 200
        for client in silent:
            client.close()


def test_half_of_few_files_and_all_but_a_hundred_of_many_may_be_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, expected in ((64, 32), (256, 156), (1024, 924), (resource.RLIM_INFINITY, sys.maxsize)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
        assert connections.max_connections() == expected


def test_more_concurrent_queries_than_allowed_are_asked_to_retry(mixed_package: Path) -> None:
    with serving(mixed_package, limits=RequestLimits(body=1000, pixels=1000, in_flight=1, seconds=20)) as served:
        address = urlsplit(served.url)
        with socket.create_connection((address.hostname, address.port), timeout=20) as slow:
            body = b'{"text": "a red square"}'
            head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(b"POST /search HTTP/1.1\r\n" + head.encode() + body[:5])
            served.until(lambda: "cots_queries_in_flight 1.0" in served.client.get("/metrics").text)
            refused = served.client.post("/search", json={"text": "a"})
            assert 'route="/search",status="429"' in served.client.get("/metrics").text
            assert error_of(refused, 429) == "1 queries are being answered: try again"
            assert refused.headers["retry-after"] == "1"
            slow.sendall(body[5:])
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert answer.status == 200
        assert served.search(text="a")


@pytest.mark.parametrize(
    "path",
    [
        "/preview/{version}/0/7",
        "/preview/{version}/999/0",
        "/preview/{version}/9007199254740991/0",
        "/preview/other/0/0",
        "/preview/{version}/0",
        "/preview/{version}/0/..%2f..%2fitems.parquet",
        "/preview/..%2f..%2findex/0/0",
        "/preview/%2e%2e/%2e%2e/etc/passwd",
        "/preview//etc/passwd/0",
        "/preview/{version}/-1/0",
        "/preview/{version}/0/000000000.000.jpg",
        "/preview/{version}/0%00/0",
        "/lineage/other",
        "/lineage/other/0",
        "/lineage/{version}/27",
        "/lineage/{version}/-1",
        "/page.html",
        "/api.py",
        "/../conftest.py",
        "/docs",
        "/redoc",
        "/index.faiss",
    ],
)
def test_nothing_but_indexed_previews_can_be_read(served: Served, path: str) -> None:
    version = served.client.get("/readyz").json()["versions"]["index"]["version"]
    address = urlsplit(served.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=20)
    connection.request("GET", path.replace("{version}", version))  # as it stands: a client would tidy it
    answer = connection.getresponse()
    assert answer.status in (404, 422)
    assert json.loads(answer.read())["error"]
    connection.close()


def test_another_method_is_refused_and_the_right_one_named(served: Served) -> None:
    answer = served.client.get("/search")
    assert error_of(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", ""])
def test_a_page_of_another_host_that_resolves_to_this_machine_is_kept_out(served: Served, host: str) -> None:
    assert "this service is not known as" in error_of(served.client.get("/healthz", headers={"Host": host}), 400)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "10.42.0.17:8000", "[fd00::17]:8000"]
)
def test_this_machines_own_name_and_addresses_are_let_in(served: Served, host: str) -> None:
    assert served.client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[", "", "x"])
def test_a_page_of_another_host_cannot_send_a_query(served: Served, origin: str) -> None:
    """Without a preflight a browser sends an image as the body, or text, of any page."""
    answer = served.client.post("/search/image", content=encoded("red"), headers={"Origin": origin})
    assert error_of(answer, 403).startswith(f"pages of {origin!r} may not use this service")


def test_the_services_own_page_and_those_of_allowed_hosts_can_send_a_query(mixed_package: Path) -> None:
    with serving(mixed_package, hosts=["search.example.org"]) as served:
        for host, origin in (
            (urlsplit(served.url).netloc, served.url),
            ("search.example.org", "https://search.example.org"),
            ("127.0.0.1:8000", "https://Search.Example.org"),  # a proxy that puts its own name into Host
        ):
            headers = {"Host": host, "Origin": origin}
            assert served.client.post("/search", json={"text": "a"}, headers=headers).status_code == 200


def test_every_answer_forbids_other_hosts_and_guessing(served: Served) -> None:
    for path in ("/", "/healthz", "/nowhere", "/metrics"):
        headers = served.client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    assert "http" not in served.client.get("/").text.replace(served.url, "")


@pytest.fixture(scope="module")
def guarded(mixed_package: Path) -> Iterator[Served]:
    with serving(mixed_package, token=SECRET) as served:
        yield served


def test_a_token_is_wanted_for_everything_but_the_page_the_probes_and_the_metrics(guarded: Served) -> None:
    for path in ("/", "/page.js", "/page.css", "/api.js", "/cards.js", "/icon.svg", "/healthz", "/readyz", "/metrics"):
        assert guarded.client.get(path).status_code == 200, path
    for path in ("/openapi.json", "/preview/a/0/0", "/lineage/a", "/nowhere"):
        assert "Authorization: Bearer" in error_of(guarded.client.get(path), 401)
    refused = guarded.client.post("/search", json={"text": "a"})
    assert refused.headers["www-authenticate"] == "Bearer"
    error_of(refused, 401)


@pytest.mark.parametrize(
    "credentials", ["Bearer wrong", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}x", "Bearer", "Bearer é"]
)
def test_another_token_is_refused(guarded: Served, credentials: str) -> None:
    headers = {b"Authorization": credentials.encode()}
    error_of(guarded.client.post("/search", json={"text": "a"}, headers=headers), 401)


def test_the_token_lets_in_and_the_openapi_says_where_it_is_wanted(guarded: Served) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    paths = guarded.client.get("/openapi.json", headers=headers).json()["paths"]
    secured = {path for path, methods in paths.items() if "security" in next(iter(methods.values()))}
    assert secured == set(paths) - {"/healthz", "/readyz", "/metrics"}
    answer = guarded.client.post("/search", json={"text": "a"}, headers=headers).json()
    assert guarded.client.get(answer["results"][0]["preview"], headers=headers).status_code == 200


def test_listening_beyond_this_machine_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTS_TOKEN", raising=False)
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert read_token(host) is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(BadInput, match="set COTS_TOKEN"):
            read_token(host)
    monkeypatch.setenv("COTS_TOKEN", "short")
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(BadInput, match="COTS_TOKEN has 5 characters: give at least 16"):
            read_token(host)
    for token in (SECRET, f"{SECRET}\n", f" {SECRET}\r\n"):
        monkeypatch.setenv("COTS_TOKEN", token)
        assert read_token("0.0.0.0") == read_token("127.0.0.1") == SECRET


@pytest.mark.parametrize(
    "token", ["a-bärenhöhle-of-16-letters", "a-zero-width-space-\u200b", "a-line-\n-in-between", "\t"]
)
def test_a_token_that_no_request_can_carry_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("COTS_TOKEN", token)
    with pytest.raises(BadInput, match="COTS_TOKEN (may hold ASCII characters only|has 0 characters)"):
        read_token("127.0.0.1")


def test_names_are_checked_on_this_machine_and_where_some_are_given() -> None:
    assert allowed_hosts("127.0.0.1", []) == frozenset()
    assert allowed_hosts("0.0.0.0", []) is None
    assert allowed_hosts("0.0.0.0", ["Search.example.org"]) == frozenset({"search.example.org"})


def test_an_animated_image_counts_as_its_first_frame(served: Served) -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (40, 32), colour) for colour in ("blue", "red")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    [first] = served.client.post("/search/image?k=1&media=image", content=file.getvalue()).json()["results"]
    assert first["id"].endswith("image-blue")


def test_many_clients_that_break_off_leave_the_service_answering(served: Served) -> None:
    address = urlsplit(served.url)

    def break_off() -> None:
        with socket.create_connection((address.hostname, address.port), timeout=20) as client:
            client.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")

    threads = [threading.Thread(target=break_off) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    served.until(lambda: "cots_queries_in_flight 0.0" in served.client.get("/metrics").text)
    assert served.search(text="a red square")
