#!/usr/bin/env bash
# Makes root file systems for development, tests and the demonstration, and prints their paths:
#
#   images.sh busybox     one static program and a minimal /etc
#   images.sh debian/12   Debian 12 with systemd, from the packages of the machine's own mirror
#   images.sh server      an ext4 disk of a whole server: Debian 12 with its kernel and what a node needs
#
# They are kept in $HOODY_IMAGE_CACHE (by default /var/cache/hoody/images) under a name with a hash of
# everything that they are made of.
set -euo pipefail

cache=${HOODY_IMAGE_CACHE:-/var/cache/hoody/images}

fail() {
    echo "images.sh: $*" >&2
    exit 1
}

say() {
    echo "images: $*" >&2
}

[ "$(id -u)" = 0 ] || fail "a root file system contains files of root: run it as root"

# Reads lines on standard input, and prints a short hash of them.
hash_of() {
    sha256sum | cut -c 1-16
}

# kept <name> <extension> <hash> <function>: prints the path of the cached file; calls
# `<function> <folder> <file>` first where it is not there. One builder at a time; a half-made file is
# never seen.
kept() {
    local file=$cache/$1-$3.$2 work
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    if [ ! -s "$file" ]; then
        # Mounts for building live in this process's own mount namespace, in memory where there is enough.
        work=$(mktemp -d "$cache/.work.XXXXXX")
        # shellcheck disable=SC2064  # the folder of now is meant
        trap "rm -rf --one-file-system '$work'" EXIT
        local start=$SECONDS
        say "making $1"
        "$4" "$work" "$work/image.$2"
        mv "$work/image.$2" "$file"
        rm -rf --one-file-system "$work"
        trap - EXIT
        # Builds of other versions of this script are another checkout's, until nobody has used them for long.
        find "$cache" -maxdepth 1 -name "$1-????????????????.$2" -mtime +30 -delete
        say "made $1 in $((SECONDS - start)) s: $(du -h "$file" | cut -f 1)"
    fi
    touch "$file"
    exec 9>&-
    echo "$file"
}

build_busybox() {
    local root=$1/root
    mkdir -p "$root"/{bin,dev,etc,home,proc,root,run,sys,tmp,usr/bin,usr/sbin,var/log,var/www}
    chmod 755 "$root"
    chmod 700 "$root/root"
    chmod 1777 "$root/tmp"
    ln -s bin "$root/sbin"
    install -m 755 "$busybox" "$root/bin/busybox"
    local applet
    # `init` is left out: a container without an init of its own gets a small one that reaps.
    "$busybox" --list | while read -r applet; do
        case $applet in busybox | init | linuxrc) continue ;; esac
        ln -s busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
    printf 'busybox\n' >"$root/var/www/index.html"
    tar -C "$root" --numeric-owner --owner=0 --group=0 --sort=name --mtime=@0 -cf "$2" .
}

# Runs in the new root file system after its packages are installed ($1: its path).
configure_debian() {
    cat <<'HOOK'
set -eu
root=$1
# The platform gives address, routes, name servers and host name; time and devices are the machine's.
for unit in systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service \
    systemd-resolved.service systemd-timesyncd.service systemd-udevd.service systemd-udevd-kernel.socket \
    systemd-udevd-control.socket systemd-udev-trigger.service systemd-modules-load.service systemd-pstore.service \
    systemd-remount-fs.service systemd-random-seed.service systemd-hwdb-update.service \
    systemd-sysctl.service systemd-firstboot.service systemd-machine-id-commit.service \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
    dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount kmod-static-nodes.service \
    getty.target console-getty.service e2scrub_reap.service e2scrub_all.timer fstrim.timer \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\nForwardToConsole=no\n' \
    >"$root/etc/systemd/journald.conf.d/container.conf"
# An empty machine-id gets its own at the first start, for each container.
: >"$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf" "$root/var/lib/dbus/machine-id"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log "$root"/var/log/apt
HOOK
}

debian_packages=systemd-sysv,iproute2,iputils-ping,procps,ca-certificates,busybox

# The URI of the machine's own mirror whose path ends in $1, else $2.
mirror() {
    local found
    found=$(find /etc/apt -maxdepth 2 \( -name '*.list' -o -name '*.sources' \) -exec \
        awk -v "path=/$1/?$" '
            $1 == "URIs:" && $2 ~ path { print $2; exit }
            $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ path) { print $i; exit } }' {} + 2>/dev/null | head -n 1)
    echo "${found:-$2}"
}

debian_sources() {
    echo "deb $(mirror debian http://deb.debian.org/debian) bookworm main"
    echo "deb $(mirror debian-security http://deb.debian.org/debian-security) bookworm-security main"
}

