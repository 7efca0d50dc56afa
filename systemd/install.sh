#!/usr/bin/env bash
# Installs binaries, units and examples below $DESTDIR (by default /):
#
#   install.sh control-plane|agent|proxy [folder with the built binaries, by default target/release]
#
# With an empty DESTDIR it also makes the user and folders and tells systemd. It starts nothing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
role=${1:-}
binaries=${2:-$here/../target/release}
destination=${DESTDIR:-}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

case $role in
control-plane) examples=(control-plane.env.example) ;;
agent) examples=(agent.env.example agent.toml.example commands.toml.example) ;;
proxy) examples=(proxy.toml.example) ;;
*) fail "usage: install.sh control-plane|agent|proxy [folder with binaries]" ;;
esac
[ -n "$destination" ] || [ "$(id -u)" = 0 ] || fail "run it as root, or set DESTDIR"
[ -x "$binaries/hoody-$role" ] || fail "$binaries/hoody-$role is not there: build it with cargo build --release"

install -D -m 755 "$binaries/hoody-$role" "$destination/usr/bin/hoody-$role"
install -D -m 644 -t "$destination/usr/lib/systemd/system" "$here/hoody-$role.service" "$here/hoody.slice"
install -D -m 644 "$here/sysusers.d/hoody.conf" "$destination/usr/lib/sysusers.d/hoody.conf"
install -D -m 644 "$here/tmpfiles.d/hoody.conf" "$destination/usr/lib/tmpfiles.d/hoody.conf"
for example in "${examples[@]}"; do
    install -D -m 644 "$here/$example" "$destination/usr/share/doc/hoody/examples/$example"
done
[ ! -f "$here/../docs/operations.md" ] ||
    install -D -m 644 "$here/../docs/operations.md" "$destination/usr/share/doc/hoody/operations.md"

if [ -z "$destination" ]; then
    systemd-sysusers hoody.conf
    systemd-tmpfiles --create hoody.conf
    for example in "${examples[@]}"; do
        [ -e "/etc/hoody/${example%.example}" ] || install -m 600 "$here/$example" "/etc/hoody/${example%.example}"
    done
    systemd-tmpfiles --create hoody.conf
    [ ! -d /run/systemd/system ] || systemctl daemon-reload
    echo "installed hoody-$role; edit /etc/hoody, then: systemctl enable --now hoody-$role"
fi
