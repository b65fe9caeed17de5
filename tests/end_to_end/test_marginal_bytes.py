"""What a further task adds to a real service's data folder, at worst: a delta without a single zero."""

from itertools import pairwise

import torch

from cli.client import Client
from cli.quickstart.service import running_service
from cli.quickstart.weighing import folder_bytes
from store.safefile import write_safetensors
from tests.tiny_clip import TINY_CONFIG, tiny_tensors

SLACK_BYTES = 64 * 2**10


def dense_fine_tune(base, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 1e-3 * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in base.items()
    }


def test_a_further_task_adds_at_most_one_bit_a_parameter_to_the_data_folder(tmp_path):
    base = tiny_tensors()
    write_safetensors(tmp_path / "base.safetensors", base)
    sizes = []
    with running_service(tmp_path / "data", port=0) as service, Client(service.url) as client:
        client.upload_base("tiny", tmp_path / "base.safetensors", architecture=None, config=TINY_CONFIG)
        client.create_model("m", base="tiny")
        for number in range(4):
            write_safetensors(tmp_path / "tuned.safetensors", dense_fine_tune(base, number))
            job = client.import_task(
                "m", f"task{number}", tmp_path / "tuned.safetensors", classes=["cat", "dog", "cow"]
            )
            for _ in client.watch_job(job.id):
                pass
            assert client.get_job(job.id).state == "succeeded"
            client.sweep(delete=True, keep_revisions=1, grace_s=0)
            sizes.append(folder_bytes(service.data) - service.log.stat().st_size)
        storage = client.get_model("m").to_dict()["storage"]
    full = sum(tensor.numel() * 4 for tensor in base.values() if tensor.is_floating_point())
    prototypes = storage["prototype_bytes"] / 4
    growth = [after - before for before, after in pairwise(sizes[1:])]
    print(f"fp32 model {full}, 1/32 of it {full // 32}, growth a task {growth}, sizes {sizes}")  # noqa: T201
    assert all(grown <= full / 32 + prototypes + SLACK_BYTES for grown in growth)
    assert storage["total_bytes"] <= sizes[-1]
