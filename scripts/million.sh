#!/usr/bin/env bash
# A million connections on this machine: one gateway process, one client process, then as far toward two million as
# memory allows. The report is written under bench/results. About a quarter of an hour; 24 GiB of memory.
#
#   scripts/million.sh --connections 200000 --toward 0      options of `throng-bench million`
#
# As root it raises what such a crowd asks of the kernel, and puts everything back at the end, however that comes.
# Otherwise it leaves the host as it is, and says what it would have raised.
set -euo pipefail
cd "$(dirname "$0")/.."
unset "${!THRONG_@}" # the clients know the secret of the node of this run, and nothing else counts

bench=target/release/throng-bench
report=bench/results/million-$(date -u +%Y%m%dT%H%MZ).md

# Both ends of two million connections are on this host: four million files. Clients come from many addresses, each with
# as many ports as there are. What waits for `accept` in a storm has room.
wanted=(
    "fs.file-max=5000000"
    "net.core.somaxconn=65535"
    "net.ipv4.ip_local_port_range=1024 65535"
)
kept=()

main() {
    [ -x "$bench" ] || { echo "million: $bench is not there: make million builds it" >&2; exit 1; }
    mkdir -p bench/results
    trap put_back EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    for setting in "${wanted[@]}"; do
        raise "${setting%%=*}" "${setting#*=}"
    done
    "$bench" million --out "$report" "$@"
    echo "million: the report is $report"
}

# Never lowers what is there.
raise() {
    local name=$1 value=$2 now
    now=$(sysctl -n "$name" | tr -s '\t ' ' ')
    is_more "$value" "$now" || return 0
    if sysctl -q -w "$name=$value" 2>/dev/null; then
        kept+=("$name=$now")
    else
        echo "million: $name stays $now; $value would be better (root may set it)" >&2
    fi
}

# A range of ports by how many they are, a number by itself.
is_more() {
    [ "$(size "$1")" -gt "$(size "$2")" ]
}

size() {
    local first=${1%% *} last=${1##* }
    [ "$first" = "$last" ] && echo "$first" || echo $((last - first))
}

put_back() {
    local setting
    for setting in "${kept[@]}"; do
        sysctl -q -w "$setting"
    done
}

main "$@"
