#!/bin/bash
# libdenoised_cuda.so needs nothing but NVIDIA's three libraries, cJSON and the C library's (what it shows and how it is hardened:
# tests/tidy/hardened.sh).
cd "$(dirname "$0")/../.." || exit 1
library=$(dirname "${DENOISED:-build/release/denoised}")/libdenoised_cuda.so
if [ "${TEST_VARIANT:-release}" != release ] || [ ! -e "$library" ]; then
    echo "SKIP cuda_library: it is built where nvcc and cuDNN are, without sanitizers"
    exit 0
fi
needed=$(readelf -W -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
more=$(grep -Ev '^(libcublasLt\.so\.13|libcudnn\.so\.9|libnvrtc\.so\.13|libcjson\.so\.1|lib(c|m|dl|rt|pthread)\.so\.[0-9]+|ld-linux.*)$' <<<"$needed")
failed=0
if [ -z "$more" ]; then echo "PASS cuda_library_needs_no_more"; else echo "FAIL cuda_library_needs_no_more: $more"; failed=1; fi
for one in libcublasLt.so.13 libcudnn.so.9 libnvrtc.so.13; do
    if grep -q "^$one$" <<<"$needed"; then echo "PASS cuda_library_needs_$one"; else echo "FAIL cuda_library_needs_$one: $needed"; failed=1; fi
done
exit $failed
