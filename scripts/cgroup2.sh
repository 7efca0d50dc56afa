#!/usr/bin/env bash
# Tests on a server such as the field has: Debian 12 with its own kernel and systemd as the first program, where cgroup
# v2 holds every controller. It is a virtual machine; nothing of this one is changed.
#
#   cgroup2.sh              everything below
#   cgroup2.sh runtime      the runtime with runc, and with crun; commands on the server
#   cgroup2.sh installed    the product installed by its own script, used through the API, rebooted (tests/tests/installed.rs)
#
# The machine is emulated, some twenty times slower than this one: nested KVM differs too much from machine to machine,
# and some refuse an ordinary kernel. HOODY_KVM=1 takes /dev/kvm all the same.
set -euo pipefail

fail() {
    echo "cgroup2.sh: $*" >&2
    exit 1
}

root=$(cd "$(dirname "$0")/.." && pwd)
# Seconds.
limit=2400
parts=("$@")
[ $# -gt 0 ] || parts=(runtime installed)

for program in qemu-system-x86_64 debugfs mke2fs; do
    PATH=$PATH:/sbin:/usr/sbin command -v "$program" >/dev/null || fail "$program is missing: run scripts/setup.sh cgroup2"
done
server=$("$root/scripts/images.sh" server)
"$root/scripts/images.sh" busybox >/dev/null

# Programs and tests, as `make test` builds them.
(cd "$root" && cargo build -q --workspace --bins)
built=$(cd "$root" && cargo test -q --workspace --no-run --message-format=json --lib --test runtime --test installed |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
# test <beginning of its name>: its path.
test_program() {
    grep "/deps/$1-[0-9a-f]*\$" <<<"$built" | tail -n 1
}
runtime=$(test_program runtime)
units=$(test_program hoody_agent)
installed=$(test_program installed)
for program in "$runtime" "$units" "$installed"; do
    [ -x "$program" ] || fail "a test program was not built"
done
programs=$(dirname "$(dirname "$runtime")")

# The second disk: everything at the paths that it has here, for tests know them.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
disk=$work/disk
put() {
    mkdir -p "$disk$(dirname "$1")"
    cp -a "$1" "$disk$1"
}
for file in "$programs"/hoody-{agent,control-plane,proxy} "$runtime" "$units" "$installed"; do
    put "$file"
    # Debug information is most of it.
    strip --strip-debug "$disk$file"
done
mkdir -p "$disk$root/node-agent/tests/runtime" "$disk$root/docs" "$disk$(dirname "$programs")/tmp"
for file in "$root"/{scripts,systemd} "$root/docs/operations.md" "$root/node-agent/tests/runtime/probe.c"; do
    put "$file"
done
cat >"$disk/run-tests" <<RUN
#!/bin/bash
# The console is no terminal: results are looked for in what it prints.
export RUST_BACKTRACE=0 RUST_TEST_THREADS=1 TERM=dumb
for top in $(printf '%s\n' "$root" "$programs" | cut -d/ -f2 | sort -u | tr '\n' ' '); do
    mkdir -p "/\$top" && mount --bind "/mnt/tests/\$top" "/\$top"
done
cd $root/node-agent
ok=true
part() {
    echo "cgroup2: \$*"
    "\$@" || { ok=false; echo "cgroup2: FAILED \$*"; }
}
if [ -e /var/lib/hoody-installed.json ]; then
    part $installed --ignored --nocapture then_
else
    echo "cgroup2: Linux \$(uname -r), controllers: \$(cat /sys/fs/cgroup/cgroup.controllers)"
    echo "cgroup2: \$(runc --version | head -n 1), \$(crun --version | head -n 1)"
    case "${parts[*]}" in *runtime*)
        part $runtime --ignored unified
        export HOODY_TEST_RUNTIME=crun
        part $runtime --ignored unified
        part $runtime crun lifecycle attended exec
        unset HOODY_TEST_RUNTIME
        part $units commands::tests
        ;;
    esac
    case "${parts[*]}" in *installed*)
        part $installed --ignored --nocapture first_
        echo "cgroup2: --- what the services said"
        journalctl --no-pager -u 'hoody-*' -n 60
        ;;
    esac
fi
\$ok && echo "cgroup2: all passed"
# In order, also what systemd writes while it ends.
sync
RUN
chmod +x "$disk/run-tests"
truncate -s 2G "$work/tests.ext4"
mke2fs -q -t ext4 -d "$disk" "$work/tests.ext4"
rm -rf "$disk"
for file in kernel ramdisk; do
    debugfs -R "dump /boot/$file $work/$file" "$server" 2>/dev/null
    [ -s "$work/$file" ] || fail "the server has no /boot/$file"
done

accelerator=(-accel "tcg,thread=multi" -cpu max)
[ -z "${HOODY_KVM:-}" ] || accelerator=(-accel kvm -cpu host)
echo "cgroup2.sh: booting" >&2
started=$SECONDS
# Changes to the disks go with the machine.
timeout "$limit" qemu-system-x86_64 "${accelerator[@]}" -m 3G -smp 2 -nographic -nic none \
    -kernel "$work/kernel" -initrd "$work/ramdisk" -append "root=/dev/vda rw console=ttyS0 panic=30 quiet" \
    -drive "file=$server,format=raw,if=virtio,snapshot=on" \
    -drive "file=$work/tests.ext4,format=raw,if=virtio,snapshot=on" </dev/null |
    tr -d '\r' | tee "$work/log" || fail "the virtual machine did not end within $limit s"
echo "cgroup2.sh: ended after $((SECONDS - started)) s" >&2
! grep -q 'cgroup2: FAILED' "$work/log" || fail "tests failed in the virtual machine"
# The second boot's, where there is one, says so at the end.
grep -q 'cgroup2: all passed' "$work/log" || fail "the virtual machine ended before its tests"
[[ ! "${parts[*]}" =~ installed ]] || grep -q 'crun runs containers' "$work/log" || fail "the server did not come back"
grep -q 'test result: ok. [1-9]' "$work/log" || fail "no test ran in the virtual machine"
