#!/bin/bash
# Runs the benchmarks that were built into a folder: tests/bench/run.sh build/release. Results beside their floors; all of it lies in
# FOLDER/bench.txt afterwards. DENOISED_BENCH_MODEL: another model folder than the built-in one. Have the machine to yourself.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:?usage: tests/bench/run.sh FOLDER}
model=${DENOISED_BENCH_MODEL:-models/fashion-mnist}
{
    [ -x "$out/tests/bench/bench_engine_kernels" ] && { echo "== kernels"; "$out/tests/bench/bench_engine_kernels"; }
    [ -x "$out/tests/bench/bench_engine_models" ] && { echo "== models"; "$out/tests/bench/bench_engine_models"; }
    [ -x "$out/tests/bench/bench_store" ] && { echo "== store"; "$out/tests/bench/bench_store" "$out"; }
    echo "== serving"
    python3 tests/bench/bench_serving.py --out "$out" --model "$model"
} 2>&1 | tee "$out/bench.txt"
exit "${PIPESTATUS[0]}"
