"""What takes long: takes jobs from the catalog, trains, fuses and publishes."""

import os

# GNU OpenMP's threads spin while they wait for each other. A service shares its cores with the api, and a
# spinning thread keeps the one it waits for from running: 20 steps of a tiny CLIP on 2 busy cores took 19.4
# s, and 2.2 s when waiting sleeps. Read when torch is first imported, so it stands here; the training process
# gets it the same way.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
