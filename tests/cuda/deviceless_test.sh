#!/bin/bash
# cuDNN's plans of every model for an H200, made where there is none (tests/cuda/deviceless.c says what must hold). Usage: [all]: every model
# and every batch size, some minutes.
cd "$(dirname "$0")/../.." || exit 1
if [ "${TEST_VARIANT:-release}" != release ]; then
    echo "SKIP deviceless: NVIDIA's libraries are not built with sanitizers"
    exit 0
fi
built=$(dirname "${DENOISED:-build/release/denoised}")/nvidia
if [ ! -x "$built/deviceless" ]; then
    echo "SKIP deviceless: there is no nvcc, so the CUDA library is not built"
    exit 0
fi
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
home=${CUDA_HOME:-$(dirname "$(dirname "$(realpath "$nvcc")")")}
export LD_LIBRARY_PATH=$built/mock:$home/lib64
if ldd "$built/deviceless" | grep -q 'not found'; then
    echo "SKIP deviceless: the CUDA libraries are not all installed:$(ldd "$built/deviceless" | awk '/not found/ { printf " %s", $1 }')"
    exit 0
fi
"$built/deviceless" tests/cuda/h200.json tests/cuda/deviceless_models.json "$@"
