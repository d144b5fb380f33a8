#!/bin/bash
# Builds the whole program for AArch64 with Debian's cross compiler and tries it under emulation: kernels, rows, pinned images, and the
# program itself on the built-in model. Prints PASS/FAIL/SKIP lines; what it needs and does not find is a SKIP and no failure.
#     tests/arm/run.sh            all of it
#     tests/arm/run.sh --pin      writes the hash of the images anew (tests/golden/tiny/hashes.txt)
# ARM_TESTS: others than the usual tests, by name (test_cpu_rows and test_cpu_transformer_nodes are minutes). Emulated arithmetic is a
# hundred times slower, so slow tests go fewer rounds.
set -u
cd "$(dirname "$0")/../.." || exit 1
work=build/arm
root=$PWD/$work/root
for tool in aarch64-linux-gnu-gcc qemu-aarch64 mmdebstrap; do
    command -v "$tool" >/dev/null || { echo "SKIP arm_test: $tool is missing (sh deploy/packages.sh install arm)"; exit 0; }
done
mkdir -p "$work"
if [ ! -e "$root/usr/include/png.h" ]; then
    echo "fetching the libraries' arm64 packages"
    wanted=$(sed -n 's/^BUILD_PACKAGES := gcc make //p' deploy/deps.mk | tr ' ' ',')
    rm -rf "$root"
    mmdebstrap --quiet --variant=extract --architectures=arm64 --include="$wanted" bookworm "$root" >"$work/root.log" 2>&1 || {
        rm -rf "$root"
        echo "SKIP arm_test: the arm64 packages cannot be fetched: $(tail -n 1 "$work/root.log")"
        exit 0
    }
fi
tests=${ARM_TESTS:-test_cpu_kernels test_cpu_attention test_cpu_nodes test_cpu_programs test_input_gradient
       test_base_thread_pool test_base_sha256 test_base_half test_base_philox test_pinned_images}
built=()
for test in $tests; do [ -e "tests/engine/$test.c" ] && built+=("$work/out/tests/engine/$test"); done
echo "building for AArch64"
make --no-print-directory -s -j"$(nproc)" CC="${ARM_CC:-aarch64-linux-gnu-gcc} --sysroot=$root" COMMIT=arm OUT="$work/out" EXTRA_CFLAGS=-Werror \
    "$work/out/denoised" "${built[@]}" >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log"; echo "FAIL arm_builds: see $work/build.log"; exit 1; }
echo "PASS arm_builds"
export QEMU_LD_PREFIX=$root
if [ "${1:-}" = --pin ]; then
    qemu-aarch64 "$work/out/tests/engine/test_pinned_images" --write
    exit
fi
failed=0
TEST_EMULATOR=qemu-aarch64 TEST_ROUNDS=2 tests/run.sh "${built[@]}" || failed=1
if qemu-aarch64 "$work/out/denoised" generate --model models/fashion-mnist --class Sneaker --seed 42 --steps 3 --output "$work/shoe.png" >"$work/generate.log" 2>&1 &&
    [ -s "$work/shoe.png" ]; then
    echo "PASS arm_program_draws"
else
    cat "$work/generate.log"
    echo "FAIL arm_program_draws"
    failed=1
fi
exit $failed
