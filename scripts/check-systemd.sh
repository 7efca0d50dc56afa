#!/usr/bin/env bash
# Checks the units: systemd accepts them (`systemd-analyze verify`), the sandboxes of control plane and proxy score 3.0
# or better (`systemd-analyze security --offline`), and the agent's, which must be root, no worse than it is. Needs no
# running systemd.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
# systemd-analyze takes thresholds in tenths.
control_plane_threshold=30
proxy_threshold=30
agent_threshold=87

fail() {
    echo "check-systemd.sh: $*" >&2
    exit 1
}

command -v systemd-analyze >/dev/null || fail "systemd-analyze is missing: run scripts/setup.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# verify looks for the programs; a root folder with stand-ins for them makes it check everything else too.
DESTDIR=$work/root
mkdir -p "$work/bin" "$DESTDIR"
for program in hoody-control-plane hoody-agent hoody-proxy; do
    printf '#!/bin/sh\n' >"$work/bin/$program"
    chmod +x "$work/bin/$program"
done
# What units run beside our programs.
install -D -m 755 "$work/bin/hoody-agent" "$DESTDIR/bin/kill"
export DESTDIR
"$root/systemd/install.sh" control-plane "$work/bin"
"$root/systemd/install.sh" agent "$work/bin"
"$root/systemd/install.sh" proxy "$work/bin"

units=("$DESTDIR"/usr/lib/systemd/system/hoody*)
[ ${#units[@]} = 4 ] || fail "four units are expected, install.sh installed ${#units[@]}"
# The units that ours refer to are the machine's.
for folder in lib/systemd/system usr/lib/systemd/system; do
    [ -d "/$folder" ] || continue
    mkdir -p "$DESTDIR/$folder"
    cp -rn "/$folder/." "$DESTDIR/$folder/"
done
complaints=$(systemd-analyze --root="$DESTDIR" --recursive-errors=no verify "${units[@]#"$DESTDIR"/usr/lib/systemd/system/}" 2>&1) ||
    fail "systemd-analyze verify failed: $complaints"
# It exits with 0 on unknown settings, and only says so.
[ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"

# $1: unit, $2: threshold.
scores() {
    local security
    security=$(systemd-analyze --root="$DESTDIR" --offline=true --threshold="$2" --no-pager security "$1") || {
        echo "$security" >&2
        fail "$1 scores worse than $(($2 / 10)).$(($2 % 10))"
    }
    tail -n 1 <<<"$security"
}
scores hoody-control-plane.service "$control_plane_threshold"
scores hoody-proxy.service "$proxy_threshold"
scores hoody-agent.service "$agent_threshold"

systemd-sysusers --root="$DESTDIR" --dry-run hoody.conf >/dev/null || fail "sysusers.d/hoody.conf is not valid"
