#!/bin/bash
# Holds denoised against its peers in one command: tests/bench/peers/run.sh [FOLDER [peers.py's options]], FOLDER = build/release.
# Makes what it lacks: the engine's contender, virtual environments of the peers and random weights under build/peers (12 GB in all),
# then plays every row (--only unet-1/1,train: some) and prints a table of goals beside results; it lies in FOLDER/peers.txt and
# FOLDER/peers.json afterwards. A peer that cannot be installed is named and left out. Have the machine to yourself.
set -u
cd "$(dirname "$0")/../../.." || exit 1
out=${1:-build/release}
shift || true
here=tests/bench/peers
peers=build/peers
missing=

# environment NAME PYTHON REQUIREMENTS [venv's options]: made once, and again when the requirements change.
environment() {
    name=$1 python=$2 list=$here/$3
    shift 3
    cmp -s "$list" "$peers/$name/installed" && return 0
    echo "installing $name"
    "$python" -m venv --clear "$@" "$peers/$name" && "$peers/$name/bin/python" -m pip install -q -r "$list" &&
        cp "$list" "$peers/$name/installed"
}

mkdir -p "$peers"
make --no-print-directory -j2 OUT="$out" "$out/tests/bench/bench_engine_contender" || exit 1
environment newest python3 requirements.txt ||
    missing="$missing PyTorch and OpenVINO, newest (see above);"
command -v g++ >/dev/null || missing="$missing torch.compile (it needs g++);"
if ! /usr/bin/python3 -c 'import torch' 2>/dev/null && ! sh deploy/packages.sh install peers; then
    missing="$missing Debian's PyTorch (package python3-torch);"
elif ! environment debian /usr/bin/python3 requirements-debian.txt --system-site-packages; then
    missing="$missing diffusers for Debian's PyTorch (see above);"
fi
[ -x "$peers/newest/bin/python" ] || { echo "no peers: the newest ones draw the weights$missing" >&2; exit 1; }
HF_HUB_OFFLINE=1 "$peers/newest/bin/python" "$here/peer_models.py" "$peers" || exit 1
{
    date -u +'%Y-%m-%d %H:%M UTC'
    [ -n "$missing" ] && echo "not installed:$missing"
    python3 "$here/peers.py" --out "$out" --folder "$peers" --json "$out/peers.json" "$@"
} 2>&1 | tee "$out/peers.txt"
exit "${PIPESTATUS[0]}"
