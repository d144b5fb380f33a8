"""Draws the weights and inputs of the comparison once, into a folder: peer_models.py FOLDER [WORK...]   (works.py says what they are)"""
import json
import math
import os
import random
import sys
from array import array

from works import WORKS


def draw_model(name, folder):
    import diffusers
    import torch

    with open(os.path.join(os.path.dirname(__file__), "..", "models", name + ".json"), encoding="utf8") as file:
        config = json.load(file)
    torch.manual_seed(1)
    with torch.no_grad():
        model = getattr(diffusers, config["_class_name"]).from_config(config)
        for key, weight in model.named_parameters():
            if weight.dim() == 1 and "norm" in key:  # as trained ones: not all the same
                weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save_pretrained(folder + ".tmp", max_shard_size="100GB")
    os.rename(folder + ".tmp", folder)


def main(folder, works):
    os.makedirs(os.path.join(folder, "models"), exist_ok=True)
    os.makedirs(os.path.join(folder, "inputs"), exist_ok=True)
    for work in works:
        model, batch, shape = WORKS[work]
        path = os.path.join(folder, "models", model or "")
        if model and not os.path.exists(path):
            draw_model(model, path)
        path = os.path.join(folder, "inputs", work + ".f32")
        if batch and not os.path.exists(path):
            draw = random.Random(work)
            with open(path, "wb") as file:
                array("f", (draw.gauss(0, 1) for _ in range(batch * math.prod(shape)))).tofile(file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] or WORKS)
