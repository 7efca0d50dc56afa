#!/usr/bin/env bash
# Installs what building, testing and running need on Debian 12: packages by name, only those that are
# missing; says nothing where nothing is missing.
#
#   setup.sh          what `make demo`, `make up` and `make test` need
#   setup.sh bench    also the peers of `make bench`: iperf3, podman, docker, crun, proxychains4, redsocks, lxd
#   setup.sh lint     also what `make lint` needs (builds cargo-deny, which takes some minutes once)
#   setup.sh cgroup2  also what `make test-cgroup2` needs
set -euo pipefail

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "installing packages and starting containers needs root: run it as root (sudo make …)"
command -v cargo >/dev/null || fail "cargo is not in PATH: install Rust from https://rustup.rs first"
command -v apt-get >/dev/null || fail "apt-get is not here: this set-up is for Debian 12"

# A package, and a file or program that shows that it (or something in its place) is there.
packages=(
    build-essential:cc
    ca-certificates:/etc/ssl/certs/ca-certificates.crt
    curl:curl
    jq:jq
    runc:runc
    conmon:conmon
    catatonit:catatonit
    nftables:nft
    libcap2-bin:setcap
    iproute2:ip
    btrfs-progs:mkfs.btrfs
    kmod:modprobe
    mmdebstrap:mmdebstrap
    zstd:zstd
    busybox-static:/usr/share/doc/busybox-static
    postgresql:/usr/share/doc/postgresql
    python3-venv:/usr/share/doc/python3-venv
    python3-aiosmtpd:/usr/lib/python3/dist-packages/aiosmtpd
    systemd:systemd-analyze
    util-linux:unshare
    procps:ps
    git:git
    faketime:faketime
    nodejs:node
    npm:npm
    openssl:openssl
    openssh-client:ssh-keygen
    chromium:chromium
    microsocks:microsocks
    dante-server:danted
    squid-openssl:squid
    dnsmasq-base:dnsmasq
    python3:/usr/bin/python3
    tinyproxy-bin:tinyproxy
    docker-registry:docker-registry
    skopeo:skopeo
    umoci:umoci
)
[ "${1:-}" != lint ] || packages+=(shellcheck:shellcheck)
[ "${1:-}" != bench ] || packages+=(iperf3:iperf3 podman:podman docker.io:dockerd crun:crun proxychains4:proxychains4 redsocks:redsocks lxd:lxd)
[ "${1:-}" != cgroup2 ] || packages+=(qemu-system-x86:qemu-system-x86_64 cpio:cpio)

is_there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
    esac
}

missing=()
for entry in "${packages[@]}"; do
    is_there "${entry#*:}" || missing+=("${entry%%:*}")
done

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # No daemon is started: PostgreSQL's own cluster is not wanted, tests start a server of theirs.
    policy=/usr/sbin/policy-rc.d
    made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        made_policy=1
    fi
    trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
    apt_get() {
        apt-get -q -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
    }
    apt_get update | sed 's/^/setup: /'
    apt_get install -y --no-install-recommends "${missing[@]}" | sed 's/^/setup: /'
fi

# What the tests of signing in need, as package-lock.json pins it.
browser=$(dirname "$0")/../tests/browser
if ! cmp -s "$browser/package-lock.json" "$browser/node_modules/.installed"; then
    echo "setup: installing the packages of tests/browser"
    (cd "$browser" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error | sed 's/^/setup: /')
    cp "$browser/package-lock.json" "$browser/node_modules/.installed"
fi

# What walks through the API's own document, as requirements.txt pins it, for Debian's interpreter.
walker=$(dirname "$0")/../tests/schemathesis
if ! cmp -s "$walker/requirements.txt" "$walker/.venv/.installed"; then
    echo "setup: installing the packages of tests/schemathesis"
    rm -rf "$walker/.venv"
    /usr/bin/python3 -m venv "$walker/.venv"
    "$walker/.venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --requirement "$walker/requirements.txt"
    cp "$walker/requirements.txt" "$walker/.venv/.installed"
fi

if [ "${1:-}" = lint ]; then
    cargo fmt --version >/dev/null 2>&1 || fail "rustfmt is missing: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || fail "clippy is missing: rustup component add clippy"
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "setup: building cargo-deny, once; this takes some minutes"
        # It runs for a second: a quick build is worth more than quick code.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_PROFILE_RELEASE_DEBUG=0 cargo install --locked --no-default-features cargo-deny
    fi
fi
