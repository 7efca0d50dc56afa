#!/usr/bin/env bash
# Runs kernel tests on a machine that has cgroup v2: those of the runtime (node-agent/tests/runtime/unified.rs) and of
# commands on the server (node-agent/src/commands/tests.rs). It is a virtual one, with Debian's cloud kernel and an
# initial RAM disk of busybox, runc, conmon and the test programs, emulated: nested KVM differs too much from machine
# to machine. Arguments are names of the runtime's tests, and only those run then.
set -euo pipefail

fail() {
    echo "cgroup2.sh: $*" >&2
    exit 1
}

root=$(cd "$(dirname "$0")/.." && pwd)
cache=/var/cache/hoody/cgroup2
# Seconds; emulation is some twenty times slower than the machine itself.
limit=900
tests=("${@:-unified}")

for program in qemu-system-x86_64 busybox runc conmon catatonit cc; do
    command -v "$program" >/dev/null || fail "$program is missing: run scripts/setup.sh cgroup2"
done

# The kernel, from the package, without installing it here.
kernel=$(find "$cache" -name 'vmlinuz-*' 2>/dev/null | head -n 1)
if [ -z "$kernel" ]; then
    mkdir -p "$cache"
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$package" ] || fail "no package linux-image-cloud-amd64: run apt-get update"
    download=$(mktemp -d)
    (cd "$download" && apt-get -q download "$package" >/dev/null 2>&1) || fail "$package cannot be downloaded"
    dpkg-deb --fsys-tarfile "$download/$package"*.deb | tar -x -C "$cache" --strip-components=2 --wildcards './boot/vmlinuz-*'
    rm -r "$download"
    kernel=$(find "$cache" -name 'vmlinuz-*' | head -n 1)
fi

# built <beginning of the program's name> <cargo's choice of it>: its path.
built() {
    local name=$1
    shift
    (cd "$root" && cargo test -q -p hoody-agent "$@" --no-run --message-format=json) |
        sed -n "s/.*\"executable\":\"\([^\"]*\/$name-[^\"]*\)\".*/\1/p" | tail -n 1
}
program=$(built runtime --test runtime)
[ -x "$program" ] || fail "the test program was not built"
units=$(built hoody_agent --lib)
[ -x "$units" ] || fail "the unit tests were not built"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
disk=$work/root
mkdir -p "$disk"/{bin,sbin,usr/bin,usr/sbin,proc,sys,dev,tmp,run,etc,var/log,root,lib64}
# Programs at their places, with the libraries that they load.
put() {
    local file=$1 library
    mkdir -p "$disk$(dirname "$file")"
    cp -L "$file" "$disk$file"
    # A static one has none.
    { ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r library; do
        mkdir -p "$disk$(dirname "$library")"
        [ -e "$disk$library" ] || cp -L "$library" "$disk$library"
    done
}
put "$(command -v runc)"
put "$(command -v conmon)"
put "$(command -v catatonit)"
put "$program"
put "$units"
# Debug information is most of it.
strip "$disk$program" "$disk$units"
cp "$(command -v busybox)" "$disk/bin/busybox"
"$disk/bin/busybox" --list | grep -v '^busybox$' | while read -r applet; do
    [ -e "$disk/bin/$applet" ] || ln -s busybox "$disk/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$disk/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$disk/etc/group"
# Where Debian has them.
ln -s /bin/busybox "$disk/usr/bin/env"
ln -s /bin/busybox "$disk/usr/bin/id"
# The tests build a small program with the C compiler; here it is built already.
cc -static -O1 -o "$disk/root/probe" "$root/node-agent/tests/runtime/probe.c"
# shellcheck disable=SC2016  # $4 is of that script
printf '#!/bin/sh\nexec cp /root/probe "$4"\n' >"$disk/usr/bin/cc"
temporary=$(dirname "$(dirname "$(dirname "$program")")")/tmp
mkdir -p "$disk$temporary" "$disk$root/node-agent"
# The first program of the machine: an initial RAM disk cannot be pivoted away from, so all of it is moved to a
# file system in memory first.
cat >"$disk/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t tmpfs -o mode=755,size=1g tmpfs /new
for each in /bin /sbin /usr /lib /lib64 /etc /root /tmp /run /var /work /opt /home /start; do
    [ -e "$each" ] && /bin/busybox cp -a "$each" /new/
done
/bin/busybox mkdir -p /new/proc /new/sys /new/dev
exec /bin/busybox switch_root /new /start
INIT
also=true
[ $# -gt 0 ] || also="$units --test-threads=1 commands::tests"
cat >"$disk/start" <<START
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin RUST_BACKTRACE=0 HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo "controllers: \$(cat /sys/fs/cgroup/cgroup.controllers)"
for controller in cpu memory pids io cpuset; do echo "+\$controller" >/sys/fs/cgroup/cgroup.subtree_control; done
ip link set lo up
mkdir -p $root/node-agent
cd $root/node-agent
$program --include-ignored --test-threads=1 ${tests[*]} && $also
echo "cgroup2: exit code \$?"
poweroff -f
START
chmod +x "$disk/init" "$disk/start" "$disk/usr/bin/cc"
# The workspace may lie anywhere: the first folder of its path goes along.
top=/$(cut -d/ -f2 <<<"$root")
sed -i "s#/work /opt#$top /opt#" "$disk/init"
(cd "$disk" && find . | cpio -o -H newc --quiet) | gzip -1 >"$work/initrd"

echo "cgroup2.sh: booting $(basename "$kernel")" >&2
timeout "$limit" qemu-system-x86_64 -accel tcg -cpu max -m 2G -smp 1 -nographic -no-reboot -nic none \
    -kernel "$kernel" -initrd "$work/initrd" -append "console=ttyS0 panic=-1 quiet" </dev/null |
    tr -d '\r' | tee "$work/log" || fail "the virtual machine did not end within $limit s"
grep -q '^cgroup2: exit code 0$' "$work/log" || fail "the tests failed in the virtual machine"
grep -q '^test result: ok. [1-9]' "$work/log" || fail "no test ran in the virtual machine"