build_debian() {
    local hook=$1/configure
    configure_debian >"$hook"
    # In memory where there is enough: nothing of it is needed after a crash.
    local available
    available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
    mkdir "$1/tmp"
    # shellcheck disable=SC2016  # $1 and what follows are of the inner shell
    unshare --mount --propagation private -- bash -euc '
        work=$1 hook=$2 target=$3 available=$4 packages=$5
        shift 5
        if [ "$available" -gt 1500 ]; then
            mount -t tmpfs -o mode=755,size=1g tmpfs "$work/tmp"
        fi
        TMPDIR=$work/tmp mmdebstrap --mode=root --variant=minbase --format=tar --include="$packages" \
            --aptopt="Acquire::Languages \"none\"" --aptopt="Acquire::Retries \"3\"" \
            --aptopt="APT::Install-Recommends \"false\"" \
            --dpkgopt=force-unsafe-io \
            --dpkgopt="path-exclude=/usr/share/man/*" --dpkgopt="path-exclude=/usr/share/doc/*" \
            --dpkgopt="path-include=/usr/share/doc/*/copyright" \
            --dpkgopt="path-exclude=/usr/share/locale/*" --dpkgopt="path-exclude=/usr/share/info/*" \
            --dpkgopt="path-exclude=/usr/share/i18n/*" \
            --customize-hook="sh \"$hook\" \"\$1\"" \
            bookworm "$target" "$@"
    ' build "$1" "$hook" "$1/root.tar" "$available" "$debian_packages" "${sources[@]}" >"$1/log" 2>&1 || {
        tail -n 40 "$1/log" >&2
        fail "mmdebstrap failed"
    }
    zstd -q -1 -T0 --rm "$1/root.tar" -o "$2"
}

server_packages=systemd-sysv,dbus,tzdata,linux-image-cloud-amd64,initramfs-tools,kmod,runc,crun,conmon,catatonit
server_packages+=,nftables,iproute2,btrfs-progs,busybox-static,procps,ca-certificates,gcc,libc6-dev,libcap2-bin

# A virtual machine boots it: /boot/kernel, /boot/ramdisk. It runs what a second disk has as /run-tests at its root,
# and tells it at the serial console.
configure_server() {
    cat <<'HOOK'
set -eu
root=$1
cp "$root"/boot/vmlinuz-* "$root/boot/kernel"
cp "$root"/boot/initrd.img-* "$root/boot/ramdisk"
cat >"$root/etc/systemd/system/run-tests.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh -c "mkdir -p /mnt/tests && mount /dev/vdb /mnt/tests && exec /mnt/tests/run-tests"
ExecStopPost=/bin/sh -c "[ \"$EXIT_CODE\" = killed ] || systemctl --no-block poweroff"
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS0
Environment=HOME=/root
[Install]
WantedBy=default.target
UNIT
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../run-tests.service "$root/etc/systemd/system/default.target.wants/"
ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
for unit in getty.target serial-getty@.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    fstrim.timer e2scrub_all.timer e2scrub_reap.service systemd-pstore.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
echo server >"$root/etc/hostname"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/apt
HOOK
}

build_server() {
    configure_server >"$1/configure"
    mkdir "$1/tmp"
    # shellcheck disable=SC2016  # $1 and what follows are of the inner shell
    unshare --mount --propagation private -- bash -euc '
        work=$1 target=$2 packages=$3
        shift 3
        mount -t tmpfs -o mode=755,size=2g tmpfs "$work/tmp"
        TMPDIR=$work/tmp mmdebstrap --mode=root --variant=minbase --format=directory --include="$packages" \
            --aptopt="Acquire::Languages \"none\"" --aptopt="Acquire::Retries \"3\"" \
            --aptopt="APT::Install-Recommends \"false\"" --dpkgopt=force-unsafe-io \
            --dpkgopt="path-exclude=/usr/share/man/*" --dpkgopt="path-exclude=/usr/share/doc/*" \
            --dpkgopt="path-exclude=/usr/share/locale/*" --dpkgopt="path-exclude=/usr/share/info/*" \
            --customize-hook="sh \"$work/configure\" \"\$1\"" \
            bookworm "$work/tmp/root" "$@"
        truncate -s 4G "$target"
        mke2fs -q -t ext4 -d "$work/tmp/root" "$target"
    ' build "$1" "$2" "$server_packages" "${sources[@]}" >"$1/log" 2>&1 || {
        tail -n 40 "$1/log" >&2
        fail "the server cannot be made"
    }
}

case ${1:-} in
busybox)
    busybox=$(command -v busybox) || fail "busybox is not installed: run scripts/setup.sh"
    ! ldd "$busybox" >/dev/null 2>&1 || fail "$busybox is not static: install busybox-static"
    kept busybox tar "$({ sha256sum <"$busybox"; declare -f build_busybox; } | hash_of)" build_busybox
    ;;
debian/12)
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: run scripts/setup.sh"
    mapfile -t sources < <(debian_sources)
    kept debian-12 tar.zst \
        "$({ declare -f build_debian configure_debian; echo "$debian_packages ${sources[*]}"; } | hash_of)" build_debian
    ;;
server)
    command -v mmdebstrap >/dev/null || fail "mmdebstrap is not installed: run scripts/setup.sh"
    mapfile -t sources < <(debian_sources)
    kept server ext4 \
        "$({ declare -f build_server configure_server; echo "$server_packages ${sources[*]}"; } | hash_of)" build_server
    ;;
*) fail "usage: images.sh busybox|debian/12|server" ;;
esac
