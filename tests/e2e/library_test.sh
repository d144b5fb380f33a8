#!/bin/bash
# The engine as a library: examples/generate.c links libdenoised.a alone, makes a picture, and it is the picture that the program makes.
set -u
cd "$(dirname "$0")/../.." || exit 1
program=${DENOISED:-build/denoised}
example=$(dirname "$program")/examples/generate
[ -x "$example" ] || { make --no-print-directory examples >/dev/null && example=build/release/examples/generate; }
model=tests/golden/pipe_unet_ddim10_cfg3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
pass() { echo "PASS $1"; }
fail() { echo "FAIL $1: $2"; failed=1; }

# The compressed pixels of a PNG, without its text.
pixels() {
    python3 -c 'import sys
data, at = open(sys.argv[1], "rb").read(), 8
assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
while at < len(data):
    length = int.from_bytes(data[at:at + 4], "big")
    if data[at + 4:at + 8] == b"IDAT":
        sys.stdout.buffer.write(data[at + 8:at + 8 + length])
    at += 12 + length' "$1"
}

if "$example" "$model" "$work/a.png" && "$example" "$model" "$work/b.png" && cmp -s "$work/a.png" "$work/b.png" &&
    [ -n "$(pixels "$work/a.png" | od -An -tx1)" ]; then
    pass the_example_makes_the_same_picture_twice
else
    fail the_example_makes_the_same_picture_twice "no picture, or two"
fi
if "$program" generate --model "$model" --class 7 --seed 42 --guidance-scale 2 --steps 20 --sampler dpmpp_2m --output "$work/c.png" >/dev/null 2>&1 &&
    cmp -s <(pixels "$work/a.png") <(pixels "$work/c.png"); then
    pass the_program_makes_that_picture_too
else
    fail the_program_makes_that_picture_too "its pixels differ"
fi
"$example" "$work/nothing" "$work/d.png" 2>"$work/error"
status=$?
if [ $status -eq 1 ] && [ "$(wc -l <"$work/error")" -eq 1 ]; then
    pass a_missing_model_is_one_line
else
    fail a_missing_model_is_one_line "status $status: $(cat "$work/error")"
fi
exit $failed
