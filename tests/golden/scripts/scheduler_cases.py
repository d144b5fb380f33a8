#!/usr/bin/env python3
"""Copies the scheduler goldens (CLASS.json and CLASS.safetensors, made with diffusers 0.31) in the form that the tests read:

    scheduler_cases.py FROM TO

The json becomes strict JSON that names its class: lambda_min_clipped -Infinity and NaN become null, and of each run it keeps whether it
is finite, the number of calls and the distance of diffusers' own float and double runs (`gap`). The safetensors are copied as they are."""
import glob, json, math, os, shutil, sys


def clean(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


source, target = sys.argv[1:]
for path in sorted(glob.glob(os.path.join(source, "*.json"))):
    name = os.path.basename(path)[: -len(".json")]
    cases = json.load(open(path))
    for case in cases.values():
        case["config"] = {k: clean(v) for k, v in case["config"].items()}
        case["config"]["_class_name"] = name
        case["runs"] = {n: {"finite": r["finite"], "n_model_calls": r["n_model_calls"],
                            "gap": clean(r["max_abs_diff_f32_vs_f64_final"]) if not isinstance(r["max_abs_diff_f32_vs_f64_final"], str) else None}
                        for n, r in case["runs"].items()}
    with open(os.path.join(target, name + ".json"), "w") as out:
        json.dump(cases, out, separators=(",", ":"))
    shutil.copyfile(path[: -len("json")] + "safetensors", os.path.join(target, name + ".safetensors"))
