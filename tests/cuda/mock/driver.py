#!/usr/bin/env python3
"""Writes the C source of a libcuda.so.1 without a GPU behind it, to standard output. Usage: driver.py STUB (the toolkit's stubs/libcuda.so)

cuDNN compiles some kernels when it makes a plan, and hands them to the driver to be loaded. Here loading "succeeds", so that a plan can be
made where no driver is; every other call answers CUDA_ERROR_STUB_LIBRARY, as the toolkit's own stub does. Nothing can be run with it. It is
built into the build folder and found through LD_LIBRARY_PATH of one test: it must never lie where a loader looks by itself.
"""
import subprocess
import sys

# Loading code and asking about it; what each writes through its pointers.
SUCCEED = {
    "cuLibraryLoadData": ("void **library, const void *code, void *a, void *b, unsigned c, void *d, void *e, unsigned f", "*library = &thing;"),
    "cuLibraryGetKernel": ("void **kernel, void *library, const char *name", "*kernel = &thing;"),
    "cuLibraryGetGlobal": ("void **memory, size_t *bytes, void *library, const char *name", "if (memory) *memory = &thing; if (bytes) *bytes = 8;"),
    "cuLibraryUnload": ("void *library", ""),
    "cuKernelGetFunction": ("void **function, void *kernel", "*function = &thing;"),
    "cuKernelSetAttribute": ("int name, int value, void *kernel, int device", ""),
    "cuKernelGetAttribute": ("int *value, int name, void *kernel, int device", "*value = 0;"),
    "cuModuleLoadData": ("void **module, const void *code", "*module = &thing;"),
    "cuModuleGetFunction": ("void **function, void *module, const char *name", "*function = &thing;"),
    "cuModuleUnload": ("void *module", ""),
    "cuFuncSetAttribute": ("void *function, int name, int value", ""),
    "cuFuncGetAttribute": ("int *value, int name, void *function", "*value = 0;"),
    "cuOccupancyMaxActiveBlocksPerMultiprocessor": ("int *blocks, void *function, int threads, size_t bytes", "*blocks = 1;"),
    "cuGetErrorString": ("int code, const char **text", '*text = "no driver";'),
    "cuGetErrorName": ("int code, const char **text", '*text = "CUDA_ERROR_STUB_LIBRARY";'),
}
CUDA_ERROR_STUB_LIBRARY = 34


def main():
    listed = subprocess.run(["nm", "-D", "--defined-only", sys.argv[1]], capture_output=True, text=True, check=True).stdout
    names = sorted({line.split()[2].split("@")[0] for line in listed.splitlines() if len(line.split()) == 3 and line.split()[1] == "T"})
    missing = sorted(set(SUCCEED) - set(names))
    if missing:
        sys.exit(f"the stub has no {', '.join(missing)}")
    print("/* Written by tests/cuda/mock/driver.py. */\n#include <stddef.h>\nstatic int thing;")
    for name in names:
        arguments, body = SUCCEED.get(name, ("void", None))
        print(f"int {name}({arguments})\n{{\n    " + (f"return {CUDA_ERROR_STUB_LIBRARY};" if body is None else f"{body} return 0;") + "\n}")


if __name__ == "__main__":
    main()
