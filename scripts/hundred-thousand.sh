#!/usr/bin/env bash
# One node process holds 100 000 authenticated connections, with heartbeats, and one broadcast reaches all of them.
#
#   CLIENTS=200000 scripts/hundred-thousand.sh      another number
#
# The clients come slowly enough (40 s for 100 000) that the first ones would be closed (4408) before the last
# arrive, if heartbeats did not work: pings go out after 10 s of silence, and 35 s of silence end a connection.
set -euo pipefail
cd "$(dirname "$0")/.."
unset "${!THRONG_@}" # the node and the clients share the secret that this node makes, and nothing else

clients=${CLIENTS:-100000}
rate=$((clients / 40 + 1))
throng=target/release/throng
load=target/release/throng-loadtest
node_pid=
work=

die() { echo "hundred-thousand: $*" >&2; exit 1; }

main() {
    for program in "$throng" "$load"; do
        [ -x "$program" ] || die "$program is not there: make hundred-thousand builds it"
    done
    work=$(mktemp -d)
    trap clean_up EXIT
    start_node
    local before after
    before=$(resident_kb)
    "$load" broadcast --url "$ws" --api "$api" --secret-file "$work/data/token.secret" \
        --connections "$clients" --rate "$rate" --messages 1 --secs 120 &
    # The report comes at the end, when the clients are gone: what they cost is seen while they are there.
    local load_pid=$! verdict=0
    after=$before
    while kill -0 "$load_pid" 2>/dev/null; do
        local now
        now=$(resident_kb)
        [ "$now" -gt "$after" ] && after=$now
        sleep 1
    done
    wait "$load_pid" || verdict=$?
    echo "node         $reactors reactors, hard nofile $(ulimit -Hn), resident ${before} kB before, ${after} kB at most"
    return "$verdict"
}

start_node() {
    # What one reactor's descriptor table holds, less its reserve and the 5 % that the default cap leaves free.
    local limit per_reactor
    limit=$(ulimit -Hn)
    [ "$limit" = unlimited ] && limit=1048576
    per_reactor=$(((limit - 256) * 95 / 100))
    [ "$per_reactor" -gt 0 ] || die "a hard nofile of $limit is too little"
    reactors=$(((clients + per_reactor - 1) / per_reactor))
    [ "$reactors" -ge "$(nproc)" ] || reactors=$(nproc)
    "$throng" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 --data-dir "$work/data" --reactors "$reactors" \
        --ping-secs 10 --idle-secs 35 --drain-secs 0 >"$work/out" 2>"$work/log" </dev/null &
    node_pid=$!
    local ready
    for _ in $(seq 100); do
        ready=$(grep -m 1 '^ready ' "$work/out" || true)
        [ -n "$ready" ] && break
        kill -0 "$node_pid" 2>/dev/null || { cat "$work/log" >&2; die "the node ended before it was ready"; }
        sleep 0.1
    done
    [[ $ready =~ ws=([^ ]+)\ api=([^ ]+) ]] || { cat "$work/log" >&2; die "the node was not ready within 10 s"; }
    ws=${BASH_REMATCH[1]}
    api=${BASH_REMATCH[2]}
}

resident_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$node_pid/status" || die "the node is gone"; }

clean_up() {
    set +e
    if [ -n "$node_pid" ]; then
        kill "$node_pid" 2>/dev/null
        for _ in $(seq 50); do
            kill -0 "$node_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$node_pid" 2>/dev/null
        wait "$node_pid" 2>/dev/null
    fi
    [ -n "$work" ] && rm -rf "$work"
}

main
