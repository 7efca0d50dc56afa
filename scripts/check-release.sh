#!/usr/bin/env bash
# Checks that release binaries hold nothing of the fault points: neither their names nor the variables that arm
# them (fault/src/lib.rs). `make release` calls it.
#
#   check-release.sh FOLDER   with the binaries, by default target/release
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/target/release}

fail() {
    echo "check-release.sh: $*" >&2
    exit 1
}

# Names have a dot, which tells them from words of the code.
names=$(mktemp)
trap 'rm -f "$names"' EXIT
grep -oE '"[a-z_]+\.[a-z_.]+"' "$root/fault/src/names.rs" | tr -d '"' | sort -u >"$names"
[ "$(wc -l <"$names")" -gt 20 ] || fail "fault/src/names.rs lists no names: has its form changed?"
printf '%s\n' HOODY_FAULT_POINT HOODY_FAULT_FOLDER HOODY_FAULT_BOOT_ID >>"$names"

for program in hoody-control-plane hoody-agent; do
    [ -f "$folder/$program" ] || fail "$folder/$program is missing: run make release"
    if found=$(grep -aoFf "$names" "$folder/$program" | sort -u | tr '\n' ' ') && [ -n "$found" ]; then
        fail "$folder/$program holds fault points: $found"
    fi
done
echo "release: no fault points in $folder"
