"""Fetching by URL: only from allowed sources, never from inside, whatever names and redirects say."""

import gzip
import hashlib
import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from api.app import create_app
from api.fetching import MAX_AT_ONCE, Fetcher, shown
from api.refusals import (
    RateLimitedError,
    UploadRefusedError,
    UploadTooLargeError,
    UrlRefusedError,
    UrlUnavailableError,
)
from api.uploads import UploadRoom
from catalog import Settings
from cli.ports import free_port
from tests.api.conftest import CONFIG, LOCAL, Installation
from tests.imagesets.building import two_classes, write_zip
from tests.installing import settings_at

HERE = ("127.0.0.0/8",)
CONTENT = b"weights" * 1000


class Site(BaseHTTPRequestHandler):
    """Serves what the test put into the server's `answers`: path -> (status, headers, body)."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, headers, body = self.server.answers.get(self.path.partition("?")[0], (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.answers, server.asked = {"/files/a": (200, {}, CONTENT)}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def room(tmp_path):
    return UploadRoom(tmp_path, 10**6, 0)


def fetcher_for(site, networks=HERE, **options):
    lookup = {"lookup": options.pop("lookup")} if "lookup" in options else {}
    settings = Settings(fetch_from=(f"{site.url}/files/",), fetch_networks=networks, **options)
    return Fetcher(settings, **lookup)


def fetch(fetcher, url, room, sha256=None):
    with fetcher.fetched(url, room, sha256) as path:
        return path.read_bytes()


def test_a_file_of_an_allowed_source_is_fetched_and_leaves_nothing_behind(site, room):
    digest = hashlib.sha256(CONTENT).hexdigest()

    assert fetch(fetcher_for(site), f"{site.url}/files/a?signature=x", room, digest) == CONTENT
    assert site.asked == ["/files/a?signature=x"]
    assert list(room.folder.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "{site}/other/a",
        "{site}/files",
        "{site}/files/../other/a",
        "{site}/files/%2e%2e/other/a",
        "{site}/files/%252e%252e/other/a",
        "https://127.0.0.1:{port}/files/a",
        "http://127.0.0.1/files/a",
        "http://user:password@127.0.0.1:{port}/files/a",
        "http://localhost:{port}/files/a",
        "http://127.0.0.1:{port}@evil.example/files/a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/files/a",
        "http://127.0.0.1:{port}/files/a b",
        "http://127.0.0.1:{port}/files/a\r\nX: 1",
        "http://127.0.0.1:{port}\\@evil.example/files/a",
        "http://[::1/files/a",
        "http://127.0.0.1:99999999/files/a",
        "//127.0.0.1/files/a",
        "",
    ],
)
def test_what_is_not_below_an_allowed_source_is_not_asked_for(site, room, url):
    with pytest.raises(UrlRefusedError):
        fetch(fetcher_for(site), url.format(site=site.url, port=site.server_port), room)
    assert site.asked == []


def test_nothing_is_fetched_where_no_source_is_allowed(room):
    with pytest.raises(UrlRefusedError, match="CONDU_FETCH_FROM is not set"):
        fetch(Fetcher(Settings()), "https://data.example/a", room)


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://a.data.example/x", True),
        ("https://b.a.data.example/x", True),
        ("https://data.example/x", False),
        ("https://evildata.example/x", False),
        ("https://a.data.example.evil.example/x", False),
        ("https://a.data.example:8443/x", False),
        ("https://A.DATA.example/x", True),
    ],
)
def test_a_star_stands_for_what_lies_below_a_host_and_nothing_else(url, is_allowed):
    fetcher = Fetcher(Settings(fetch_from=("https://*.data.example/",)))

    if is_allowed:
        assert fetcher.check_allowed(url)
    else:
        with pytest.raises(UrlRefusedError):
            fetcher.check_allowed(url)


INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::80ff:fffe",
]


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_leads_inside_is_not_connected_to(room, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    fetcher = Fetcher(
        Settings(fetch_from=("http://data.example/",)), lookup=lambda host, port: [(family, (address, port))]
    )

    with pytest.raises(UrlRefusedError, match="own network"):
        fetch(fetcher, "http://data.example/a", room)


def test_a_name_of_which_only_one_meaning_leads_inside_is_refused_too(room):
    meanings = [(socket.AF_INET, ("93.184.215.14", 80)), (socket.AF_INET, ("127.0.0.1", 80))]
    fetcher = Fetcher(Settings(fetch_from=("http://data.example/",)), lookup=lambda host, port: meanings)

    with pytest.raises(UrlRefusedError):
        fetch(fetcher, "http://data.example/a", room)


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(site, room):
    """DNS rebinding: the name means something else each time it is asked."""
    asked = []

    def rebinding(host, port):
        asked.append(host)
        return [(socket.AF_INET, ("127.0.0.1" if len(asked) == 1 else "127.0.0.2", site.server_port))]

    url = f"http://data.example:{site.server_port}"
    settings = Settings(fetch_from=(f"{url}/files/",), fetch_networks=("127.0.0.1/32",))

    assert fetch(Fetcher(settings, lookup=rebinding), f"{url}/files/a", room) == CONTENT
    assert asked == ["data.example"]
    with pytest.raises(UrlRefusedError):
        fetch(Fetcher(settings, lookup=rebinding), f"{url}/files/a", room)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_what_is_allowed_is_followed(site, room, status):
    site.answers["/files/b"] = (status, {"Location": "a"}, b"")

    assert fetch(fetcher_for(site), f"{site.url}/files/b", room) == CONTENT


@pytest.mark.parametrize(
    "target",
    [
        "/other/a",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/files/a",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_redirect_to_anywhere_else_is_not_followed(site, room, target):
    site.answers["/files/b"] = (302, {"Location": target}, b"")

    with pytest.raises((UrlRefusedError, UrlUnavailableError)):
        fetch(fetcher_for(site), f"{site.url}/files/b", room)
    assert set(site.asked) == {"/files/b"}


def test_a_redirect_by_a_name_that_leads_inside_is_not_followed(site, room):
    """Both names are allowed; the second means an address inside."""
    names = {"out.example": "127.0.0.1", "in.example": "127.0.0.9"}
    port = site.server_port
    sources = tuple(f"http://{name}:{port}/files/" for name in names)
    fetcher = Fetcher(
        Settings(fetch_from=sources, fetch_networks=("127.0.0.1/32",)),
        lookup=lambda host, port: [(socket.AF_INET, (names[host], port))],
    )
    site.answers["/files/b"] = (302, {"Location": f"http://in.example:{port}/files/a"}, b"")

    with pytest.raises(UrlRefusedError, match=r"in\.example"):
        fetch(fetcher, f"http://out.example:{port}/files/b", room)
    assert site.asked == ["/files/b"]


def test_redirects_in_a_circle_are_given_up(site, room):
    site.answers["/files/b"] = (302, {"Location": "b"}, b"")

    with pytest.raises(UrlUnavailableError, match="one redirect too many"):
        fetch(fetcher_for(site), f"{site.url}/files/b", room)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((404, {}, b"no"), UrlUnavailableError),
        ((200, {"Content-Length": "10"}, b"short"), UrlUnavailableError),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(b"x")), UrlUnavailableError),
        ((200, {"Content-Length": "99999999"}, b"x"), UploadTooLargeError),
        ((200, {"Content-Length": ""}, b"x" * 1_000_001), UploadTooLargeError),
        ((200, {"Transfer-Encoding": "chunked", "Content-Length": ""}, b"zz\r\n"), UrlUnavailableError),
    ],
    ids=["missing", "cut off", "encoded", "too large", "too large unsaid", "broken chunks"],
)
def test_an_answer_that_is_not_the_whole_file_is_an_error_of_its_own(site, room, answer, error):
    site.answers["/files/b"] = answer

    with pytest.raises(error):
        fetch(fetcher_for(site), f"{site.url}/files/b", room)
    assert list(room.folder.iterdir()) == []


def test_a_file_with_another_digest_than_was_said_is_refused(site, room):
    with pytest.raises(UploadRefusedError, match="was said to have"):
        fetch(fetcher_for(site), f"{site.url}/files/a", room, "0" * 64)


def test_a_source_that_cannot_be_reached_or_has_no_name_is_unavailable(site, room):
    closed = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    settings = Settings(fetch_from=(f"{closed}/files/",), fetch_networks=HERE)
    with pytest.raises(UrlUnavailableError, match="cannot be reached"):
        fetch(Fetcher(settings), f"{closed}/files/a", room)

    def nameless(host, port):
        raise socket.gaierror

    with pytest.raises(UrlUnavailableError, match="means nothing"):
        fetch(fetcher_for(site, lookup=nameless), f"{site.url}/files/a", room)


def test_a_server_without_a_certificate_for_its_name_is_not_believed(site, room):
    url = site.url.replace("http:", "https:")
    settings = Settings(fetch_from=(f"{url}/files/",), fetch_networks=HERE)

    with pytest.raises(UrlUnavailableError, match="did not prove"):
        fetch(Fetcher(settings), f"{url}/files/a", room)


def test_a_fetch_that_takes_too_long_is_given_up(site, room):
    with pytest.raises(UrlUnavailableError, match="too long"):
        fetch(fetcher_for(site, fetch_timeout_s=1e-9), f"{site.url}/files/a", room)


def test_only_so_many_are_fetched_at_once_and_each_gives_its_place_back(site, room):
    fetcher = fetcher_for(site)

    @contextmanager
    def nested(depth):
        with fetcher.fetched(f"{site.url}/files/a", room) as path:
            if depth:
                with nested(depth - 1):
                    yield
            else:
                yield path

    for _ in range(2):
        with nested(MAX_AT_ONCE - 1), pytest.raises(RateLimitedError):
            fetch(fetcher, f"{site.url}/files/a", room)
    assert fetch(fetcher, f"{site.url}/files/a", room) == CONTENT


def test_what_is_shown_of_a_url_is_nothing_that_could_be_secret():
    assert shown("https://me:secret@host/a/b?token=secret#secret") == "https://host/a/b"
    assert shown("http://[::1") == "the URL"


@pytest.fixture
def fetching(site, data_folder):
    """An installation that may fetch from the site."""
    settings = settings_at(data_folder, fetch_from=f"{site.url}/files/", fetch_networks=",".join(HERE))
    with Installation(create_app(settings), base_url=LOCAL) as client:
        yield client


def test_a_data_set_is_fetched_as_it_is_uploaded_and_its_source_is_written_down(site, fetching, tmp_path):
    content = write_zip(tmp_path / "dataset.zip", two_classes(4)).read_bytes()
    site.answers["/files/d.zip"] = (200, {}, content)

    answer = fetching.post("/v1/datasets", json={"url": f"{site.url}/files/d.zip?token=secret"})

    assert answer.status_code == 201
    assert answer.json()["digest"] == hashlib.sha256(content).hexdigest()
    assert answer.headers["location"] == f"/v1/datasets/{answer.json()['digest']}"
    audit = fetching.get("/v1/audit").json()["entries"][0]
    assert audit["facts"]["source"] == f"{site.url.replace(f':{site.server_port}', '')}/files/d.zip"
    assert "secret" not in fetching.get("/v1/audit").text


def test_a_base_is_fetched_by_its_url(site, fetching, weights):
    site.answers["/files/w"] = (200, {}, weights.read_bytes())
    body = {"name": "fetched", "config": json.loads(CONFIG), "url": f"{site.url}/files/w"}

    assert fetching.post("/v1/bases", json=body).status_code == 201
    assert (
        fetching.get("/v1/bases/fetched").json()["digest"] == fetching.get("/v1/bases/tiny").json()["digest"]
    )
    both = fetching.problem("POST", "/v1/bases", json=body | {"pretrained": "openai"})
    assert both["type"] == "/problems/invalid-request"


def test_a_checkpoint_is_fetched_and_checked_before_its_job_is_accepted(site, fetching, fine_tuned):
    site.answers["/files/c"] = (200, {}, fine_tuned["food"].read_bytes())
    site.answers["/files/no"] = (200, {}, b"no weights")
    route = "/v1/models/animals/tasks/food/checkpoint"
    body = {"url": f"{site.url}/files/c", "classes": ["soup", "rice"]}

    assert fetching.post(route, json=body | {"url": f"{site.url}/files/no"}).status_code == 422
    answer = fetching.post(route, json=body)
    assert answer.status_code == 202
    assert fetching.get(answer.headers["location"]).json()["kind"] == "import"


def test_what_may_not_be_fetched_is_a_problem_that_says_so(fetching):
    problem = fetching.problem("POST", "/v1/datasets", json={"url": "http://169.254.169.254/latest/"})

    assert (problem["status"], problem["type"]) == (422, "/problems/url-refused")
    assert "CONDU_FETCH_FROM" in problem["remedy"]


@pytest.mark.parametrize(
    "sources", ["data.example", "https://data.example", "https://*/", "https://*.org/", "ftp://a/"]
)
def test_a_source_that_cannot_be_meant_is_refused_with_what_to_write(sources):
    with pytest.raises(ValueError, match=r"write|star"):
        Settings(fetch_from=sources)


def test_a_network_that_is_none_is_refused_with_what_to_write():
    with pytest.raises(ValueError, match=r"10\.1\.2\.0/24"):
        Settings(fetch_networks="10.0.0.1/8")
