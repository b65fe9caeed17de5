"""Fetches a file by its URL, from where the installation allows it, and never from inside its own network.

What a name means is looked up once, checked, and connected to by address: a name that means something else a
moment later (DNS rebinding) changes nothing. Every redirect goes through the same checks.
"""

import hashlib
import ipaddress
import re
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from api.refusals import (
    RateLimitedError,
    UploadRefusedError,
    UploadTooLargeError,
    UrlRefusedError,
    UrlUnavailableError,
)
from api.uploads import UploadRoom, check_space, write_piece
from catalog import Settings

MAX_REDIRECTS = 5
MAX_AT_ONCE = 4
"""Fetches of one api process; each holds a thread for as long as a slow server likes."""
SILENCE_S = 30.0
PIECE_BYTES = 2**20
DEFAULT_PORTS = {"http": 80, "https": 443}
PLAIN_URL = re.compile(r"[!#-\[\]_a-z~]{1,2000}", re.IGNORECASE)
"""No control, space, quote or backslash."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], list[tuple[socket.AddressFamily, tuple[str, int]]]]


def look_up(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """What the name means now, as addresses to connect to."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


class Fetcher:
    """Fetches files for an installation.

    Args:
        settings: Which sources and private networks it allows, and how long a fetch may take.
        lookup: How names become addresses.
        trust: Which certificates are believed; by default, those of the machine.
    """

    def __init__(
        self, settings: Settings, *, lookup: Lookup = look_up, trust: ssl.SSLContext | None = None
    ) -> None:
        self._sources = settings.fetch_from
        self._networks = [ipaddress.ip_network(network) for network in settings.fetch_networks]
        self._timeout_s = settings.fetch_timeout_s
        self._lookup = lookup
        self._trust = trust or ssl.create_default_context()
        self._places = threading.BoundedSemaphore(MAX_AT_ONCE)

    @contextmanager
    def fetched(self, url: str, room: UploadRoom, sha256: str | None = None) -> Iterator[Path]:
        """What the URL names as a file that vanishes at the end of the context.

        Raises:
            UrlRefusedError: It, or what it redirects to, is not to be fetched.
            UrlUnavailableError: It cannot be fetched, or not to its end.
            UploadTooLargeError: It is larger than an upload may be.
            UploadRefusedError: It has another sha256 than it was said to have.
            StorageFullError: There is no room for it.
            RateLimitedError: Too many are under way.
        """
        if not self._places.acquire(blocking=False):
            raise RateLimitedError(f"{MAX_AT_ONCE} fetches are under way", retry_after_s=30)
        try:
            with tempfile.TemporaryFile(dir=room.folder, buffering=0) as file:
                digest = hashlib.sha256()

                def keep(piece: bytes) -> None:
                    digest.update(piece)
                    write_piece(file, piece)

                self._fetch(url, room, keep)
                if sha256 is not None and digest.hexdigest() != sha256:
                    raise UploadRefusedError(
                        f"{shown(url)} has sha256 {digest.hexdigest()}, but was said to have {sha256}"
                    )
                yield Path(f"/proc/self/fd/{file.fileno()}")
        finally:
            self._places.release()

    def _fetch(self, url: str, room: UploadRoom, write: Callable[[bytes], None]) -> None:
        ends_at = time.monotonic() + self._timeout_s
        for _ in range(MAX_REDIRECTS + 1):
            parts = self.check_allowed(url)
            connection = self._connection(parts, ends_at)
            try:
                response = _asked(connection, parts)
                if response.status not in REDIRECTS:
                    _receive(response, room, write, url=url, ends_at=ends_at)
                    return
                url = urljoin(url, response.getheader("Location", ""))
            except (OSError, HTTPException, ValueError) as error:
                raise UrlUnavailableError(
                    f"{shown(url)} could not be fetched: {type(error).__name__}"
                ) from error
            finally:
                connection.close()
        raise UrlUnavailableError(f"{shown(url)} is one redirect too many: {MAX_REDIRECTS} are followed")

    def check_allowed(self, url: str) -> SplitResult:
        """The URL in parts, if it lies below a source that the installation allows.

        Raises:
            UrlRefusedError: It does not.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = SplitResult("", "", "", "", ""), None
        if not PLAIN_URL.fullmatch(url) or parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise UrlRefusedError("that is no plain http or https URL")
        if parts.username is not None or parts.password is not None:
            raise UrlRefusedError("a URL with a password in it would be written down: leave it out")
        if ".." in unquote(unquote(parts.path)) or not any(
            _lies_below(parts, port, source) for source in self._sources
        ):
            allowed = ", ".join(self._sources) or "none, CONDU_FETCH_FROM is not set"
            raise UrlRefusedError(f"{shown(url)} is not below an allowed source (there are: {allowed})")
        return parts

    def _connection(self, parts: SplitResult, ends_at: float) -> HTTPConnection:
        host = parts.hostname or ""
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        plain = self._reached(host, port, ends_at)
        connection = HTTPConnection(host, port)
        connection.sock = plain
        if parts.scheme == "https":
            connection = HTTPSConnection(host, port, context=self._trust)
            try:
                connection.sock = self._trust.wrap_socket(plain, server_hostname=host)
            except OSError as error:
                plain.close()
                raise UrlUnavailableError(f"{host} did not prove who it is: {error}") from error
        return connection

    def _reached(self, host: str, port: int, ends_at: float) -> socket.socket:
        try:
            found = self._lookup(host, port)
        except (OSError, UnicodeError) as error:
            raise UrlUnavailableError(f"the name {host} means nothing here") from error
        for _, (address, _) in found:
            # One address inside is enough to refuse: it would only be a matter of asking again.
            if not self._is_outside(ipaddress.ip_address(address.partition("%")[0])):
                raise UrlRefusedError(
                    f"{host} lies inside the service's own network, which is not fetched from"
                )
        for family, place in found:
            reached = socket.socket(family, socket.SOCK_STREAM)
            reached.settimeout(min(SILENCE_S, max(0.1, ends_at - time.monotonic())))
            try:
                reached.connect(place)
            except OSError:
                reached.close()
            else:
                return reached
        raise UrlUnavailableError(f"{host} cannot be reached")

    def _is_outside(self, address: Address) -> bool:
        inner = _inner(address)
        if any(inner in network for network in self._networks if network.version == inner.version):
            return True
        return inner.is_global and not inner.is_multicast and not inner.is_reserved


def shown(url: str) -> str:
    """The URL without what may be secret in it: a password, or a signature in its query."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "the URL"
    return f"{parts.scheme}://{host}{parts.path}"[:300]


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does: those lead inside just the same."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _lies_below(parts: SplitResult, port: int | None, source: str) -> bool:
    allowed = urlsplit(source)
    host, pattern = parts.hostname or "", allowed.hostname or ""
    is_host = host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
    ports = (port or DEFAULT_PORTS[parts.scheme], allowed.port or DEFAULT_PORTS[allowed.scheme])
    return (
        parts.scheme == allowed.scheme
        and is_host
        and ports[0] == ports[1]
        and parts.path.startswith(allowed.path)
    )


def _asked(connection: HTTPConnection, parts: SplitResult) -> HTTPResponse:
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "condu"})
    return connection.getresponse()


def _receive(
    response: HTTPResponse,
    room: UploadRoom,
    write: Callable[[bytes], None],
    *,
    url: str,
    ends_at: float,
) -> None:
    if response.status != HTTPStatus.OK:
        raise UrlUnavailableError(f"{shown(url)} answered {response.status}")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise UrlUnavailableError(f"{shown(url)} sends its bytes encoded, although it was asked not to")
    declared = response.length
    if (declared or 0) > room.limit_bytes:
        raise UploadTooLargeError(limit_bytes=room.limit_bytes)
    check_space(room, declared or 0)
    received = 0
    while piece := response.read1(PIECE_BYTES):
        received += len(piece)
        if received > room.limit_bytes:
            raise UploadTooLargeError(limit_bytes=room.limit_bytes)
        if time.monotonic() > ends_at:
            raise UrlUnavailableError(f"{shown(url)} took too long: it may take CONDU_FETCH_TIMEOUT_S")
        write(piece)
    if declared is not None and received != declared:
        raise UrlUnavailableError(f"{shown(url)} broke off after {received} of {declared} bytes")
