#!/bin/bash
# One fuzz entry under libFuzzer: run.sh TARGET [LIBFUZZER OPTION or FILE]...; `make fuzz-build TARGET=` builds it. With files it runs these
# inputs alone. What grows is kept in build/fuzz/corpus/TARGET, or $FUZZ_CORPUS; what breaks something in build/fuzz/crashes/TARGET.
set -u
target=${1:-}
program=build/fuzz/fuzz_$target
if [ -z "$target" ] || [ ! -x "$program" ]; then
    echo "usage: run.sh TARGET [OPTION]...; targets: $(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//;s/\.c$//' | tr '\n' ' ')" >&2
    exit 64
fi
shift
corpus=${FUZZ_CORPUS:-build/fuzz/corpus/$target}
folders=("$corpus" "tests/fuzz/corpus/$target")
for argument in "$@"; do [ -f "$argument" ] && folders=(); done
mkdir -p "$corpus" "build/fuzz/crashes/$target"
[ -f "tests/fuzz/dict/$target.dict" ] && set -- "-dict=tests/fuzz/dict/$target.dict" "$@"
# An input that takes seconds of a busy machine is stopped after ten; -print_final_stats says what the slowest took.
export ASAN_OPTIONS=abort_on_error=0:detect_leaks=1:quarantine_size_mb=32:allocator_may_return_null=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
exec "$program" -timeout=10 -rss_limit_mb=512 -max_len=16384 -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$target/" \
    "$@" ${folders[@]+"${folders[@]}"}
