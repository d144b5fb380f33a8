#!/bin/bash
# The program is built as the README says: position independent, relocations read-only and bound at start, no executable
# stack, stack protector and fortified calls in use. A library shows no symbol but those it is named with, and may be opened. Prints PASS/FAIL
# lines. Usage: hardened.sh PROGRAM, or hardened.sh LIBRARY SYMBOL...
set -u
program=${1:-build/denoised}
shift
shows=$*
failed=0
check() {
    if eval "$2" >/dev/null 2>&1; then echo "PASS hardened_$1"; else echo "FAIL hardened_$1: $2"; failed=1; fi
}
headers=$(readelf -W -h -l -d "$program" 2>/dev/null)
symbols=$(readelf -W --dyn-syms "$program" 2>/dev/null)
notes=$(readelf -W -n "$program" 2>/dev/null)
check readable '[ -n "$headers" ] && [ -n "$symbols" ]'
check pie 'grep -q "Type:.*DYN" <<<"$headers"'
check relro 'grep -q GNU_RELRO <<<"$headers"'
check bind_now 'grep -Eq "BIND_NOW|FLAGS_1.*NOW" <<<"$headers"'
check stack_not_executable 'grep GNU_STACK <<<"$headers" | grep -q " RW " && ! grep GNU_STACK <<<"$headers" | grep -q RWE'
check no_segment_writable_and_executable '! grep -E "^ *LOAD" <<<"$headers" | grep -q RWE'
# ld drops -z nodlopen from executables, whose PIE flag already makes the loader refuse to dlopen them.
[ -n "$shows" ] || check not_for_dlopen 'grep -Eq "FLAGS_1.*(NOOPEN|PIE)" <<<"$headers"'
check stack_protector 'grep -q __stack_chk_fail <<<"$symbols"'
[ -n "$shows" ] || check fortify '[ "$(grep -Eo "__(sn|vsn|f|mem|read|str|v?f|recv|poll|explicit)[a-z_]*_chk" <<<"$symbols" | sort -u | wc -l)" -ge 8 ]'
check no_rpath '! grep -Eq "RPATH|RUNPATH" <<<"$headers"'
check no_text_relocations '! grep -q TEXTREL <<<"$headers"'
check build_id 'grep -q "Build ID" <<<"$notes"'
# Debian's start files carry no note of indirect branch tracking, and one object without it takes it from the whole program: what our own
# functions have are the landing pads.
if [ -z "$shows" ] && grep -q "Machine:.*X86-64" <<<"$headers"; then
    check landing_pads '[ "$(LC_ALL=C grep -aoP "\xf3\x0f\x1e\xfa" "$program" | wc -l)" -ge 1000 ]'
fi
if [ -n "$shows" ]; then
    shown=$(awk '$4 == "FUNC" || $4 == "OBJECT" || $4 == "TLS" || $4 == "IFUNC" || $4 == "NOTYPE" || $4 == "UNIQUE" { if ($7 != "UND" && $7 != "ABS") print $8 }' <<<"$symbols" | sed 's/@.*//' | sort | xargs)
    check shows_what_it_should '[ "$shown" = "$shows" ]'
fi
exit $failed
