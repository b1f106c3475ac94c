#!/usr/bin/env bash
# Installs what the tests and linters need and do not find. Running it again changes nothing.
#
# The WebSocket clients live under target/tools, so nothing of them reaches the system or the repository.
# Whatever cannot be had ends this script with a message: a missing tool must never become a skipped test.
set -euo pipefail
cd "$(dirname "$0")/.."

WEBSOCKETS_VERSION=17.4   # PyPI
WS_VERSION=8.23.0         # npm
CARGO_DENY_VERSION=0.20.2 # crates.io

tools=target/tools

die() { echo "test-tools: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# apt_if_missing PACKAGE... : asks for root only where there is something to install.
apt_if_missing() {
    [ "$#" -eq 0 ] && return
    have apt-get || die "please install, in the way of this system: $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || die "please install, as root: apt-get install $*"
        as_root=(sudo -n)
    fi
    echo "test-tools: installing $*"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

system_packages() {
    local missing=()
    { have cc && have c++; } || missing+=(build-essential) # jemalloc and the fuzzing runtime are compiled
    have curl || missing+=(curl)
    have python3 || missing+=(python3)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    have node || missing+=(nodejs)
    have npm || missing+=(npm)
    have redis-server || missing+=(redis-server) # a service of it that starts by itself harms no test
    have openssl || missing+=(openssl)
    apt_if_missing "${missing[@]}"
}

# Unpacked and not installed, where there is none: so no server starts, and none takes port 80.
nginx_server() {
    local dir=$tools/nginx
    if have nginx || [ -x /usr/sbin/nginx ] || [ -x "$dir/usr/sbin/nginx" ]; then return; fi
    have apt-get && have dpkg-deb || die "please install, in the way of this system: nginx"
    rm -rf "$dir"
    mkdir -p "$dir/package"
    (cd "$dir/package" && { apt-get download -qq nginx 2>/dev/null || { apt-get update -qq && apt-get download -qq nginx; }; }) \
        || die "apt-get did not give nginx"
    dpkg-deb -x "$dir"/package/nginx_*.deb "$dir"
    rm -r "$dir/package"
    if ldd "$dir/usr/sbin/nginx" | grep "not found"; then die "please install the libraries named above, for nginx"; fi
}

rust_tools() {
    have cargo || die "no cargo: install Rust with https://rustup.rs (Cargo.toml names the oldest version that will do)"
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt || die "rustfmt is missing"
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || die "clippy is missing"
    # Any version that is there will do: installing one takes minutes.
    cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --version "$CARGO_DENY_VERSION" \
        || die "cargo-deny is missing"
}

python_client() {
    local venv=$tools/py
    if [ "$("$venv/bin/python" -c 'import websockets; print(websockets.__version__)' 2>/dev/null)" != "$WEBSOCKETS_VERSION" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" || die "python3 cannot make a virtual environment"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "websockets==$WEBSOCKETS_VERSION" \
            || die "PyPI did not give websockets $WEBSOCKETS_VERSION"
    fi
}

node_client() {
    local dir=$tools/node
    if [ "$(node -p "require('./$dir/node_modules/ws/package.json').version" 2>/dev/null)" != "$WS_VERSION" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        npm install --prefix "$dir" --no-save --no-audit --no-fund --loglevel=error "ws@$WS_VERSION" >/dev/null \
            || die "npm did not give ws $WS_VERSION"
    fi
}

system_packages
nginx_server
rust_tools
python_client
node_client
echo "test-tools: Python websockets $WEBSOCKETS_VERSION, Node ws $WS_VERSION, redis $(redis-server --version | sed 's/.*v=\([^ ]*\).*/\1/'), $(cargo deny --version)"
