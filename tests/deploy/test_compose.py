"""What can be held against docker-compose.yml and the files it names without a container engine."""

import json
import re

import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.main import get_command

from api.decisions import DECISIONS
from catalog.settings import Settings
from cli.main import app
from serving.metrics import ServingMetrics
from tests.deploy.compose import COMPOSE, OURS, ROOT, SERVICES, VARIABLE, texts

KNOWN_TOP = {"name", "services", "networks", "volumes"}
KNOWN_OF_A_SERVICE = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "deploy",
    "entrypoint",
    "environment",
    "healthcheck",
    "image",
    "init",
    "networks",
    "ports",
    "profiles",
    "read_only",
    "restart",
    "security_opt",
    "shm_size",
    "stop_grace_period",
    "tmpfs",
    "volumes",
}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
PINNED = re.compile(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}")
SECRETS = {
    "POSTGRES_PASSWORD",
    "OBJECTS_ACCESS_KEY",
    "OBJECTS_SECRET_KEY",
    "CONDU_KEY_PEPPER",
    "GRAFANA_PASSWORD",
}


def example_names():
    text = (ROOT / "deploy" / "example.env").read_text()
    return set(re.findall(r"^#?(\w+)=", text, re.MULTILINE))


def test_it_uses_only_what_the_compose_specification_has():
    assert {name for name in COMPOSE if not name.startswith("x-")} <= KNOWN_TOP
    for service in SERVICES.values():
        assert service.keys() <= KNOWN_OF_A_SERVICE


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_every_image_that_is_not_ours_is_pinned_by_its_digest(name):
    assert PINNED.fullmatch(SERVICES[name]["image"])


def test_the_image_is_built_on_a_pinned_one_and_copies_what_is_there():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    sources = [
        source for line in lines if re.match(r"COPY (?!--from)", line) for source in line.split()[1:-1]
    ]
    assert bases
    assert all(PINNED.fullmatch(base) for base in bases)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored


def test_the_image_holds_every_room_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    rooms = re.search(r"packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text())[1]
    for room in re.findall(r'"(\w+)"', rooms):
        assert f"COPY {room} /build/{room}" in text
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)


def test_what_services_name_is_there():
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in SERVICES
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert "test" in SERVICES[needed]["healthcheck"]
        for network in service.get("networks", []):
            assert network in COMPOSE["networks"]
        for volume in service.get("volumes", []):
            source, colon, _ = volume.partition(":")
            if colon and source.startswith("./"):
                assert (ROOT / source).exists(), source
            elif colon:
                assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_setting_and_command_of_ours_exists(name):
    known = {f"CONDU_{field.upper()}" for field in Settings.model_fields}
    assert OURS[name]["environment"].keys() <= known
    assert OURS[name]["command"][0] in get_command(app).commands


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_have_no_more_rights_than_they_need(name):
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["networks"] == ["inside"]
    assert "ports" not in service


def test_no_secret_has_a_value_that_everybody_knows():
    used = {match["name"]: match["kind"] for text in texts(COMPOSE) for match in VARIABLE.finditer(text)}
    assert used.keys() >= SECRETS
    assert {name for name, kind in used.items() if kind == ":?"} == SECRETS
    assert used.keys() <= example_names()
    example = (ROOT / "deploy" / "example.env").read_text()
    assert all(re.search(rf"^{name}=$", example, re.MULTILINE) for name in SECRETS)


def test_nothing_is_published_beyond_this_machine_unless_it_is_asked_for():
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(published) == ["${CONDU_PUBLISH:-127.0.0.1:8000}:8080", "127.0.0.1:3000:3000"]


def test_two_replicas_stand_behind_the_proxy_and_one_worker_waits_for_each_profile():
    assert SERVICES["api"]["deploy"]["replicas"] == 2
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert "reverse_proxy" in (ROOT / "deploy" / "Caddyfile").read_text()


def test_the_proxy_takes_as_much_as_the_api_and_keeps_metrics_inside():
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    gibibytes = int(re.search(r"max_size (\d+)GiB", text)[1])
    assert gibibytes * 2**30 >= Settings.model_fields["upload_limit_bytes"].default
    assert "respond /metrics 404" in text
    assert text.count("{") == text.count("}")


def test_the_routes_that_health_checks_ask_exist():
    paths = {name.partition(" ")[2] for name in DECISIONS}
    asked = {
        path for text in texts(COMPOSE) for path in re.findall(r"http://127\.0\.0\.1:\d+(/[\w/]+)", text)
    }
    assert asked
    assert asked <= paths


def test_the_dashboard_asks_only_for_metrics_that_exist():
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/condu.json").read_text())
    registry = CollectorRegistry()
    ServingMetrics(registry)
    documented = set(re.findall(r"`(condu_\w+)`", (ROOT / "docs/operations.md").read_text()))
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"condu_\w+", target["expr"])
    }
    assert len(asked) > 15
    for name in asked:
        assert name in documented or re.sub(r"_(bucket|sum|count)$", "", name) in documented, name
    sources = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {
        source["uid"] for source in sources["datasources"]
    }


def test_prometheus_asks_the_port_that_the_replicas_listen_on():
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    [asked] = config["scrape_configs"][0]["dns_sd_configs"]
    assert asked["names"] == ["api"]
    assert str(asked["port"]) == SERVICES["api"]["environment"]["CONDU_PORT"]
    assert f"api {asked['port']}" in (ROOT / "deploy/Caddyfile").read_text()
