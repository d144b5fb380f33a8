#!/bin/sh
# Installs the Debian packages of one or more purposes: packages.sh install build runtime test check image
# Prints what it installs; does nothing (and needs no privilege) when all of them are there.
set -eu
here=$(dirname "$0")
[ "${1:-}" = install ] || { echo "usage: packages.sh install PURPOSE..." >&2; exit 64; }
shift
wanted=
for purpose in "$@"; do
    name=$(echo "$purpose" | tr '[:lower:]' '[:upper:]')_PACKAGES
    list=$(sed -n "s/^$name := //p" "$here/deps.mk")
    [ -n "$list" ] || { echo "packages.sh: no list for $purpose in deps.mk" >&2; exit 64; }
    wanted="$wanted $list"
done
missing=
for package in $wanted; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
        missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "These Debian packages are missing; install them as root:$missing" >&2; exit 69; }
    as_root=sudo
fi
echo "Installing Debian packages:$missing"
# A lock held by another apt is waited for, not failed on.
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
$apt update >/dev/null
$apt install -y --no-install-recommends $missing >/dev/null
