"""The servers of the rounds, in a process of their own: whoever forks must not have their threads."""

import os
import signal
import time
from contextlib import contextmanager

from tests.faults.forking import fork
from tests.installing import ON_SERVERS

if ON_SERVERS:
    from tests import servers

START_PATIENCE_S = 60.0


@contextmanager
def keep_servers(folder):
    """Nothing where all is embedded; else PostgreSQL and S3 run, and our children know where."""
    if not ON_SERVERS:
        yield
        return
    keeper = fork(_keep, folder / "servers.log")
    try:
        give_up_at = time.monotonic() + START_PATIENCE_S
        while not keeper.told():
            if keeper.has_ended() or time.monotonic() > give_up_at:
                raise RuntimeError(f"the servers did not start:\n{keeper.log.read_text()[-4000:]}")
            time.sleep(0.05)
        os.environ |= keeper.told()[0]
        yield
    finally:
        keeper.signal(signal.SIGTERM)
        keeper.wait(START_PATIENCE_S)
        keeper.close()


def _keep(tell):
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    tell({"CONDU_TEST_POSTGRES": servers.postgres_uri(), "CONDU_TEST_S3": servers.s3_endpoint()})
    signal.pause()
    servers.stop()
