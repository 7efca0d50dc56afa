#!/usr/bin/env bash
# A whole cluster on one machine, for development, the demonstration and the black-box tests: a control
# plane, and servers that are network namespaces, each with its own agent, state, btrfs pool, cgroup and
# address range.
#
#   NODES=3 cluster.sh up    starts it and writes <folder>/env to source
#   cluster.sh down          ends it and removes everything of it; also after a crash, also twice
#
# Several clusters at once differ in:
#   HOODY_CLUSTER        name, in names of namespaces, links and cgroups         (hoody)
#   HOODY_CLUSTER_INDEX  0 to 14, in addresses and id ranges                     (0)
#   HOODY_CLUSTER_DIR    folder for state, logs and env                          (.dev of this checkout)
# and take:
#   HOODY_BIN_DIR        folder with the programs                                (target/debug)
#   HOODY_HTTP_PORT      port of the API on 127.0.0.1; 0: a free one             (8080, or a free one)
#   HOODY_POOL_SIZE      size of each pool's sparse file                         (10G)
#   HOODY_IMAGES         images to import                                        (busybox debian/12)
# HOODY_… settings of the control plane, for example HOODY_DATABASE_URL, pass through.
#
#   host                                        namespace <name>-<n>
#   lo 198.18.<i>.1  control plane              default route, agent
#   <name>-<n> 198.18.<i>.<4n+1>/30 ─── veth ─── up0 198.18.<i>.<4n+2>/30
#   route 10.<100+10i+n>.0.0/16 ──────────────▶ containers
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
name=${HOODY_CLUSTER:-hoody}
index=${HOODY_CLUSTER_INDEX:-0}
dir=${HOODY_CLUSTER_DIR:-$root/.dev}
bin=${HOODY_BIN_DIR:-$root/target/debug}
nodes=${NODES:-1}
pool_size=${HOODY_POOL_SIZE:-10G}
images=${HOODY_IMAGES:-busybox debian/12}
address=198.18.$index.1
node_port=7443
max_nodes=9
# Host ids of one server: room for 300 containers of 65,536.
ids_per_node=19660800

fail() {
    echo "cluster.sh: $*" >&2
    exit 1
}

say() {
    printf '%s %s\n' "$(date +%T)" "$*"
}

[ "$(id -u)" = 0 ] || fail "namespaces, mounts and containers need root: run it as root"
[[ $name =~ ^[a-z][a-z0-9]{0,7}$ ]] || fail "HOODY_CLUSTER is 1 to 8 lowercase letters and digits, beginning with a letter"
[[ $index =~ ^([0-9]|1[0-4])$ ]] || fail "HOODY_CLUSTER_INDEX is 0 to 14"
[[ $nodes =~ ^[1-$max_nodes]$ ]] || fail "NODES is 1 to $max_nodes"
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

# until_true <seconds> <what> <command …>: waits for a condition.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || {
            echo "cluster.sh: gave up waiting until $what" >&2
            return 1
        }
        sleep 0.1
    done
}

# ---- processes -------------------------------------------------------------------------------------

# When a process started, in the kernel's ticks; nothing where it has ended, reaped or not.
started_at() {
    # Fields 3 and 22 of /proc/<pid>/stat; the second may contain anything, so begin after it.
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'
}

# spawn <name> <command …>: starts a process that outlives this script; its pid and start time are recorded.
spawn() {
    local process=$1
    shift
    setsid -- "$@" </dev/null >>"$dir/$process.log" 2>&1 &
    local pid=$!
    echo "$pid $(started_at "$pid")" >"$dir/$process.pid"
}

