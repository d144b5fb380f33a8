#!/bin/bash
# The program is built as the README says: position independent, relocations read-only and bound at start, no executable
# stack, stack protector and fortified calls in use. Prints PASS/FAIL lines. Usage: hardened.sh PROGRAM
set -u
program=${1:-build/denoised}
failed=0
check() {
    if eval "$2" >/dev/null 2>&1; then echo "PASS hardened_$1"; else echo "FAIL hardened_$1: $2"; failed=1; fi
}
headers=$(readelf -W -h -l -d "$program" 2>/dev/null)
symbols=$(readelf -W --dyn-syms "$program" 2>/dev/null)
check pie 'grep -q "Type:.*DYN" <<<"$headers"'
check relro 'grep -q GNU_RELRO <<<"$headers"'
check bind_now 'grep -Eq "BIND_NOW|FLAGS_1.*NOW" <<<"$headers"'
check stack_not_executable 'grep -E "GNU_STACK" <<<"$headers" | grep -qv "RWE"'
# ld drops -z nodlopen from executables, whose PIE flag already makes the loader refuse to dlopen them.
check not_for_dlopen 'grep -Eq "FLAGS_1.*(NOOPEN|PIE)" <<<"$headers"'
check stack_protector 'grep -q __stack_chk_fail <<<"$symbols"'
check fortify 'grep -Eq "__(sn|vsn|f|mem|read|str)[a-z]*_chk" <<<"$symbols"'
check no_rpath '! grep -Eq "RPATH|RUNPATH" <<<"$headers"'
exit $failed
