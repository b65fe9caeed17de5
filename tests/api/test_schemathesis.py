"""Every route under generated requests, alone and in sequences, with and without keys."""

import os

import huggingface_hub.constants
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from api.app import create_app
from tests.api.conftest import Installation
from tests.api.keys import ELSEWHERE, WIDE, bearer, make_key
from tests.installing import copy_installation, settings_at

EXAMPLES = int(os.environ.get("CONDU_FUZZ_EXAMPLES", "4"))


def no_unforeseen_error(context, response, case):
    """Fails on a 500; a 503 says that something else is missing, and is documented where it may be."""
    assert response.status_code != 500, response.text


CHECKS = [no_unforeseen_error, status_code_conformance, content_type_conformance]
# Endless or the whole store at once: they have tests of their own.
LEFT_OUT = r"/events$|/verify$"
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module", params=["nobody", "read", "submit", "admin"])
def caller(request, learned_folder, tmp_path_factory):
    """An installation that asks for keys, and the headers of one caller."""
    folder = copy_installation(learned_folder, tmp_path_factory.mktemp("schema") / "data")
    configuration = settings_at(folder, host=WIDE, requests_per_minute=10**6)
    keys = {role: bearer(make_key(configuration, role)) for role in ("read", "submit", "admin")}
    app = create_app(configuration)
    with pytest.MonkeyPatch.context() as patch, Installation(app, base_url=ELSEWHERE):
        # Published weights are asked for now and then: without waiting for a network that may not be there.
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        yield schema.exclude(path_regex=LEFT_OUT), keys.get(request.param, {})


def test_no_route_fails_or_answers_what_it_does_not_document(caller):
    schema, headers = caller
    tried = set()

    for operation in schema.get_all_operations():
        ask = operation.ok()

        def check(case):
            answer = case.call(headers=headers)
            tried.add(case.operation.label)
            case.validate_response(answer, checks=CHECKS)

        BOUNDED(given(case=ask.as_strategy())(check))()

    assert len(tried) > 30


def test_sequences_of_requests_fail_nowhere_and_answer_nothing_undocumented(caller):
    schema, headers = caller
    asked = []

    class Sequence(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"headers": headers}

        def validate_response(self, response, case, **_):
            asked.append(case.operation.label)
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(Sequence, settings=settings(BOUNDED, stateful_step_count=6))

    assert asked
