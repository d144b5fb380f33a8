#!/bin/bash
# The engine as a library: examples/generate.c links libdenoised.a alone, makes a picture, the same one again, and refuses in one line.
# (command_generate_test.py compares it with the program's picture.)
set -u
cd "$(dirname "$0")/../.." || exit 1
example=$(dirname "${DENOISED:-build/release/denoised}")/examples/generate
[ -x "$example" ] || { make --no-print-directory examples >/dev/null && example=build/release/examples/generate; }
model=tests/golden/pipe_unet_ddim10_cfg3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
pass() { echo "PASS $1"; }
fail() { echo "FAIL $1: $2"; failed=1; }

if "$example" "$model" "$work/a.png" && "$example" "$model" "$work/b.png" && cmp -s "$work/a.png" "$work/b.png" &&
    [ "$(head -c 8 "$work/a.png" | od -An -tx1)" = " 89 50 4e 47 0d 0a 1a 0a" ]; then
    pass the_example_makes_the_same_picture_twice
else
    fail the_example_makes_the_same_picture_twice "no picture, or two"
fi
"$example" "$work/nothing" "$work/d.png" 2>"$work/error"
status=$?
if [ $status -eq 1 ] && [ "$(wc -l <"$work/error")" -eq 1 ] && [ ! -e "$work/d.png" ]; then
    pass a_missing_model_is_one_line
else
    fail a_missing_model_is_one_line "status $status: $(cat "$work/error")"
fi
exit $failed
