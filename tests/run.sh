#!/bin/bash
# Runs every test given (programs and scripts), each under a time limit, adds up their PASS/FAIL/SKIP lines and ends with
# one line `N passed, N failed` (and `, N skipped`). Usage: tests/run.sh [-v] TEST...    TEST_TIMEOUT: seconds each (300; 900 under a sanitizer).
# TEST_EMULATOR: what runs programs of another machine.
set -u
verbose=0
if [ "${1:-}" = -v ]; then verbose=1; shift; fi
usual=300
[ "${TEST_VARIANT:-release}" = release ] || usual=900 # sanitizers slow everything down
limit=${TEST_TIMEOUT:-$usual}
TIMEFORMAT='%U %S' # what a test cost says more than how long it took on a machine that others use
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0; failed=0; skipped=0; skips=()
for test in "$@"; do
    log="$logs/log"
    began=$SECONDS
    runner=${TEST_EMULATOR:-}
    case "$test" in *.py) runner=python3 ;; esac
    { time timeout -k 10 "$limit" $runner "$test" >"$log" 2>&1; } 2>"$logs/cpu"
    status=$?
    cpu=$(awk '{ printf "%d", $1 + $2 + 0.5 }' "$logs/cpu")
    p=$(grep -c '^PASS ' "$log"); f=$(grep -c '^FAIL ' "$log"); s=$(grep -c '^SKIP ' "$log")
    name=${test#build/*tests/}
    if [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
        reason="exit status $status"
        [ $status -eq 124 ] && reason="no end within $limit s"
        echo "FAIL $name: $reason" >>"$log"
    fi
    if [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; then f=1; echo "FAIL $name: it ran no check" >>"$log"; fi
    passed=$((passed + p)); failed=$((failed + f)); skipped=$((skipped + s))
    printf '%-48s %4d passed %3d failed %3d skipped %4d s, %3d s of CPU\n' "$name" "$p" "$f" "$s" $((SECONDS - began)) "$cpu"
    while IFS= read -r line; do skips+=("$line"); done < <(grep '^SKIP ' "$log")
    if [ "$f" -gt 0 ]; then
        grep '^FAIL ' "$log"
        echo "--- last lines of $name:"; tail -n 40 "$log"; echo "---"
    elif [ $verbose = 1 ]; then
        cat "$log"
    fi
done
for line in "${skips[@]:-}"; do [ -n "$line" ] && echo "$line"; done
if [ "$skipped" -gt 0 ]; then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ]
