#!/bin/sh
# Makes build/venv, the virtual environment of tests/clients and tests/browser, once: what requirements.txt has, no more.
# Without an index of packages it says so and leaves none: those tests then print SKIP, and the others go on.
set -u
cd "$(dirname "$0")/../.." || exit 1
wanted=tests/clients/requirements.txt
made=build/venv/requirements.txt # written last: its absence is an environment begun and not finished
mkdir -p build
exec 9>build/venv.lock
flock 9
if cmp -s "$wanted" "$made" && build/venv/bin/python3 -c 'import pip' 2>/dev/null; then exit 0; fi
echo "  VENV build/venv"
rm -rf build/venv
if ! said=$(python3 -m venv build/venv 2>&1); then
    echo "build/venv: python3 has no venv (Debian: python3-venv); tests that need it are skipped"
elif ! said=$(timeout 300 build/venv/bin/python3 -m pip --disable-pip-version-check --no-input install --quiet --no-deps --only-binary :all: \
    --retries 2 --timeout 30 --requirement "$wanted" 2>&1 </dev/null); then
    echo "build/venv: pip could not install tests/clients/requirements.txt; tests that need it are skipped"
else
    cp "$wanted" "$made"
    exit 0
fi
echo "$said" | tail -n 2
rm -rf build/venv
