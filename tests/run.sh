#!/bin/bash
# Runs every test given (programs and scripts), each under a time limit, adds up their PASS/FAIL/SKIP lines and ends with
# one line `N passed, N failed` (and `, N skipped`). Usage: tests/run.sh [-v] TEST...    TEST_TIMEOUT: seconds each (1800: for what hangs).
# TEST_EMULATOR: what runs programs of another machine. TEST_JOBS: how many at once (2; 1 under a sanitizer or an emulator), but for those that
# measure, that use every processor, or that write into the checkout: they come last, one at a time.
set -u
TEST_VERBOSE=0
if [ "${1:-}" = -v ]; then TEST_VERBOSE=1; shift; fi
usual=1800 jobs=2
[ "${TEST_VARIANT:-release}" = release ] || jobs=1 # sanitizers slow everything down
[ -z "${TEST_EMULATOR:-}" ] || jobs=1
jobs=${TEST_JOBS:-$jobs}
limit=${TEST_TIMEOUT:-$usual}
export DENOISED_DEVICE=cpu # on a machine with a GPU too: tests of GPUs name theirs
TIMEFORMAT='%U %S' # what a test cost says more than how long it took on a machine that others use
with_packages=python3 # of PyPI, where `make test` could get them; without, those tests say SKIP
[ -e build/venv/requirements.txt ] && with_packages=build/venv/bin/python3
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

alone() {
    case "$1" in
    *.sh | */sim/* | */torture/* | */tidy/* | tests/api/*) return 0 ;;
    */machine_faults_test.py | */proxy_test.py | */slow_test.py | */streams_test.py) return 0 ;;
    esac
    return 1
}

# Its numbers go to $logs/counts, its SKIP lines to $logs/skips; what is said of it is said in one piece.
run_one() {
    local test=$1 name=${1#build/*tests/} began=$SECONDS log runner=${TEST_EMULATOR:-} status p f s cpu
    log=$(mktemp -p "$logs")
    case "$test" in
    */clients/*.py | */browser/*.py) runner=$with_packages ;;
    *.py) runner=python3 ;;
    esac
    { time timeout -k 10 "$limit" $runner "$test" >"$log" 2>&1; } 2>"$log.cpu"
    status=$?
    cpu=$(awk '{ printf "%d", $1 + $2 + 0.5 }' "$log.cpu")
    p=$(grep -c '^PASS ' "$log"); f=$(grep -c '^FAIL ' "$log"); s=$(grep -c '^SKIP ' "$log")
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        reason="exit status $status"
        [ $status -eq 124 ] && reason="no end within $limit s"
        echo "FAIL $name: $reason" >>"$log"
    fi
    if [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; then f=1; echo "FAIL $name: it ran no check" >>"$log"; fi
    {
        flock 9
        echo "$p $f $s" >>"$logs/counts"
        grep '^SKIP ' "$log" >>"$logs/skips"
        printf '%-48s %4d passed %3d failed %3d skipped %4d s, %3d s of CPU\n' "$name" "$p" "$f" "$s" $((SECONDS - began)) "$cpu"
        if [ "$f" -gt 0 ]; then
            grep '^FAIL ' "$log"
            echo "--- last lines of $name:"; tail -n 40 "$log"; echo "---"
        elif [ "$TEST_VERBOSE" = 1 ]; then
            cat "$log"
        fi
    } 9>"$logs/lock"
    return 0
}

single=()
for test in "$@"; do
    if [ "$jobs" -le 1 ] || alone "$test"; then single+=("$test"); continue; fi
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    run_one "$test" &
done
wait
for test in ${single[@]+"${single[@]}"}; do run_one "$test"; done
[ -f "$logs/skips" ] && cat "$logs/skips"
read -r passed failed skipped < <(awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$logs/counts" 2>/dev/null)
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$(wc -l <"$logs/counts")" -eq $# ]
