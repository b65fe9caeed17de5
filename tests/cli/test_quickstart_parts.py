"""The parts of the quickstart that can be looked at alone."""

import io
import json
import math
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from cli.answers import ImageAnswer
from cli.client import Client
from cli.errors import CommandFailedError, CommandUsageError, ProblemError
from cli.exit_codes import ExitCode
from cli.main import app
from cli.output import Output
from cli.quickstart.asking import Answered, accuracy_of
from cli.quickstart.demo_files import Demo, DemoTask, read_demo, upcast_base
from cli.quickstart.held_out import HeldOutImage, read_held_out
from cli.quickstart.numbers import Numbers, storage_numbers
from cli.quickstart.opening import create_model, make_room
from cli.quickstart.plain_clip import agreement, lay_out, log_probabilities
from cli.quickstart.plan import QuickstartPlan
from cli.quickstart.scene import Scene
from cli.quickstart.service import RunningService, stop
from cli.quickstart.weighing import folder_bytes
from tests.cli.test_output import STORAGE
from tests.tiny_clip import TINY_CONFIG, image_bytes, tiny_image, tiny_tensors


def archive_of(path, names):
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, io.BytesIO(name.encode()))
    return path


def answered(label, *pairs):
    predictions = [{"label": name, "probability": share} for name, share in pairs]
    return Answered(HeldOutImage("x", b"", label), ImageAnswer.read({"predictions": predictions}))


@pytest.fixture
def scene(service, tmp_path):
    """A scene on the live service, with nothing of the demo in it."""
    with Client(service.url) as client:
        client.create_model("demo", base="tiny")
        task = DemoTask("pets", tmp_path / "pets.tar", ("cat", "dog"), ("a {}.",), 8, {"iterations": 50})
        yield Scene(
            plan=QuickstartPlan(data=service.folder),
            demo=Demo(service.weights, {}, (task,), task),
            held_out={},
            service=RunningService(service.url, service.folder, tmp_path / "service.log"),
            client=client,
            output=Output(as_json=False),
            scratch=tmp_path,
            numbers=Numbers(),
        )
        if "demo" in {model.name for model in client.list_models()}:
            client.remove_model("demo")


def test_a_model_of_an_earlier_quickstart_is_kept_unless_asked_for_fresh(scene):
    with pytest.raises(CommandUsageError, match="already holds a model named 'demo'") as caught:
        make_room(scene)

    assert caught.value.next_command == f"condu quickstart --data {scene.plan.data} --fresh"


def test_fresh_removes_the_earlier_model_and_no_other(scene):
    make_room(replace(scene, plan=replace(scene.plan, fresh=True)))

    models = {model.name for model in scene.client.list_models()}
    assert "demo" not in models
    assert "animals" in models


def test_a_model_made_meanwhile_is_told_with_the_way_out(scene):
    with pytest.raises(ProblemError) as caught:
        create_model(scene)

    assert caught.value.next_command.endswith("--fresh")


def test_training_follows_the_demo_unless_the_plan_shortens_it(scene):
    task = replace(scene.trained[0], training={"iterations": 50, "warmup_iterations": 5, "seed": 7})
    short = replace(scene, plan=replace(scene.plan, iterations=3))

    assert scene.training_of(task) == task.training
    assert short.training_of(task) == {"iterations": 3, "seed": 7}


def test_a_numbers_file_that_cannot_be_written_is_said_before_hours_of_work(tmp_path):
    words = ["quickstart", "--data", str(tmp_path / "data"), "--json", str(tmp_path / "no" / "numbers.json")]

    result = CliRunner().invoke(app, words)

    assert result.exit_code == ExitCode.USAGE
    assert "there is no folder for" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_service_that_does_not_stop_is_killed(monkeypatch):
    monkeypatch.setattr("cli.quickstart.service.STOP_WITHIN_S", 0.2)
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()

        assert stop(process) == -signal.SIGKILL


