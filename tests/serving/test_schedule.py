import time
from contextlib import ExitStack

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from serving.schedule import Schedule
from serving.work import ImageBatch, ImageJob, TextBatch, TextJob
from vlm.class_weights import ClassifierName
from vlm.features import TextMeans
from vlm.inquiry import Participant

PICTURE = torch.zeros(3, 1, 1)


class Caller:
    """Stands in a job where a request does: a schedule only asks who it is."""

    def __init__(self, name="caller"):
        self.name = name

    def __repr__(self):
        return self.name


@pytest.fixture
def who(learned):
    return lambda task: Participant(learned.base, learned.manifest, task)


def images(num, caller=None):
    return ImageJob(caller or Caller(), 0, [PICTURE] * num)


def prompts(who, *labels):
    name = ClassifierName(*who.name, ",".join(labels))
    return TextJob(name, TextMeans(labels, ("{}",)), [(Caller(), 0)])


def ready(schedule, who, *jobs):
    for job in jobs:
        group = schedule.add(who, job)
    group.expert, group.lease = object(), ExitStack()
    return group


def run(schedule, *, seconds=1.0, is_more_expected=False):
    batch, group = schedule.next_batch(time.monotonic(), is_more_expected=is_more_expected)
    schedule.done(group, seconds)
    return batch


def test_the_expert_that_had_least_of_the_device_is_next(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    ready(schedule, who("pets"), images(20))
    ready(schedule, who("flowers"), images(20))
    order = [run(schedule, seconds=3.0 if turn == 0 else 1.0).who.task for turn in range(6)]
    assert order == ["pets", "flowers", "flowers", "flowers", "pets", "flowers"]


def test_an_expert_that_comes_late_does_not_make_up_for_the_time_before(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    ready(schedule, who("pets"), images(50))
    for _ in range(10):
        run(schedule)
    ready(schedule, who("flowers"), images(50))
    assert [run(schedule).who.task for _ in range(6)].count("flowers") in (3, 4)


def test_an_expert_that_had_a_long_turn_is_not_passed_over_by_ever_new_short_ones(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    ready(schedule, who("pets"), images(5))
    run(schedule, seconds=1.0)
    order = []
    for _ in range(12):
        short = ready(schedule, who("flowers"), images(1))
        order.append(run(schedule, seconds=0.25).who.task)
        schedule.forget_if_idle(short)
    assert 3 <= order.count("pets") <= 8


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12), limit=st.integers(1, 16))
def test_every_picture_is_run_once_in_batches_within_the_bound(sizes, limit):
    schedule = Schedule(max_batch=limit, max_wait_s=0)
    someone = _Someone("pets")
    jobs = [images(size) for size in sizes]
    ready(schedule, someone, *jobs)
    seen = {id(job): [] for job in jobs}
    while (found := schedule.next_batch(0.0, is_more_expected=False)) is not None:
        batch, _ = found
        assert isinstance(batch, ImageBatch)
        assert 1 <= batch.size <= limit
        for job, start, stop in batch.parts:
            seen[id(job)] += range(start, stop)
    assert [seen[id(job)] for job in jobs] == [list(range(size)) for size in sizes]


class _Someone:
    def __init__(self, task):
        self.task, self.name = task, ("architecture", task)


def test_a_batch_is_shared_evenly_between_requests(who):
    schedule = Schedule(max_batch=8, max_wait_s=0)
    long, short = images(100), images(3)
    ready(schedule, who("pets"), long, short)
    assert {id(job): stop - start for job, start, stop in run(schedule).parts} == {id(long): 5, id(short): 3}


def test_pictures_and_prompts_of_one_expert_take_turns(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    ready(schedule, who("pets"), images(2), prompts(who("pets"), "cat", "dog"))
    assert [type(run(schedule)) for _ in range(4)] == [ImageBatch, TextBatch, ImageBatch, TextBatch]


def test_an_unfilled_batch_waits_only_while_more_is_expected(who):
    schedule = Schedule(max_batch=4, max_wait_s=60)
    group = ready(schedule, who("pets"), images(1))
    assert schedule.next_batch(time.monotonic(), is_more_expected=True) is None
    assert 59 < schedule.wait_s(time.monotonic()) <= 60
    assert schedule.next_batch(group.since + 60, is_more_expected=True) is not None
    ready(schedule, who("flowers"), images(4))
    assert run(schedule, is_more_expected=True).who.task == "flowers"


def test_what_does_not_fit_into_memory_at_once_is_never_tried_again(who):
    schedule = Schedule(max_batch=8, max_wait_s=0)
    ready(schedule, who("pets"), images(20))
    schedule.limit_batch(who("pets").name[0], 3)
    schedule.limit_batch(who("pets").name[0], 5)
    assert run(schedule).size == 3


def test_the_expert_that_has_waited_longest_is_loaded_next(who):
    schedule = Schedule(max_batch=8, max_wait_s=0)
    first = schedule.add(who("pets"), images(1))
    schedule.add(who("flowers"), images(1))
    assert schedule.next_load() is first
    first.is_loading = True
    assert schedule.next_load().who.task == "flowers"
    assert not schedule.has_ready()


def test_who_gives_way_had_most_of_the_device_and_does_not_run(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    busy = ready(schedule, who("pets"), images(9))
    other = ready(schedule, who("flowers"), images(9))
    busy.device_s, other.device_s = 9.0, 1.0
    assert schedule.most_served() is busy
    busy.is_running = True
    assert schedule.most_served() is other


def test_what_nobody_waits_for_any_more_is_taken_off(who):
    schedule = Schedule(max_batch=1, max_wait_s=0)
    gone, there = Caller("gone"), Caller("there")
    text = prompts(who("pets"), "cat")
    text.waiting = [(gone, 0), (there, 1)]
    alone = prompts(who("pets"), "dog")
    alone.waiting = [(gone, 2)]
    group = ready(schedule, who("pets"), images(2, gone), images(3, there), text, alone)
    assert schedule.drop(group, lambda request: request is gone) == 2
    assert [job.num_left for job in group.images] == [3]
    assert [request for request, _ in text.waiting] == [there]
    assert schedule.text_job(alone.name) is None
    assert schedule.forget_if_idle(group) is None
    schedule.drop(group, lambda request: True)
    lease = group.lease
    assert schedule.forget_if_idle(group) is lease
    assert schedule.groups() == []
