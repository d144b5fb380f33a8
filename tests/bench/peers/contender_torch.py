"""PyTorch as a contender: contender_torch.py FOLDER WORK THREADS FORM

FORM: words joined by "_": eager, channels_last, compiled (torch.compile), frozen (compiled and channels_last, weights as constants in the
layout that oneDNN or MKL likes best), bf16 (the model as a whole), autocast (to bfloat16). Runs under PyTorch 1.13 too (eager and
channels_last).
"""
import json
import os
import sys

folder, work, threads, forms = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].replace("channels_last", "last").split("_")
FROZEN = "frozen" in forms
COMPILED = FROZEN or "compiled" in forms
LAST = FROZEN or "last" in forms
if FROZEN:
    os.environ["TORCHINDUCTOR_FREEZING"] = "1"

import contender  # noqa: E402
import torch  # noqa: E402
import works  # noqa: E402

torch.set_num_threads(threads)
torch.manual_seed(1)


def prepare(net):
    if LAST:
        net = net.to(memory_format=torch.channels_last)
    if "bf16" in forms:
        net = net.to(torch.bfloat16)
    return net


def read_input(batch, shape):
    values = torch.frombuffer(bytearray(open(os.path.join(folder, "inputs", work + ".f32"), "rb").read()), dtype=torch.float32)
    x = values.view(batch, *shape)
    if LAST and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    return x.to(torch.bfloat16) if "bf16" in forms else x


def forward_of(model, batch, x):
    from peer_net import open_model
    net = prepare(open_model(os.path.join(folder, "models", model)))
    time, classes = torch.full((batch,), works.TIME), torch.arange(batch) % works.CLASSES
    if model == "sd_vae":
        function = lambda: net.decode(x, return_dict=False)[0]  # noqa: E731
    else:
        function = lambda: net(x, timestep=time, class_labels=classes, return_dict=False)[0]  # noqa: E731
    return function


def attention_of(x):
    qkv = x.view(1, works.TOKENS, 3, works.HEADS, works.HEAD_DIM).permute(2, 0, 3, 1, 4).contiguous()
    if hasattr(torch.nn.functional, "scaled_dot_product_attention"):
        function = lambda: torch.nn.functional.scaled_dot_product_attention(*qkv)  # noqa: E731
    else:
        function = lambda: torch.softmax(qkv[0] @ qkv[1].transpose(-1, -2) * works.HEAD_DIM ** -0.5, -1) @ qkv[2]  # noqa: E731
    return function


def training_step():
    """What a step of `denoised train` does with the built-in model's recipe: v-prediction, clipped gradients, AdamW, moving average."""
    import diffusers
    with open(works.RECIPE, encoding="utf8") as file:
        recipe = json.load(file)
    net = diffusers.UNet2DModel.from_config(recipe["unet"]).train()
    if LAST:
        net = net.to(memory_format=torch.channels_last)
    weights = list(net.parameters())
    average = [w.detach().clone() for w in weights]
    optimizer = torch.optim.AdamW(weights, lr=recipe["learning_rate"], betas=recipe["betas"], weight_decay=recipe["weight_decay"],
                                  **({"fused": True} if hasattr(torch, "compile") else {"foreach": True}))
    batch, classes = recipe["batch"], recipe["unet"]["num_class_embeds"]
    pictures = torch.rand(batch, 1, 32, 32) * 2 - 1
    alphas = torch.cos((torch.arange(1000) + 1) / 1001 * torch.pi / 2) ** 2
    model = torch.compile(net) if COMPILED else net

    def step():
        time = torch.randint(0, 1000, (batch,))
        labels = torch.where(torch.rand(batch) < recipe["class_dropout"], classes - 1, torch.randint(0, classes - 1, (batch,)))
        alpha = alphas[time].sqrt()[:, None, None, None]
        sigma = (1 - alphas[time]).sqrt()[:, None, None, None]
        noise = torch.randn_like(pictures)
        x, target = alpha * pictures + sigma * noise, alpha * noise - sigma * pictures
        if LAST:
            x = x.contiguous(memory_format=torch.channels_last)
        loss = torch.nn.functional.mse_loss(model(x, time, labels, return_dict=False)[0], target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe["clip"])
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(average, recipe["ema"])
            torch._foreach_add_(average, weights, alpha=1 - recipe["ema"])
    return step


def function_of():
    model, batch, shape = works.WORKS[work]
    x = read_input(batch, shape)
    function = attention_of(x) if work == "attention" else forward_of(model, batch, x)
    if COMPILED:
        function = torch.compile(function)
    if "autocast" in forms:
        plain = function

        def function():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return plain()

    def run():
        with torch.inference_mode():
            return function()
    return run


def save(path):
    answer = run().transpose(1, 2) if work == "attention" else run()
    with open(path, "wb") as file:
        file.write(answer.float().contiguous().numpy().tobytes())


run = training_step() if work == "train" else function_of()
contender.serve(run, save, version=torch.__version__, threads=torch.get_num_threads())
