#!/usr/bin/env bash
# Gets what the benches are measured beside: Bun, ws and Socket.IO from npm, nginx with Nchan and Netty from packages
# of Debian, axum from crates.io. With names as arguments it gets only those. Running it again changes nothing.
#
# Everything lies under target/peers. The Debian packages are unpacked and not installed, so no service starts and
# the system's own nginx, if there is one, is not touched. One thing is outside: the directory /var/lib/nginx, in
# which Nchan of Debian makes an empty one (body) whatever its configuration says.
#
# Who cannot be had is named, with the reason, and the others are got all the same; the exit status is 1 then.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

BUN_VERSION=1.4.5       # npm
WS_VERSION=8.23.0       # npm
SOCKET_IO_VERSION=4.8.4 # npm
ADAPTER_VERSION=8.3.0   # npm
REDIS_VERSION=4.7.1     # npm

ALL=(bun ws socketio nchan netty axum)
peers=$PWD/target/peers

have() { command -v "$1" >/dev/null 2>&1; }

# The peer that is being got, and why it cannot be had.
die() {
    rm -f "$peers/versions/$peer"
    echo "$*" >"$peers/missing/$peer"
    echo "peers: no $peer: $*" >&2
    exit 1
}

version_in() { node -p "require('$peers/node/node_modules/$1/package.json').version" 2>/dev/null; }

# npm_install NAME@VERSION...: those that are there stay.
npm_install() {
    have node && have npm || die "there is no node or no npm: apt-get install nodejs npm"
    local wanted=() package
    for package in "$@"; do
        [ "$(version_in "${package%@*}")" = "${package##*@}" ] || wanted+=("$package")
    done
    [ ${#wanted[@]} -gt 0 ] || return 0
    mkdir -p "$peers/node"
    # Without a file that names them, npm takes away what it is not asked for.
    [ -f "$peers/node/package.json" ] || echo '{"private":true}' >"$peers/node/package.json"
    npm install --prefix "$peers/node" --save-exact --no-audit --no-fund --loglevel=error "${wanted[@]}" >/dev/null \
        || die "npm did not give ${wanted[*]}"
}

# unpack DIRECTORY PACKAGE...: from Debian, into a directory of target/peers.
unpack() {
    local dir=$peers/$1
    shift
    have apt-get && have dpkg-deb || die "$* are taken from packages of Debian or Ubuntu"
    rm -rf "$dir" "$dir.packages"
    mkdir -p "$dir" "$dir.packages"
    (cd "$dir.packages" && apt-get download -qq -o "APT::Sandbox::User=$(id -un)" "$@") || die "apt-get did not give $*; has apt-get update been run?"
    for package in "$dir.packages"/*.deb; do dpkg-deb -x "$package" "$dir" || die "$package cannot be unpacked"; done
}

# The version of a package that was unpacked, as Debian writes it.
unpacked() { dpkg-deb -f "$peers/$1.packages/$2"_*.deb Version | sed 's/^[0-9]*://; s/+dfsg//; s/-[^-]*$//'; }

get_bun() {
    npm_install "bun@$BUN_VERSION"
    local version
    version=$("$peers/node/node_modules/bun/bin/bun.exe" --version) || die "bun of npm does not run here"
    echo "Bun $version"
}

get_ws() {
    npm_install "ws@$WS_VERSION"
    echo "ws $WS_VERSION, Node $(node --version | tr -d v)"
}

get_socketio() {
    npm_install "socket.io@$SOCKET_IO_VERSION" "@socket.io/redis-adapter@$ADAPTER_VERSION" "redis@$REDIS_VERSION"
    echo "Socket.IO $SOCKET_IO_VERSION, Node $(node --version | tr -d v)"
}

get_nchan() {
    local dir=$peers/nginx
    [ -x "$dir/usr/sbin/nginx" ] && [ -d "$dir.packages" ] || unpack nginx nginx libnginx-mod-nchan
    if ldd "$dir/usr/sbin/nginx" "$dir/usr/lib/nginx/modules/ngx_nchan_module.so" | grep "not found" >&2; then
        die "please install the libraries named above"
    fi
    [ -d /var/lib/nginx ] || mkdir /var/lib/nginx || die "please make it, as root: mkdir /var/lib/nginx"
    echo "Nchan $(unpacked nginx libnginx-mod-nchan), nginx $(unpacked nginx nginx)"
}

get_netty() {
    local dir=$peers/netty
    have java && have javac || die "there is no java or no javac: apt-get install default-jdk-headless"
    [ -f "$dir/usr/share/java/netty-transport.jar" ] && [ -d "$dir.packages" ] \
        || unpack netty libnetty-java libjctools-java libjackson2-core-java libjackson2-databind-java libjackson2-annotations-java
    javac -cp "$dir/usr/share/java/*" -d "$dir/classes" bench/peers/netty/Gateway.java >&2 \
        || die "bench/peers/netty does not compile"
    echo "Netty $(unpacked netty libnetty-java), Java $(java -version 2>&1 | sed -n '1s/.*"\(.*\)".*/\1/p')"
}

get_axum() {
    have cargo || die "there is no cargo"
    cargo build --release --quiet --locked --manifest-path bench/peers/axum/Cargo.toml --target-dir "$peers/axum" >&2 \
        || die "bench/peers/axum does not build"
    # Of each, the version in the lock file.
    locked() { sed -n "/^name = \"$1\"\$/{n;s/version = \"\(.*\)\"/\1/p}" bench/peers/axum/Cargo.lock; }
    echo "axum $(locked axum), tokio $(locked tokio)"
}

mkdir -p "$peers/versions" "$peers/missing"
failed=0
for peer in "${@:-${ALL[@]}}"; do
    if ! declare -F "get_$peer" >/dev/null; then
        echo "peers: $peer is none of: ${ALL[*]}" >&2
        exit 2
    fi
    # In a subshell: who fails does not end the others.
    if version=$("get_$peer"); then
        echo "$version" >"$peers/versions/$peer"
        rm -f "$peers/missing/$peer"
        echo "peers: $version"
    else
        failed=1
    fi
done
exit "$failed"
