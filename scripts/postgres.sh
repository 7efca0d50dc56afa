#!/usr/bin/env bash
# A throwaway PostgreSQL server for tests: on this machine only, on a free port, without fsync.
#
#   postgres.sh start   starts it and prints its URL (the URL of the running one, where there is one)
#   postgres.sh stop    stops it and removes its data
#
# State is in $HOODY_POSTGRES_DIR, by default .dev/postgres of this checkout; its data lies in memory-backed
# or temporary storage, because user postgres must reach it.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
state=${HOODY_POSTGRES_DIR:-$root/.dev/postgres}

fail() {
    echo "postgres.sh: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "run it as root: the server itself is started as user postgres"

programs() {
    local newest
    newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -type d 2>/dev/null | sort -V | tail -n 1)
    [ -x "${newest:-/nonexistent}/bin/postgres" ] || fail "PostgreSQL is not installed: run scripts/setup.sh"
    echo "$newest/bin"
}

as_postgres() {
    (cd / && runuser -u postgres -- "$@")
}

is_running() {
    [ -f "$state/data" ] && [ -f "$state/url" ] || return 1
    local data pid
    data=$(<"$state/data")
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 1
    # The pid may have been given to another process since.
    [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$data" ]
}

free_port() {
    local low high port
    read -r low high </proc/sys/net/ipv4/ip_local_port_range
    # Below the range from which the kernel gives out ports by itself.
    high=$low low=$((low > 20000 ? 20000 : 5500))
    for _ in $(seq 100); do
        port=$((low + (RANDOM * 32768 + RANDOM) % (high - low)))
        if [ -z "$(ss -Hltn "sport = :$port")" ]; then
            echo "$port"
            return
        fi
    done
    fail "no free port"
}

start() {
    if is_running; then
        cat "$state/url"
        return
    fi
    stop
    local bin data port
    bin=$(programs)
    mkdir -p "$state"
    data=$(mktemp -d /tmp/hoody-postgres.XXXXXX)
    # Recorded first, so that stop finds it whatever happens next.
    echo "$data" >"$state/data"
    chown postgres: "$data"
    as_postgres "$bin/initdb" --pgdata "$data" --username postgres --auth trust --encoding UTF8 \
        --locale C --no-sync >"$state/initdb.log" 2>&1 || {
        cat "$state/initdb.log" >&2
        fail "initdb failed"
    }
    cat >>"$data/postgresql.conf" <<SETTINGS
listen_addresses = '127.0.0.1'
unix_socket_directories = '$data'
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 400
shared_buffers = 64MB
SETTINGS
    for attempt in 1 2 3; do
        port=$(free_port)
        if as_postgres "$bin/pg_ctl" --pgdata "$data" --options "-p $port" --log "$data/server.log" \
            --timeout 30 --wait start >"$state/start.log" 2>&1; then
            echo "postgres://postgres@127.0.0.1:$port/postgres" | tee "$state/url"
            return
        fi
        [ "$attempt" = 3 ] || echo "postgres.sh: not started on port $port, trying another" >&2
    done
    cat "$state/start.log" "$data/server.log" >&2 || true
    stop
    fail "the server did not start"
}

stop() {
    [ -f "$state/data" ] || return 0
    local bin data
    data=$(<"$state/data")
    case $data in
    /tmp/hoody-postgres.*) ;;
    *) fail "$state/data does not name a folder of mine: $data" ;;
    esac
    if is_running; then
        bin=$(programs)
        as_postgres "$bin/pg_ctl" --pgdata "$data" --mode immediate --timeout 30 --wait stop >/dev/null
    fi
    rm -rf "$data" "$state"
}

case ${1:-} in
start) start ;;
stop) stop ;;
*) fail "usage: postgres.sh start|stop" ;;
esac
