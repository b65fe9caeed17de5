"""Any sequence of learning, removing, rolling back and expiring, against a plain model in Python."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from catalog import Catalog
from catalog.errors import AlreadyExistsError, CatalogError, NoSuchRowError, RollbackError, StaleHeadError
from catalog.models import find_model
from catalog.retention import expire_revisions, live_roots
from catalog.revisions import find_revision, list_revisions, rollback_head
from catalog.tasks import find_task, head_tasks, revision_tasks
from tests.catalog.examples import add_model, digest_of, learn, remove
from tests.installing import migrated_settings_at

TASKS = st.sampled_from(["a", "b", "c"])


class Revisions(RuleBasedStateMachine):
    """What is right: `served` is what each revision serves, `parents` where it came from."""

    migrated_file: Path

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.catalog = Catalog(migrated_settings_at(Path(self.folder.name), self.migrated_file))
        with self.catalog.transaction() as session:
            add_model(session, "pets")
            add_model(session, "bystander")
        self.served = {None: []}
        self.parents = {}
        self.expired = set()
        self.head = None

    def teardown(self):
        self.catalog.close()
        self.folder.cleanup()

    def change(self, function, *arguments, **how):
        """The error of a change that was refused, or what it returned."""
        try:
            with self.catalog.transaction() as session:
                return function(session, "pets", *arguments, **how)
        except CatalogError as error:
            return type(error)

    def expect_new(self, number, served):
        assert number == len(self.parents) + 1
        self.parents[number] = self.head
        self.served[number] = served
        self.head = number

    @rule(task=TASKS, parent_is_right=st.booleans())
    def learn(self, task, parent_is_right):
        parent = self.head if parent_is_right else (self.head or 0) + 1
        found = self.change(learn, task, parent=parent, manifest=f"{len(self.parents) + 1}")
        if not parent_is_right:
            assert found is StaleHeadError
        elif task in self.served[self.head]:
            assert found is AlreadyExistsError
        else:
            self.expect_new(found, [*self.served[self.head], task])

    @rule(task=TASKS)
    def remove(self, task):
        if task in self.served[self.head]:
            found = self.change(remove, task, parent=self.head, manifest=f"{len(self.parents) + 1}")
            self.expect_new(found, [name for name in self.served[self.head] if name != task])

    @rule(to=st.none() | st.integers(1, 6))
    def roll_back(self, to):
        found = self.change(rollback_head, to)
        target = self.parents.get(self.head) if to is None else to
        if self.head is None or target is None or target in self.expired:
            assert found is RollbackError
        elif target not in self.parents:
            assert found is NoSuchRowError
        else:
            assert found.number == target
            self.head = target

    @rule(keep_revisions=st.integers(1, 3))
    def expire(self, keep_revisions):
        kept = self.line(keep_revisions)
        with self.catalog.transaction() as session:
            newly = {revision.number for revision in expire_revisions(session, keep_revisions=keep_revisions)}
        assert newly == set(self.parents) - set(kept) - self.expired
        self.expired |= newly

    def line(self, length):
        """The newest unexpired revisions from the head towards the first."""
        numbers, number = [], self.head
        while number is not None and number not in self.expired and len(numbers) < length:
            numbers.append(number)
            number = self.parents[number]
        return numbers

    @invariant()
    def reads_as_it_should(self):
        with self.catalog.snapshot() as session:
            assert find_model(session, "pets").head_revision == self.head
            assert find_model(session, "bystander").head_revision is None
            assert [task.name for task in head_tasks(session, "pets")] == self.served[self.head]
            for number, served in self.served.items():
                assert [task.name for task in revision_tasks(session, "pets", number)] == served
            listed = {revision.number: revision for revision in list_revisions(session, "pets")}
            assert {number: revision.parent for number, revision in listed.items()} == self.parents
            assert {number for number in listed if listed[number].expired_at} == self.expired
            if self.head is not None:
                assert find_revision(session, "pets").number == self.head
            for name in self.served[self.head]:
                assert find_task(session, "pets", name).trigger.revision == self.head

    @invariant()
    def the_head_is_always_kept(self):
        with self.catalog.snapshot() as session:
            for keep_revisions in (1, 3):
                roots = live_roots(session, keep_revisions=keep_revisions)
                assert roots.manifests == {digest_of(f"{number}") for number in self.line(keep_revisions)}


@pytest.mark.usefixtures("migrated_file")
def test_revisions_behave_as_their_model_whatever_is_done(migrated_file):
    Revisions.migrated_file = migrated_file
    # It asserts within: after every step all of the catalog is compared with the model.
    assert not run_state_machine_as_test(
        Revisions,
        settings=settings(
            max_examples=12,
            stateful_step_count=12,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
