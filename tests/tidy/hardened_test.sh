#!/bin/bash
# The program that the tests run is hardened: hardened.sh, and that it would notice a program that is not.
cd "$(dirname "$0")/../.." || exit 1
if [ "${TEST_VARIANT:-release}" != release ]; then
    echo "SKIP hardened: sanitizers are built without it"
    exit 0
fi
if ! command -v readelf >/dev/null; then
    echo "SKIP hardened: readelf is not installed"
    exit 0
fi
tests/tidy/hardened.sh "${DENOISED:-build/denoised}" || exit 1
library=$(dirname "${DENOISED:-build/denoised}")/libdenoised_cuda.so
if [ -e "$library" ]; then tests/tidy/hardened.sh "$library" denoised_backend | sed 's/hardened_/&cuda_/' || exit 1; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo 'int main(void) { return 0; }' >"$folder/soft.c"
if ! ${CC:-gcc} -O0 -fcf-protection=none -fno-stack-protector -U_FORTIFY_SOURCE -no-pie -z execstack -z norelro -z lazy -Wl,-rpath,/nowhere \
    -Wl,--build-id=none -o "$folder/soft" "$folder/soft.c" 2>/dev/null; then
    echo "SKIP hardened_gate: no soft program can be made here"
    exit 0
fi
missed=$(tests/tidy/hardened.sh "$folder/soft" | grep '^PASS' | grep -Ev 'readable|no_text_relocations|no_segment')
if [ -n "$missed" ]; then
    echo "FAIL hardened_gate: a soft program passes: $missed"
    exit 1
fi
echo "PASS hardened_gate"
