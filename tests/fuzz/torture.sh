#!/bin/bash
# COUNT executions of one fuzz entry from a seed: torture.sh TARGET SEED COUNT. Its last line is
#     TORTURE key=fuzz_TARGET seed=SEED done=EXECUTIONS failed=0|1
# Builds what is missing; without clang it says SKIP and has done none. The corpus grows in build/fuzz/corpus/TARGET from run to run.
set -u
cd "$(dirname "$0")/../.." || exit 70
target=${1:?torture.sh TARGET SEED COUNT}
seed=${2:?torture.sh TARGET SEED COUNT}
count=${3:?torture.sh TARGET SEED COUNT}
clang=${CLANG:-clang}
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n; }' |
    $clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null; then
    echo "SKIP fuzz_$target: no clang with libFuzzer"
    echo "TORTURE key=fuzz_$target seed=$seed done=0 failed=0"
    exit 0
fi
make --no-print-directory fuzz-build TARGET="$target" CLANG="$clang" >/dev/null || exit 70
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# libFuzzer takes seeds of 32 bits, and 0 for "any".
tests/fuzz/run.sh "$target" -seed=$((seed % 4294967295 + 1)) -runs="$count" >"$log" 2>&1
status=$?
stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
executed=$(stat number_of_executed_units)
if [ -z "$executed" ]; then executed=$(sed -n 's/^#\([0-9]*\).*/\1/p' "$log" | tail -1); fi
sed -n 's/.*DONE *cov: \([0-9]*\).*/edges: \1/p' "$log"
echo "seconds of the slowest input: $(stat slowest_unit_time_sec)"
if [ $status -ne 0 ]; then
    commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    grep -E 'ERROR|SUMMARY|not so|Test unit written' "$log" | head -5
    artifact=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "seed=$seed commit=$commit: tests/fuzz/run.sh $target ${artifact:-}"
fi
echo "TORTURE key=fuzz_$target seed=$seed done=${executed:-0} failed=$((status != 0))"
[ $status -eq 0 ]