# The recorded pid, if that process still runs (pids are given to others sooner or later).
pid_of() {
    local pid start
    read -r pid start 2>/dev/null <"$dir/$1.pid" || return 1
    [ -n "$start" ] && [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

is_running() { pid_of "$1" >/dev/null; }
is_gone() { ! pid_of "$1" >/dev/null; }

ask_to_end() {
    local pid
    ! pid=$(pid_of "$1") || kill -TERM "$pid" 2>/dev/null || true
}

stop_process() {
    local pid
    ask_to_end "$1"
    if pid=$(pid_of "$1"); then
        if ! until_true 25 "$1 ends" is_gone "$1"; then
            kill -KILL "$pid" 2>/dev/null || true
            until_true 10 "$1 is killed" is_gone "$1"
        fi
    fi
    rm -f "$dir/$1.pid"
}

# ---- one server ------------------------------------------------------------------------------------

namespace() { echo "$name-$1"; }
run_dir() { echo "/run/$name-node-$1"; }
cgroup() { echo "$name-node-$1"; }
node_dir() { echo "$dir/node-$1"; }
cidr() { echo "10.$((100 + 10 * index + $1)).0.0/16"; }
gateway_of() { echo "198.18.$index.$((4 * $1 + 1))"; }
address_of() { echo "198.18.$index.$((4 * $1 + 2))"; }

make_network() {
    local n=$1 ns host
    ns=$(namespace "$n") host=$name-$n
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip link add "$host" type veth peer name up0 netns "$ns"
    ip addr add "$(gateway_of "$n")/30" dev "$host"
    ip link set "$host" up
    ip -n "$ns" addr add "$(address_of "$n")/30" dev up0
    ip -n "$ns" link set up0 up
    ip -n "$ns" route add default via "$(gateway_of "$n")"
    ip route add "$(cidr "$n")" via "$(address_of "$n")" dev "$host"
}

make_pool() {
    local n=$1 folder
    folder=$(node_dir "$n")
    mkdir -p "$folder/pool" "$folder/state"
    chmod 700 "$folder" "$folder/pool" "$folder/state"
    truncate -s "$pool_size" "$folder/pool.img"
    # It notes its defaults on standard error.
    mkfs.btrfs -q -f "$folder/pool.img" >"$folder/mkfs.log" 2>&1 || fail "mkfs.btrfs: $(<"$folder/mkfs.log")"
    mount -t btrfs -o loop,nosuid,nodev,noatime "$folder/pool.img" "$folder/pool"
}

configure_agent() {
    local n=$1 folder
    folder=$(node_dir "$n")
    mkdir -m 700 "$(run_dir "$n")"
    cat >"$folder/agent.toml" <<TOML
state_dir = "$folder/state"
run_dir = "$(run_dir "$n")"
pool = "$folder/pool"
node_cidr = "$(cidr "$n")"
cgroup_parent = "/$(cgroup "$n")"
first_id = $(((1 + 10 * index + n) * ids_per_node))
TOML
}

# Only the network differs from the host's: mounts are made where the next agent finds them.
agent() {
    local n=$1
    shift
    nsenter --net="/run/netns/$(namespace "$n")" -- "$bin/hoody-agent" --config "$(node_dir "$n")/agent.toml" "$@"
}

start_agent() {
    local n=$1
    spawn "agent-$n" nsenter --net="/run/netns/$(namespace "$n")" -- \
        "$bin/hoody-agent" --config "$(node_dir "$n")/agent.toml" run
}

# ---- the control plane's API -----------------------------------------------------------------------

# call <method> <path> [body]: as the operator; prints the answer's data.
call() {
    local answer
    answer=$(curl -sS --max-time 30 -X "$1" "$base_url$2" -H "Authorization: Bearer ${token:-}" \
        ${3:+-H 'Content-Type: application/json' --data "$3"}) || return 1
    jq -e -c 'if .success then .data else error(.message + " " + (.error.details // {} | tostring)) end' <<<"$answer"
}

log_in() {
    call POST /api/v1/users/auth/login "$(jq -nc --arg u "$1" --arg p "$2" '{username: $u, password: $p}')" |
        jq -er .token
}

is_ready() { curl -sf --max-time 3 -o /dev/null "$base_url/readyz"; }
is_ready_or_dead() { is_ready || is_gone control-plane; }
is_online() { [ "$(call GET "/api/v1/admin/servers/$1" 2>/dev/null | jq '(.server // .).online')" = true ]; }
is_online_or_dead() { is_online "$1" || is_gone "agent-$2"; }

control_plane() {
    HOODY_DATA_DIR=$dir/control-plane "$bin/hoody-control-plane" "$@"
}

create_user() {
    local user=$1 password=$2
    shift 2
    control_plane admin create-user "$user" --password-stdin "$@" <<<"$password"
}

free_port() {
    local port
    for port in "$@" $(shuf -i 20000-32000 -n 20); do
        if [ "$port" != 0 ] && [ -z "$(ss -Hltn "sport = :$port")" ]; then
            echo "$port"
            return
        fi
    done
    fail "no free port"
}

random_password() { od -An -N 16 -t x1 /dev/urandom | tr -d ' \n'; }

# ---- up --------------------------------------------------------------------------------------------

up() {
    if is_running control-plane && [ -f "$dir/env" ]; then
        say "the cluster is up already; source $dir/env, or end it with: make down"
        return
    fi
    local program
    for program in hoody-control-plane hoody-agent; do
        [ -x "$bin/$program" ] || fail "$bin/$program is not there: run cargo build --workspace, or make up"
    done
    down
    # Whatever fails from here on is taken down again.
    trap abandon EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$dir"
    echo "$nodes" >"$dir/nodes"

    local image file options admin_password password owner token n server servers=()
    mkdir -m 700 "$dir/control-plane"
    for image in $images; do
        file=$("$root/scripts/images.sh" "$image")
        options=()
        # systemd is asked to halt by a signal of its own.
        [ "${image%%/*}" != debian ] || options=(--description "Debian ${image#*/} with systemd" --stop-signal SIGRTMIN+3)
        [ "$image" != busybox ] || options=(--description "BusyBox: one static program")
        control_plane image import "$image" "$file" "${options[@]}" >/dev/null
        say "image $image imported"
    done

    ip addr add "$address/32" dev lo
    local port
    port=$(free_port "${HOODY_HTTP_PORT:-8080}")
    base_url=http://127.0.0.1:$port
    admin_password=$(random_password) password=$(random_password)
    create_user operator "$admin_password" --admin >/dev/null
    owner=$(create_user demo "$password")
    HOODY_DATA_DIR=$dir/control-plane HOODY_HTTP_ADDRESS=127.0.0.1:$port HOODY_PUBLIC_URL=$base_url \
        HOODY_NODE_ADDRESS=$address:$node_port HOODY_NODE_PUBLIC_ADDRESSES=$address:$node_port \
        HOODY_METRICS_ADDRESS=$address:9464 \
        spawn control-plane "$bin/hoody-control-plane" serve
    until_true 30 "the control plane answers" is_ready_or_dead
    is_running control-plane || fail "the control plane ended"
    say "control plane at $base_url (API documentation: $base_url/docs)"

    token=$(log_in operator "$admin_password")
    for n in $(seq "$nodes"); do
        make_network "$n"
        make_pool "$n"
        configure_agent "$n"
        server=$(call POST /api/v1/admin/servers "$(jq -nc --arg n "$name-$n" --arg o "$owner" '{name: $n, owner: $o}')" |
            jq -er '(.server // .).id')
        call POST "/api/v1/admin/servers/$server/join-token" | jq -er .token | agent "$n" join - >>"$dir/agent-$n.log"
        start_agent "$n"
        servers+=("$server")
    done
    for n in $(seq "$nodes"); do
        until_true 30 "server $n is online" is_online_or_dead "${servers[n - 1]}" "$n"
        is_running "agent-$n" || fail "the agent of server $n ended"
        say "server $n online: ${servers[n - 1]}, containers in $(cidr "$n")"
    done

    (
        umask 077
        cat >"$dir/env" <<ENV
export HOODY_BASE_URL=$base_url
export HOODY_TOKEN=$(log_in demo "$password")
export HOODY_USERNAME=demo
export HOODY_PASSWORD=$password
export HOODY_ADMIN_USERNAME=operator
export HOODY_ADMIN_PASSWORD=$admin_password
export HOODY_SERVER_IDS="${servers[*]}"
ENV
    )
    trap - EXIT INT TERM
    say "up: source $dir/env"
}

# What is half up is shown and taken down.
abandon() {
    local log code=$?
    trap - EXIT
    for log in "$dir"/*.log; do
        [ -s "$log" ] || continue
        echo "---- the end of $log" >&2
        tail -n 30 "$log" >&2
    done
    down || true
    exit $((code == 0 ? 1 : code))
}

# ---- down ------------------------------------------------------------------------------------------

# Ends every process of a cgroup in every hierarchy, and removes the cgroup.
remove_cgroup() {
    local parent=$1 folder group pid
    for folder in "/sys/fs/cgroup/$parent" /sys/fs/cgroup/*/"$parent"; do
        [ -d "$folder" ] || continue
        until_true 15 "cgroup $folder is empty" remove_cgroup_folder "$folder"
    done
}

remove_cgroup_folder() {
    local group pid
    while read -r group; do
        # What is frozen does not die of a signal (cgroup v1).
        [ ! -w "$group/freezer.state" ] || echo THAWED >"$group/freezer.state" || true
        while read -r pid; do
            # 0 stands for a process outside of what we see: not ours.
            [ "$pid" -le 1 ] || kill -KILL "$pid" 2>/dev/null || true
        done < <(cat "$group/cgroup.procs" 2>/dev/null)
        rmdir "$group" 2>/dev/null || true
    done < <(find "$1" -depth -type d 2>/dev/null)
    [ ! -d "$1" ]
}

# Ends what runs in a server's network namespace: the agent, and the containers' monitors.
clear_namespace() {
    local pid
    for pid in $(ip netns pids "$1" 2>/dev/null); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    [ -z "$(ip netns pids "$1" 2>/dev/null)" ]
}

# Mount points at or below a folder, the innermost last.
mounts_below() {
    awk -v folder="$1" '$5 == folder || index($5, folder "/") == 1 { print $5 }' /proc/self/mountinfo
}

unmount_below() {
    local point
    while read -r point; do
        # Spaces and the like are written as octal escapes.
        umount "$(printf '%b' "$point")" 2>/dev/null || true
    done < <(mounts_below "$1" | tac)
    [ -z "$(mounts_below "$1")" ]
}

no_link() { ! ip link show "$1" >/dev/null 2>&1; }

remove_node() {
    local n=$1 ns folder path
    ns=$(namespace "$n")
    stop_process "agent-$n"
    remove_cgroup "$(cgroup "$n")"
    if [ -e "/run/netns/$ns" ]; then
        until_true 15 "namespace $ns is empty" clear_namespace "$ns"
    fi
    for folder in "$(run_dir "$n")" "$(node_dir "$n")"; do
        until_true 15 "$folder has no mounts" unmount_below "$folder"
    done
    # A crash between making the loop device and mounting it leaves the device.
    path=$(node_dir "$n")/pool.img
    losetup -j "$path" 2>/dev/null | cut -d : -f 1 | xargs -r -n 1 losetup -d
    [ ! -e "/run/netns/$ns" ] || ip netns del "$ns"
    # The link goes with the namespace, a moment later; without a namespace it has to be told.
    ip link del "$name-$n" 2>/dev/null || true
    until_true 10 "link $name-$n is gone" no_link "$name-$n"
    rm -rf --one-file-system "$(run_dir "$n")" "$(node_dir "$n")"
}

down() {
    local n was=0
    [ ! -f "$dir/nodes" ] || was=$(<"$dir/nodes")
    [[ $was =~ ^[1-$max_nodes]$ ]] || was=$max_nodes
    # All at once, so that they end beside each other.
    ask_to_end control-plane
    for n in $(seq "$was"); do
        ask_to_end "agent-$n"
    done
    stop_process control-plane
    for n in $(seq "$was"); do
        remove_node "$n"
    done
    ! ip -o addr show dev lo | grep -q " $address/32 " || ip addr del "$address/32" dev lo
    rm -rf --one-file-system "$dir/control-plane"
    rm -f "$dir/env" "$dir/nodes" "$dir"/control-plane.log "$dir"/agent-?.log
    rmdir "$dir" 2>/dev/null || true
}

case ${1:-} in
up) up ;;
down) down ;;
*) fail "usage: [NODES=n] cluster.sh up|down" ;;
esac
