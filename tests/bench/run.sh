#!/bin/bash
# Runs the benchmarks that were built into a folder: tests/bench/run.sh build/release. Results beside their floors; all of it lies in
# FOLDER/bench.txt afterwards. DENOISED_BENCH_MODEL: another model folder than the built-in one. Have the machine to yourself.
set -u
cd "$(dirname "$0")/../.." || exit 1
out=${1:?usage: tests/bench/run.sh FOLDER}
model=${DENOISED_BENCH_MODEL:-models/fashion-mnist}
{
    [ -x "$out/tests/bench/bench_engine_kernels" ] && { echo "== kernels"; "$out/tests/bench/bench_engine_kernels"; }
    [ -x "$out/tests/bench/bench_engine_half" ] && { echo "== products in 16 bits"; "$out/tests/bench/bench_engine_half"; }
    [ -x "$out/tests/bench/bench_engine_models" ] && { echo "== models"; "$out/tests/bench/bench_engine_models"; }
    if "$out/denoised" inspect --quick --precision bf16 "$model" >/dev/null 2>&1; then
        echo "== transformers in bf16"
        "$out/tests/bench/bench_engine_models" --precision bf16 tests/bench/models/dit_s_2.json tests/bench/models/dit_xl_2.json
    fi
    if [ -x "$out/tests/bench/bench_engine_train" ] && [ -e "$model/recipe.json" ]; then
        echo "== training"
        rm -rf "$out/bench-train"
        "$out/tests/bench/bench_engine_train" "$model/recipe.json" "$out/bench-train"
        rm -rf "$out/bench-train"
    fi
    [ -x "$out/tests/bench/bench_engine_pool" ] && { echo "== threads"; "$out/tests/bench/bench_engine_pool" "$model"; }
    [ -x "$out/tests/bench/bench_store" ] && { echo "== store"; "$out/tests/bench/bench_store" "$out"; }
    echo "== serving"
    python3 tests/bench/bench_serving.py --out "$out" --model "$model"
    echo "== answers while saturated"
    DENOISED="$out/denoised" python3 tests/bench/bench_saturated.py --model "$model"
    echo "== durability"
    python3 tests/bench/bench_durability.py --out "$out"
    echo "== batching"
    python3 tests/bench/bench_batching.py --out "$out" --model "$model"
} 2>&1 | tee "$out/bench.txt"
exit "${PIPESTATUS[0]}"
