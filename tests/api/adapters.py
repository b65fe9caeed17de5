"""A model that learns adapters, in an installation of the api's tests."""

import torch
from safetensors.torch import load, save_file

from tests.api.learning import learn

RANK, SEED = 4, 7


def create(installation, name="zoo", **properties):
    """The answer to a request for a model that learns adapters."""
    body = {"name": name, "base": "tiny", "tuning": "lora", "lora_rank": RANK, "lora_seed": SEED}
    response = installation.post("/v1/models", json=body | properties)
    assert response.status_code == 201, response.text
    return response.json()


def trained_adapter(installation, path, *, seed, model="zoo"):
    """`path`, now an adapter that was trained elsewhere from what the model's adapters start from."""
    start = load(installation.get(f"/v1/models/{model}/adapter").content)
    generator = torch.Generator().manual_seed(seed)
    trained = {
        name: factor + 0.2 * torch.randn(factor.shape, generator=generator) for name, factor in start.items()
    }
    save_file(trained, path)
    return path


def learn_adapters(installation, folder, tasks=(("pets", ("cat", "dog")), ("digits", ("one", "two")))):
    """The adapters' files, by the tasks that the model `zoo` now has learned from them."""
    create(installation)
    files = {}
    for seed, (task, classes) in enumerate(tasks, start=1):
        files[task] = trained_adapter(installation, folder / f"{task}.safetensors", seed=seed)
        learn(installation.services, "zoo", task, classes=classes, checkpoint=files[task])
    return files
