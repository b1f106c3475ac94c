#!/usr/bin/env bash
# Three nodes and a redis-server of their own on this machine, until Ctrl-C: `make hello-cluster`.
#
# Everything they keep lies under target/hello-cluster, and is made anew each time.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "hello-cluster: $*" >&2; exit 1; }
command -v redis-server >/dev/null || die "there is no redis-server: apt-get install redis-server"

home=target/hello-cluster
redis_port=6390
pids=()
redis=
# Redis goes last: nodes that end give their leases back.
end() {
    trap - EXIT
    trap '' INT TERM
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    [ -z "$redis" ] || kill "$redis" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap end EXIT
trap 'exit 0' INT TERM

rm -rf "$home"
mkdir -p "$home"
redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$home" --appendonly yes --maxmemory-policy noeviction \
    >"$home/redis.log" 2>&1 &
redis=$!
for _ in $(seq 50); do
    kill -0 "$redis" 2>/dev/null || die "redis-server did not start, see $home/redis.log"
    redis-cli -p "$redis_port" ping >/dev/null 2>&1 && break
    sleep 0.1
done
for n in 1 2 3; do
    target/release/throng --redis "redis://127.0.0.1:$redis_port" --listen "127.0.0.1:888$n" --api "127.0.0.1:818$n" \
        --data-dir "$home/node$n" >"$home/node$n.ready" 2>"$home/node$n.log" &
    pids+=($!)
done
for n in 1 2 3; do
    for _ in $(seq 100); do
        [ -s "$home/node$n.ready" ] && break
        kill -0 "${pids[n - 1]}" 2>/dev/null || die "node $n did not start, see $home/node$n.log"
        sleep 0.1
    done
    echo "node $n (pid ${pids[n - 1]}): $(cat "$home/node$n.ready")"
done
token() { target/release/throng token --user "$1" --data-dir "$home/node1"; }
cat <<TEXT

alice, on node 1: ws://127.0.0.1:8881/websocket?token=$(token alice)
bob, on node 2:   ws://127.0.0.1:8882/websocket?token=$(token bob)

redis-cli -p $redis_port    shows what they share; Ctrl-C ends all of it.
TEXT
wait "${pids[@]}" || true
