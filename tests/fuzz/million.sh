#!/bin/bash
# 1,000,000 executions (FUZZ_EXECUTIONS) over all fuzz entries, with sanitizers, from the corpora of the repository and a fixed seed: `make fuzz-test`.
set -u
clang=${CLANG:-clang}
if ! echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n; }' |
    $clang -fsanitize=fuzzer,address -x c - -o /dev/null 2>/dev/null; then
    echo "SKIP fuzz: no clang with libFuzzer here; make test replays the corpora and changes of them"
    exit 0
fi
make --no-print-directory fuzz-build CLANG="$clang" >/dev/null || { echo "FAIL fuzz: it does not build"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
targets=$(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//;s/\.c$//')
runs=$((${FUZZ_EXECUTIONS:-1000000} / $(echo "$targets" | wc -l) + 1))
one() {
    mkdir -p "$work/$1"
    FUZZ_CORPUS="$work/$1" tests/fuzz/run.sh "$1" -seed=1 -runs=$runs >"$work/$1.log" 2>&1 && touch "$work/$1.fine"
}
export -f one
export work runs
echo "$targets" | xargs -P 2 -I{} bash -c 'one {}'
total=0; failed=0
for target in $targets; do
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log" | tail -1)
    edges=$(sed -n 's/.*DONE *cov: \([0-9]*\).*/\1/p' "$work/$target.log")
    total=$((total + ${executed:-0}))
    if [ -f "$work/$target.fine" ]; then
        echo "PASS fuzz_$target: $executed executions, $edges edges"
    else
        failed=$((failed + 1))
        echo "FAIL fuzz_$target: $(grep -E 'ERROR|not so|Test unit written' "$work/$target.log" | head -3 | tr '\n' ' ')"
        tail -n 30 "$work/$target.log"
    fi
done
echo "fuzz executions: $total, failed: $failed"
[ "$failed" -eq 0 ]
