#!/bin/bash
# `make torture`: runs the parts of the torture at the lowest priority, so that the machine stays usable for hours; torture.py says the rest.
set -u
cd "$(dirname "$0")/../.." || exit 1
exec nice -n 19 python3 tests/torture/torture.py "$@"
