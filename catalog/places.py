"""Which URLs and networks may be named in the settings; a refusal says what to write."""

from ipaddress import ip_network
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

_DATABASES = ("sqlite", "postgresql")


def check_database_url(url: str) -> str:
    """The URL, if it names a database that the catalog can live in.

    Raises:
        ValueError: it does not; the message never repeats the URL, which may hold a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError(
            "the database's URL cannot be read: write postgresql://user:password@host:5432/name (what is "
            "special in the password percent-encoded), or sqlite:////absolute/path/condu.sqlite"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in _DATABASES:
        hint = ": write postgresql:// instead" if backend == "postgres" else ""
        raise ValueError(f"the catalog cannot live in {backend!r}{hint}; it takes PostgreSQL and SQLite")
    if parsed.drivername not in {"sqlite", "postgresql", "postgresql+psycopg"}:
        raise ValueError(
            f"the driver {parsed.drivername!r} is not installed: write {backend}:// and leave it out"
        )
    if backend == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ValueError(
            "a database in memory cannot be shared by api and worker: write "
            "sqlite:////absolute/path/condu.sqlite, or leave CONDU_DATABASE_URL out"
        )
    if backend == "postgresql" and not parsed.database:
        raise ValueError("no database is named: write postgresql://user:password@host:5432/NAME")
    return url


def check_objects_url(url: str) -> str:
    """The URL without a slash at its end, if blobs can be kept there.

    Raises:
        ValueError: they cannot.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise ValueError(f"{url!r} names no folder here: write file:///absolute/folder, three slashes")
        return url.rstrip("/")
    if parts.scheme != "s3":
        raise ValueError(
            f"blobs cannot be kept at {parts.scheme or url!r}: write s3://bucket/prefix (and its server as "
            "CONDU_OBJECTS_ENDPOINT, if it is not Amazon's), or file:///absolute/folder"
        )
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "the URL of the blobs holds more than bucket and prefix: write s3://bucket/prefix, and keys as "
            "CONDU_OBJECTS_ACCESS_KEY and CONDU_OBJECTS_SECRET_KEY"
        )
    if not parts.netloc:
        raise ValueError("no bucket is named: write s3://bucket/prefix")
    return url.rstrip("/")


def check_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    """The networks, if each is an address or a network.

    Raises:
        ValueError: one is not.
    """
    for network in networks:
        try:
            ip_network(network)
        except ValueError:
            raise ValueError(
                f"{network!r} is no address and no network: write 10.1.2.3 or 10.1.2.0/24 "
                "(no bits set beyond the length)"
            ) from None
    return networks


def check_sources(sources: tuple[str, ...]) -> tuple[str, ...]:
    """The sources, if each is the beginning of a URL that can be fetched.

    Raises:
        ValueError: one is not.
    """
    for source in sources:
        parts = urlsplit(source)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError(f"{source!r} is no source: write https://host/path/, or https://*.host/")
        if not parts.path.endswith("/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f"{source!r} must end in a slash and hold no query or password: write {source}/")
        below = parts.netloc.removeprefix("*.")
        if "*" in below or (below != parts.netloc and "." not in below):
            raise ValueError(f"{source!r} is too wide: a star stands for the first part, as in *.host.org")
    return sources
