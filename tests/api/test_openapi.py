import re

import pytest

from api.app import create_app
from api.errors import PROBLEMS
from catalog import Settings

CONTRACT = (
    "PUT /v1/bases/{base}",
    "POST /v1/bases",
    "GET /v1/bases/{base}",
    "DELETE /v1/bases/{base}",
    "POST /v1/models",
    "GET /v1/models/{model}",
    "DELETE /v1/models/{model}",
    "GET /v1/models/{model}/revisions",
    "POST /v1/models/{model}/rollback",
    "POST /v1/models/{model}/tasks",
    "GET /v1/models/{model}/tasks/{task}",
    "DELETE /v1/models/{model}/tasks/{task}",
    "PUT /v1/models/{model}/tasks/{task}/checkpoint",
    "GET /v1/models/{model}/tasks/{task}/checkpoint",
    "GET /v1/models/{model}/adapter",
    "GET /v1/models/{model}/overlap",
    "GET /v1/models/{model}/routing",
    "POST /v1/models/{model}/classify",
    "GET /v1/models/{model}/bundle",
    "POST /v1/bundles",
    "PUT /v1/datasets",
    "DELETE /v1/datasets/{digest}",
    "GET /v1/jobs",
    "GET /v1/jobs/{job_id}",
    "POST /v1/jobs/{job_id}/cancel",
    "GET /v1/jobs/{job_id}/events",
    "GET /v1/stats",
    "GET /v1/health",
    "POST /v1/verify",
    "POST /v1/sweep",
)
SLUGS = {kind.slug for kind in PROBLEMS.values()}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(data=tmp_path_factory.mktemp("unopened"))).openapi()


@pytest.fixture(scope="module")
def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def resolved(document, schema):
    reference = schema.get("$ref")
    return document["components"]["schemas"][reference.rsplit("/", 1)[-1]] if reference else schema


def has_example(document, content):
    return bool({"example", "examples"} & content.keys()) or "examples" in resolved(
        document, content["schema"]
    )


def test_the_document_is_served(empty_for_reading):
    served = empty_for_reading.get("/openapi.json")

    assert served.status_code == 200
    assert served.json()["info"]["title"] == "condu"
    assert served.json()["openapi"].startswith("3.")


def test_every_route_of_the_contract_is_there(operations):
    assert set(CONTRACT) <= operations.keys()


def test_every_route_says_in_words_what_it_does(operations):
    for name, operation in operations.items():
        assert operation["summary"].count(" ") >= 1, name
        assert len(operation["description"]) > 20, name
        assert operation["tags"], name


def test_every_route_names_its_problems_with_an_example_of_each(operations):
    for name, operation in operations.items():
        problems = {
            slug: example["value"]
            for status, response in operation["responses"].items()
            if status >= "400"
            for slug, example in response.get("content", {})
            .get("application/problem+json", {})
            .get("examples", {})
            .items()
        }
        assert {"invalid-request", "internal-error"} <= problems.keys(), name
        assert problems.keys() <= SLUGS, name
        assert all(value["type"] == f"/problems/{slug}" for slug, value in problems.items()), name


def test_every_answer_in_json_has_an_example(document, operations):
    missing = [
        f"{name} {status}"
        for name, operation in operations.items()
        for status, response in operation["responses"].items()
        for media_type, content in response.get("content", {}).items()
        if "json" in media_type and not has_example(document, content)
    ]
    assert not missing


def test_every_body_that_is_asked_for_in_json_has_an_example(document, operations):
    missing = [
        name
        for name, operation in operations.items()
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
        if media_type == "application/json" and not has_example(document, body_content(content))
    ]
    assert not missing


def body_content(content):
    """An optional body is a choice between the schema and null."""
    choices = [choice for choice in content["schema"].get("anyOf", []) if choice.get("type") != "null"]
    return content | {"schema": choices[0]} if choices else content


def test_every_parameter_says_what_it_is(operations):
    missing = [
        f"{name}: {parameter['name']}"
        for name, operation in operations.items()
        for parameter in operation.get("parameters", [])
        if not parameter.get("description") and not parameter["schema"].get("description")
    ]
    assert not missing


def test_every_field_of_an_option_says_what_it_is(document):
    schemas = document["components"]["schemas"]
    for name in ("CreateModelBody", "SweepBody", "TrainingOptions"):
        silent = [
            field for field, schema in schemas[name]["properties"].items() if "description" not in schema
        ]
        assert set(silent) <= {"name"}, name


def test_routes_have_distinct_operation_ids(operations):
    ids = [operation["operationId"] for operation in operations.values()]

    assert len(ids) == len(set(ids))


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]

    references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))

    assert "Problem" in references
    assert references <= schemas.keys()


def test_no_page_loads_scripts_from_elsewhere(empty_for_reading):
    assert empty_for_reading.get("/docs").status_code == 404
    assert empty_for_reading.get("/redoc").status_code == 404
