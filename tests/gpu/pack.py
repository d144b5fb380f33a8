#!/usr/bin/env python3
"""What a machine with a GPU needs of a build, small enough to be carried: programs without their symbols, and the libraries that they are linked
with, but for the C library's and NVIDIA's, which the machine has.

    pack.py build/release build/gpu-pack        then, in a source tree there: python3 tests/gpu/run.py --out build/gpu-pack
"""
import glob
import os
import re
import shutil
import subprocess
import sys

THERE = re.compile(r"(linux-vdso|ld-linux.*|libc|libm|libpthread|libdl|librt|libresolv|libgcc_s|libstdc\+\+|libcuda|libcublas.*|libcudnn.*|libnvrtc.*|libcudart.*)"
                   r"\.so.*")


def programs(out):
    paths = [os.path.join(out, name) for name in ("denoised", "libdenoised_cuda.so")] + glob.glob(os.path.join(out, "gpu/*"))
    paths += glob.glob(os.path.join(out, "tests/gpu/gpu_*"))
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]


def needed(path):
    """{name: path} of the shared libraries that the loader finds here."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    return {name: found for name, found in re.findall(r"^\s*(\S+) => (/\S+)", done.stdout, re.M) if not THERE.fullmatch(name)}


def main(out, to):
    shutil.rmtree(to, ignore_errors=True)
    os.makedirs(os.path.join(to, "lib"))
    libraries = {}
    found = programs(out)
    for path in found:
        target = os.path.join(to, os.path.relpath(path, out))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        subprocess.run(["strip", "-o", target, path], check=True)
        libraries.update(needed(path))
    for name, path in libraries.items():
        shutil.copy(os.path.realpath(path), os.path.join(to, "lib", name))
    size = sum(os.path.getsize(path) for path in glob.glob(os.path.join(to, "**"), recursive=True) if os.path.isfile(path))
    print(f"{to}: {len(found)} programs and {len(libraries)} libraries, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
