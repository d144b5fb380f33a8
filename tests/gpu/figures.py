"""What figures of a GPU are held against: floors of one H200, targets, and the table that a run ends with. Standard library only.

A floor is what the card could do at most by arithmetic: FLOPs over 790 TFLOP/s of bfloat16 products, bytes over 4.3 TB/s, both what other
programs reach on such a card; a run measures its own ceilings first and shows them beside these. Nothing here was measured when it was written.
"""
TFLOPS = 790.0  # products of bfloat16
BYTES_PER_SECOND = 4.3e12  # weights that are read once
MODELS = "tests/bench/models"
DIT, DIT512, UNET, VAE = f"{MODELS}/dit_xl_2.json", f"{MODELS}/dit_xl_2.json@64", f"{MODELS}/unet_15m.json", f"{MODELS}/sd_vae.json"
GOLDEN = "tests/golden"
# Every kind of node that a network may have, in networks that take no time.
SMALL = [f"{GOLDEN}/{name}/config.json" for name in (
    "unet_default", "unet_adm", "unet_cifarlike", "unet_gelu_tsclass", "unet_learned_time", "unet_ncsnpp", "unet_oddsize", "unet_relu", "unet_resample",
    "unet_resnetblk", "unet_scaleshift", "dit_default", "dit_variant", "edm_adm", "edm_ddpmpp", "edm_ncsnpp", "vae_default", "vae_variant")]
SOME = [path for path in SMALL if path.split("/")[-2] in ("unet_default", "unet_adm", "unet_ncsnpp", "unet_resample", "dit_default", "edm_adm", "vae_default")]

STEPS, VAE_FLOPS = 20, 622e9  # of a guided picture of 256 pixels; of its decoding
SHARE_LARGE, SHARE_ONE = 0.60, 0.25  # of the floor: at 32 guided pictures and more; at one
PEER_EAGER, PEER_COMPILED, UNET_COMPILED = 2.0, 1.2, 3.0  # times as fast as PyTorch on the same card
FP32, BF16 = 1e-4, 1e-2  # root mean square of the differences from the CPU in float
SERVED_SHARE, P95_SHARE, FIRST_IMAGE_SECONDS = 0.97, 0.5, 3.0


def floor_ms(flops, weight_bytes):
    """Of one forward pass: arithmetic, or reading the weights, whichever takes longer."""
    return 1000 * max(flops / (TFLOPS * 1e12), weight_bytes / BYTES_PER_SECOND)


def hold(figure, floor=None, target=None, least=True, of=None):
    """Puts floor and target beside a figure. of: what the target is a bound of, where it is not the value itself."""
    judged = figure["value"] if of is None else of
    if floor is not None:
        figure["floor"] = floor
    if of is not None:
        figure["ratio"] = of
    if target is not None:
        figure["target"] = target
        figure["met"] = judged >= target if least else judged <= target
    return figure


def speed(figure):
    """A forward pass of so many rows: its floor and the share of it. Two rows are one guided picture."""
    floor = floor_ms(figure["flops"], figure["weight_bytes"])
    share = floor / figure["value"] if figure["value"] > 0 else 0.0
    target = None
    if figure["model"].startswith("dit_xl"):
        target = SHARE_LARGE if figure["rows"] >= 64 else SHARE_ONE if figure["rows"] == 2 else None
    return hold(figure, floor=floor, target=target, of=share)


def parity(figure):
    """How far a network lies from the CPU's; beyond twice the bf16 target the check fails."""
    return hold(figure, target=FP32 if " fp32 " in figure["figure"] else BF16, least=False) if figure["unit"] == "rms" else figure


def ceiling(figure):
    if figure["figure"] == "copy on the card, read and written":
        hold(figure, floor=BYTES_PER_SECOND / 1e9)
    if figure["figure"].startswith("product ") and figure["unit"] == "TFLOP/s":
        hold(figure, floor=TFLOPS, of=figure["value"] / TFLOPS)
    return figure


def number(value):
    return "" if value is None else f"{value:.4g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def table(result):
    """Lines of the table: phases, then figures with their floors and targets, then checks that failed."""
    yield f"{'phase':12} {'seconds':>8}  checks, figures, and what was left out"
    for phase in result["phases"]:
        checks = [one for one in result["checks"] if one["phase"] == phase["name"]]
        failed = sum(not one["ok"] for one in checks)
        figures = sum(one["phase"] == phase["name"] for one in result["figures"])
        left = [one["reason"] for one in result["skips"] if one["phase"] == phase["name"]]
        said = f"{len(checks) - failed} of {len(checks)} checks held" if checks else "no checks"
        yield f"{phase['name']:12} {phase['seconds']:8.1f}  {said}, {figures} figures{'; left out: ' + '; '.join(left) if left else ''}"
    if result["figures"]:
        yield ""
        yield f"{'figure':58} {'measured':>10} {'unit':10} {'floor':>9} {'ratio':>8} {'target':>8}"
    for one in result["figures"]:
        word = "" if "met" not in one else "met" if one["met"] else "MISSED"
        yield (f"{one['figure'][:58]:58} {number(one['value']):>10} {one['unit'][:10]:10} {number(one.get('floor')):>9} {number(one.get('ratio')):>8} "
               f"{number(one.get('target')):>8} {word}").rstrip()
    for one in result["checks"]:
        if not one["ok"]:
            yield f"FAILED {one['phase']}: {one['name']}: {one['detail']}"
