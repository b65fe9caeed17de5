"""The architecture of the demo base, as open_clip's own configuration."""

from typing import Any

from examples.demo.image_tower import IMAGE_SIZE, MEAN, STD, TOWER

EMBEDDING_SIZE = 256
CONTEXT_LENGTH = 24
VOCABULARY_SIZE = 49408

MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": EMBEDDING_SIZE,
    "vision_cfg": {
        "image_size": IMAGE_SIZE,
        "timm_model_name": TOWER,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        # The bias takes the mean of the features away: they average what is never negative.
        "timm_proj_bias": True,
    },
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCABULARY_SIZE,
        "width": 192,
        "heads": 3,
        "layers": 3,
    },
}

PREPROCESS_CONFIG: dict[str, Any] = {
    "size": [IMAGE_SIZE, IMAGE_SIZE],
    "mode": "RGB",
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
