"""What the compiler makes of the kernels, without a GPU: no stack, no spilled registers, no warning, on every kind of card; and no fused
multiply-add where the bytes must be the CPU's.

The first three are read from what the assembler said when the library was built (deploy/cuda.mk keeps it beside each object); the last
compiles those few files once more, to PTX. SKIP where the library is not built.
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile

KERNELS = "engine/backend/cuda/kernels"
OUT = os.path.dirname(os.environ.get("DENOISED", "build/release/denoised"))
LOGS = os.path.join(OUT, "nvidia", KERNELS)
CARDS = ("sm_80", "sm_90")
# Beyond this few warps share a multiprocessor: a block of 256 threads would have one to itself.
REGISTERS_MAX = 255
failures = 0


def say(good, name, why=""):
    global failures
    failures += not good
    print(f"PASS {name}" if good else f"FAIL {name}: {why}", flush=True)


def sources():
    return sorted(os.path.basename(path)[:-3] for path in glob.glob(KERNELS + "/*.cu"))


def compiled(text):
    """(kernel, card, bytes of stack and spills, registers) of each kernel in a log."""
    entry = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'.*?"
                       r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.S)
    return [(name, card, int(stack) + int(stores) + int(loads), int(registers))
            for name, card, stack, stores, loads, registers in entry.findall(text)]


def logs_are_clean():
    stacks, warnings, missing, heavy = [], [], [], []
    for name in sources():
        path = os.path.join(LOGS, name + ".o.log")
        text = open(path, encoding="utf8").read() if os.path.exists(path) else ""
        kernels = compiled(text)
        warnings += [f"{name}: {line}" for line in text.split("\n") if "warning" in line.lower()]
        stacks += [f"{name}: {kernel} on {card}" for kernel, card, used, _ in kernels if used]
        heavy += [f"{name}: {kernel} on {card}" for kernel, card, _, registers in kernels if registers >= REGISTERS_MAX]
        told = text.count("Compiling entry function")
        if {card for _, card, _, _ in kernels} != set(CARDS) or told != len(kernels):
            missing.append(f"{name}: {len(kernels)} of {told} kernels")
    say(not missing, "kernels_are_compiled_for_every_card", "; ".join(missing))
    say(not stacks, "kernels_have_no_stack_and_spill_nothing", "; ".join(stacks))
    say(not heavy, "kernels_leave_registers", "; ".join(heavy))
    say(not warnings, "kernels_compile_without_warnings", "; ".join(warnings[:5]))


def ptx_of(nvcc, name, folder, *flags):
    path = os.path.join(folder, name + ".ptx")
    subprocess.run([nvcc, "-std=c++17", "-O3", "-I.", "-Iengine", "-arch=compute_90", *flags, "-ptx", "-o", path, f"{KERNELS}/{name}.cu"],
                   check=True, stderr=subprocess.DEVNULL)
    return open(path, encoding="utf8").read()


def fused(text):
    return len(re.findall(r"\bfma\.rn\.(?:ftz\.)?(?:sat\.)?f(?:32|64)\b", text))


def nothing_is_fused(nvcc):
    exact = [name for name in sources() if name.startswith("programs") or name == "embedding"]
    with tempfile.TemporaryDirectory() as folder:
        for name in exact:
            count = fused(ptx_of(nvcc, name, folder, "-fmad=false"))
            say(count == 0, f"{name}_has_no_fused_multiply_add", f"{count} in its PTX")
        say(fused(ptx_of(nvcc, "embedding", folder)) > 0, "fused_multiply_adds_would_be_seen", "none without -fmad=false either")


def main():
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if os.environ.get("TEST_VARIANT", "release") != "release" or nvcc is None or not os.path.isdir(LOGS):
        print("SKIP kernels_compile: the CUDA library is built where nvcc is, without sanitizers")
        return 0
    logs_are_clean()
    nothing_is_fused(nvcc)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
