"""Plain open_clip in a loop: `python -m bench.serving.peers.plain_open_clip`, spoken to in JSON lines.

No server, no HTTP, no second thread: it decodes, preprocesses, stacks, encodes and chooses. Every batch has
as many images as there would be callers. It imports nothing of condu.
"""

import io
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor


class OpenClipExpert:
    """One expert as open_clip loads it from a local folder, its class weights encoded once."""

    def __init__(self, folder: str, *, labels: Sequence[str], templates: Sequence[str]) -> None:
        self.labels = list(labels)
        self.model, self.transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
        self.model.eval()
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        with torch.inference_mode():
            prompts = [template.replace("{}", label) for label in labels for template in templates]
            texts = self.model.encode_text(tokenizer(prompts), normalize=True)
            means = texts.reshape(len(labels), len(templates), -1).mean(dim=1)
            self.weights = torch.nn.functional.normalize(means, dim=-1)

    def load(self, content: bytes) -> Tensor:
        """The picture's tensor, by open_clip's own transform."""
        pixels: Tensor = self.transform(Image.open(io.BytesIO(content)))
        return pixels

    @torch.inference_mode()
    def classify(self, pictures: Tensor, top_k: int = 5) -> list[list[dict[str, Any]]]:
        """Per picture, the likeliest labels."""
        features = self.model.encode_image(pictures, normalize=True)
        chances = (self.model.logit_scale.exp() * features @ self.weights.T).softmax(dim=-1)
        best, places = chances.topk(min(top_k, len(self.labels)), dim=-1)
        return [
            [{"label": self.labels[place], "probability": chance} for chance, place in zip(*row, strict=True)]
            for row in zip(best.tolist(), places.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Picture:
    """What one caller asks."""

    task: str
    pixels: Tensor


def load_experts(experts: Mapping[str, Mapping[str, Any]]) -> dict[str, OpenClipExpert]:
    """Every expert, all of them in memory at once."""
    return {
        name: OpenClipExpert(each["folder"], labels=each["labels"], templates=each["templates"])
        for name, each in experts.items()
    }


def classify_pictures(
    experts: Mapping[str, OpenClipExpert], pictures: Sequence[Picture]
) -> list[list[dict[str, Any]]]:
    """The answers in their order, one forward for each expert that is asked."""
    answers: list[list[dict[str, Any]]] = [[] for _ in pictures]
    for task in dict.fromkeys(picture.task for picture in pictures):
        places = [place for place, picture in enumerate(pictures) if picture.task == task]
        found = experts[task].classify(torch.stack([pictures[place].pixels for place in places]))
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers


def classify_together(
    experts: Mapping[str, OpenClipExpert], asked: Sequence[tuple[str, bytes]]
) -> list[list[dict[str, Any]]]:
    """The answers to (task, JPEG) in their order."""
    return classify_pictures(experts, [Picture(task, experts[task].load(content)) for task, content in asked])


def _turn(
    experts: Mapping[str, OpenClipExpert], photographs: Sequence[bytes], orders: Mapping[str, Any]
) -> dict[str, Any]:
    tasks, size = orders["tasks"], orders["concurrency"]
    latencies: list[float] = []
    counts_from = time.monotonic() + orders["warm_up_s"]
    now, asked = 0.0, 0
    while now < counts_from + orders["seconds"]:
        places = range(asked, asked + size)
        asked += size
        started = time.monotonic()
        classify_together(
            experts, [(tasks[place % len(tasks)], photographs[place % len(photographs)]) for place in places]
        )
        now = time.monotonic()
        if now >= counts_from:
            latencies += [now - started] * size
    return {
        "latencies_s": latencies,
        "statuses": {"200": len(latencies)},
        "images": len(latencies),
        "elapsed_s": now - counts_from,
    }


def main() -> None:
    """Load, say so, and do what each line of stdin asks for."""
    orders = json.loads(sys.stdin.readline())
    experts = load_experts(orders["experts"])
    photographs = [path.read_bytes() for path in sorted(Path(orders["photographs"]).iterdir())]
    _say({"ready": True})
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("answer"):
            found = classify_together(experts, [(asked["task"], content) for content in photographs])
            _say({"answers": found})
        else:
            _say(_turn(experts, photographs, asked))


def _say(line: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
