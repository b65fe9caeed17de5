"""Randomised rounds of faults, `make faults ROUNDS=1000`: workers are killed and frozen while they fuse.

In every round a copy of one installation gets two or three `import` jobs on one or two models, and two
workers. Each round has one enumerated point where a worker dies (after each blob, before and after the
transaction, ...); more deaths, deaths out of the blue, freezes past the lease and a submitter that dies are
drawn with the seed. Dead workers are replaced. At the end nothing may be lost, and nothing fused twice: every
acknowledged job has succeeded, with one revision, and every expert of every revision has the bits of an
undisturbed fold.

The same seed draws the same plans; what a signal meets is up to the machine.
"""

import argparse
import gc
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

from tests.faults.forking import fork, num_threads
from tests.faults.judging import LOST, TWICE
from tests.faults.one_round import play_round
from tests.faults.round_place import make_place
from tests.faults.server_keeper import keep_servers

PROGRESS_EVERY_S = 10.0
LOG_TAIL = 6000


class Score:
    """Counts what the rounds told."""

    def __init__(self, num_rounds):
        self.num_rounds = num_rounds
        self.done = 0
        self.faults = Counter({LOST: 0, TWICE: 0})
        self.tally = Counter()
        self._began = time.monotonic()

    def add(self, outcome):
        self.done += 1
        self.faults.update(kind for kind, _ in outcome["faults"])
        self.tally.update({name: outcome[name] for name in ("kills", "freezes", "errors")})

    def progress(self):
        a_round_s = (time.monotonic() - self._began) / max(self.done, 1)
        left_s = a_round_s * (self.num_rounds - self.done)
        return f"round {self.done} of {self.num_rounds}: {self._found()}, {left_s / 60:.0f} min to go"

    def summary(self):
        return (
            f"{self.tally['kills']} processes killed, {self.tally['freezes']} frozen, "
            f"{self.tally['errors']} ended in an error and were replaced; "
            f"{time.monotonic() - self._began:.0f} s"
        )

    def verdict(self):
        return f"{self.done} rounds: {self._found()}"

    def _found(self):
        return f"{self.faults[LOST]} lost, {self.faults[TWICE]} fused twice"


def play(folder, *, numbers, seed, lanes=1, broken=False, say=print):
    """The score of the rounds of those numbers, played in that folder."""
    if num_threads() > 1:
        raise RuntimeError(
            "a process with threads must not fork: set OMP_NUM_THREADS=1, as `make faults` does"
        )
    score = Score(len(numbers))
    with keep_servers(folder):
        place = make_place(folder)
        gc.freeze()  # or each child would copy, page by page, what its collector looks at
        running = [
            fork(partial(_lane, place, seed, numbers[lane::lanes], broken), folder / f"lane-{lane}.log")
            for lane in range(lanes)
        ]
        try:
            _follow(running, folder, score, say)
        finally:
            for lane in running:
                lane.close()
    return score


def _lane(place, seed, numbers, broken, tell):
    for number in numbers:
        outcome = play_round(place, seed=seed, number=number, broken=broken)
        tell(outcome)
        if not outcome["faults"]:
            shutil.rmtree(place.folder / f"round-{number}", ignore_errors=True)
            (place.folder / f"round-{number}.log").unlink(missing_ok=True)


def _follow(running, folder, score, say):
    heard = [0] * len(running)
    next_word_at = time.monotonic() + PROGRESS_EVERY_S
    have_ended = False
    while not have_ended:
        have_ended = sum(lane.has_ended() for lane in running) == len(running)
        for number, lane in enumerate(running):
            for outcome in lane.told()[heard[number] :]:
                heard[number] += 1
                score.add(outcome)
                _tell_faults(outcome, folder, say)
        if time.monotonic() > next_word_at:
            next_word_at += PROGRESS_EVERY_S
            say(score.progress())
        time.sleep(0.05)
    for lane in running:
        if lane.exit_code != 0:
            raise RuntimeError(f"the rounds broke off:\n{lane.log.read_text()[-LOG_TAIL:]}")


def _tell_faults(outcome, folder, say):
    for kind, sentence in outcome["faults"]:
        say(f"round {outcome['number']}, {kind}: {sentence}")
    if outcome["faults"]:
        say(f"round {outcome['number']}: all of it is in {folder / 'round-'}{outcome['number']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, help="of an earlier run; without it, a new one")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, to play one again")
    parser.add_argument("--stride", type=int, default=1, help="from one round's number to the next one's")
    parser.add_argument("--lanes", type=int, default=2, help="rounds at the same time")
    parser.add_argument("--folder", type=Path, help="where to play; stays when something was wrong")
    parser.add_argument("--break-fence", action="store_true", help="show that a broken fence is found out")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="condu-faults-", dir=given.folder))
    sys.stdout.reconfigure(line_buffering=True)
    print(f"{given.rounds} rounds with seed {seed} in {folder}")  # noqa: T201 - what it is for
    numbers = range(given.first, given.first + given.rounds * given.stride, given.stride)
    score = play(folder, numbers=numbers, seed=seed, lanes=given.lanes, broken=given.break_fence)
    if not score.faults.total():
        shutil.rmtree(folder, ignore_errors=True)
    print(score.summary())  # noqa: T201
    print(score.verdict())  # noqa: T201
    return 1 if score.faults.total() else 0


if __name__ == "__main__":
    sys.exit(main())
