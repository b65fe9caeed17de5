"""HTTP in, HTTP out: routes over the catalog, the store and vlm."""

import os

# As in worker/__init__.py, and for the same reason: the api shares its cores with a training process, and a
# thread of GNU OpenMP that spins while it waits keeps that one from running.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