def test_only_held_out_images_are_read_and_classes_take_turns(tmp_path):
    names = ["train/cat/0.png", "test/ankle_boot/1.png", "test/cat/0.png", "test/cat/1.png", "test/cat/2.png"]
    archive = archive_of(tmp_path / "set.tar", names)

    images = read_held_out(archive, at_most=3)

    assert [(image.name, image.label) for image in images] == [
        ("test/ankle_boot/1.png", "ankle boot"),
        ("test/cat/0.png", "cat"),
        ("test/cat/1.png", "cat"),
    ]
    assert images[0].content == b"test/ankle_boot/1.png"
    assert images == read_held_out(archive, at_most=3)


def test_an_image_that_could_not_be_read_counts_as_wrong():
    assert accuracy_of([answered("cat", ("cat", 0.9)), answered("cat", ("dog", 0.9)), answered("cat")]) == (
        pytest.approx(100 / 3)
    )


def test_agreement_is_the_largest_difference_of_log_probabilities():
    service = [answered("a", ("a", 0.75), ("b", 0.25)), answered("a", ("b", 0.6), ("a", 0.4))]
    plain = [[math.log(0.75), math.log(0.25)], [math.log(0.5), math.log(0.5)]]

    found = agreement(service, plain, labels=("a", "b"))

    assert found.max_abs_logit_difference == pytest.approx(math.log(0.5 / 0.4))
    assert (found.num_logits, found.num_images, found.num_same_label) == (4, 2, 1)


def test_probabilities_too_small_to_have_digits_are_not_compared():
    service = [answered("a", ("a", 1.0), ("b", 1e-40))]

    assert agreement(service, [[0.0, -92.0]], labels=("a", "b")).num_logits == 1


def test_plain_open_clip_reads_what_is_laid_out_for_it(tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file(tiny_tensors(), weights)
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "jpeg_draft": 2}
    lay_out(tmp_path / "plain", weights=weights, base={"config": TINY_CONFIG, "preprocessing": preprocessing})
    images = [HeldOutImage("x", image_bytes(tiny_image(seed)), "cat") for seed in range(2)]

    rows = log_probabilities(tmp_path / "plain", images, labels=("cat", "dog"), templates=("a {}.", "{}"))

    assert [sum(math.exp(value) for value in row) for row in rows] == pytest.approx([1, 1])
    assert rows[0] != rows[1]


def test_the_demo_base_is_upcast_without_a_change_of_value(tmp_path):
    half = {name: tensor.half() for name, tensor in list(tiny_tensors().items())[:3]}
    save_file(half, tmp_path / "half.safetensors")

    upcast_base(tmp_path / "half.safetensors", tmp_path / "single.safetensors")

    single = load_file(tmp_path / "single.safetensors")
    assert {str(tensor.dtype) for tensor in single.values()} == {"torch.float32"}
    assert all(bool((single[name].half() == half[name]).all()) for name in half)


def test_a_demo_that_is_not_whole_says_what_is_missing(tmp_path):
    with pytest.raises(CommandFailedError, match="is not whole") as caught:
        read_demo(tmp_path, num_trained=4)

    assert "base_config.json" in caught.value.detail


def test_numbers_come_under_the_names_that_were_promised():
    numbers = Numbers(zero_shot={"pets": 30.0}, accuracy=[{"pets": 90.0}], individual={"pets": 91.0})
    numbers.storage = storage_numbers(STORAGE)
    numbers.export = {"max_abs_logit_difference": 1e-6}

    written = json.loads(json.dumps(numbers.to_dict()))

    assert written["accuracy"][0]["pets"] == 90.0
    assert written["storage"]["trigger_bytes_per_task"] == 30_500
    assert {"base_bytes", "unified_bytes", "prototype_bytes", "total_bytes"} <= written["storage"].keys()
    assert {"seconds", "machine", "versions", "export", "individual", "zero_shot"} <= written.keys()


def test_a_folder_weighs_what_its_files_weigh(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "two").write_bytes(b"12")

    assert folder_bytes(tmp_path) == 5
