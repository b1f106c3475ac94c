#!/usr/bin/env bash
# Runs the original Autobahn suite against the echo endpoint and judges its report.
#
#   scripts/conformance.sh          starts target/release/throng (or $THRONG) and keeps the summary in tests/conformance
#   scripts/conformance.sh WS_URL   tests an echo server that runs already; nothing is kept
#
# The suite is a Python 2.7 program. It is installed once, into target/tools/autobahn, at pinned versions.
set -euo pipefail
cd "$(dirname "$0")/.."
unset "${!THRONG_@}" # a configuration in the environment is not what is tested

PYTHON2_VERSION=2.7.18
SUITE_SECS=600 # takes about 15 s; a server that hangs must not hang the build

suite=target/tools/autobahn
requirements=tests/conformance/requirements.txt
work=target/conformance
throng=${THRONG:-target/release/throng}
summary=tests/conformance/summary.md
node_pid=
data_dir=

die() { echo "conformance: $*" >&2; exit 1; }

main() {
    [ "$#" -le 1 ] || die "usage: scripts/conformance.sh [WS_URL]"
    install_suite
    rm -rf "$work"
    mkdir -p "$work"
    trap clean_up EXIT
    if [ "$#" -eq 1 ]; then
        run_suite "$1"
        judge
    else
        start_node
        run_suite "$echo_url"
        local verdict=0
        judge || verdict=$?
        cmp -s "$work/summary.md" "$summary" || cp "$work/summary.md" "$summary"
        return "$verdict"
    fi
}

install_suite() {
    # The stamp is written last, so an installation that was cut short is made anew.
    cmp -s "$requirements" "$suite/installed" && return
    local python
    python=$(find_python2)
    echo "conformance: installing the Autobahn suite with $("$python" --version 2>&1)"
    rm -rf "$suite"
    mkdir -p "$suite"
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONWARNINGS=ignore
    {
        # The last virtualenv that knows 2.7, kept out of that Python's own packages.
        "$python" -m pip install --quiet --target "$suite/virtualenv" 'virtualenv<20.22' &&
            PYTHONPATH="$suite/virtualenv" "$python" -m virtualenv --quiet "$suite/venv" &&
            "$suite/venv/bin/pip" install --quiet --requirement "$requirements"
    } >"$suite/install.log" 2>&1 || { tail -n 20 "$suite/install.log" >&2; die "the Autobahn suite could not be installed"; }
    cp "$requirements" "$suite/installed"
}

find_python2() {
    local candidate
    for candidate in "${PYTHON2:-}" "$(pyenv prefix "$PYTHON2_VERSION" 2>/dev/null || true)/bin/python2.7" \
        "$(command -v python2.7 || true)"; do
        if [ -n "$candidate" ] && "$candidate" -m pip --version >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    if command -v pyenv >/dev/null; then
        pyenv install --skip-existing "$PYTHON2_VERSION" >&2 || die "pyenv could not build Python $PYTHON2_VERSION"
        echo "$(pyenv prefix "$PYTHON2_VERSION")/bin/python2.7"
        return
    fi
    die "the Autobahn suite needs Python 2.7 with pip: install pyenv (it can build $PYTHON2_VERSION), or name one in PYTHON2"
}

start_node() {
    [ -x "$throng" ] || die "$throng is not there: make conformance builds it"
    data_dir=$(mktemp -d)
    "$throng" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 --echo-path /echo --data-dir "$data_dir" \
        >"$work/node.out" 2>"$work/node.log" </dev/null &
    node_pid=$!
    local ready
    for _ in $(seq 100); do
        ready=$(grep -m 1 '^ready ' "$work/node.out" || true)
        [ -n "$ready" ] && break
        kill -0 "$node_pid" 2>/dev/null || { cat "$work/node.log" >&2; die "the node ended before it was ready"; }
        sleep 0.1
    done
    [ -n "$ready" ] || { cat "$work/node.log" >&2; die "the node was not ready within 10 s"; }
    # ready ws=ws://127.0.0.1:PORT/websocket api=... node=...
    [[ $ready =~ ws=(wss?://[^/ ]+) ]] || die "no ws address in: $ready"
    echo_url=${BASH_REMATCH[1]}/echo
}

run_suite() {
    cat >"$work/spec.json" <<SPEC
{
  "outdir": "$PWD/$work/report",
  "servers": [{"agent": "throng", "url": "$1"}],
  "cases": ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
SPEC
    timeout "$SUITE_SECS" "$suite/venv/bin/wstest" -m fuzzingclient -s "$work/spec.json" >"$work/suite.log" 2>&1 </dev/null ||
        { tail -n 20 "$work/suite.log" >&2; die "the suite did not come to its end"; }
    [ -f "$work/report/index.json" ] || { tail -n 20 "$work/suite.log" >&2; die "the suite wrote no report"; }
}

judge() {
    local version verdict=0
    version=$(sed -n 's/^autobahntestsuite==/AutobahnTestSuite /p' "$requirements")
    python3 tests/conformance/judge.py "$work/report" "$version" >"$work/summary.md" || verdict=$?
    cat "$work/summary.md"
    [ "$verdict" -eq 0 ] || echo "conformance: not conforming; details in $work/report/index.html" >&2
    return "$verdict"
}

clean_up() {
    set +e
    if [ -n "$node_pid" ]; then
        kill "$node_pid" 2>/dev/null # asks for a drain; the suite leaves nobody to wait for
        for _ in $(seq 30); do
            kill -0 "$node_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$node_pid" 2>/dev/null
        wait "$node_pid" 2>/dev/null
    fi
    [ -n "$data_dir" ] && rm -rf "$data_dir"
}

main "$@"
