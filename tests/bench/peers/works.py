"""The works that are compared, as every contender knows them. Standard library only.

A model's configuration lies in tests/bench/models, its weights, drawn once by peer_models.py, in FOLDER/models/NAME: every contender opens
the same file. FOLDER/inputs/WORK.f32 holds what goes in: [batch,C,H,W], or attention's [tokens][q, k, v][heads][d]. Times are 500,
the class of row i is i modulo 10.
"""
TIME = 500
CLASSES = 10
TOKENS, HEADS, HEAD_DIM = 1024, 8, 40
RECIPE = "models/fashion-mnist/recipe.json"

# name: (model, batch, shape of one input). The model names tests/bench/models/NAME.json; None: no model.
WORKS = {
    "unet-1": ("unet_15m", 1, (3, 32, 32)),
    "unet-16": ("unet_15m", 16, (3, 32, 32)),
    "dit-s": ("dit_s_2", 2, (4, 32, 32)),
    "dit-xl": ("dit_xl_2", 2, (4, 32, 32)),
    "vae": ("sd_vae", 1, (4, 32, 32)),
    "attention": (None, 1, (TOKENS, 3 * HEADS * HEAD_DIM)),
    "builtin": (None, 0, ()),
    "train": (None, 0, ()),
}
