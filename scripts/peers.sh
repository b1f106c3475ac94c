#!/usr/bin/env bash
# Gets what `throng-bench cluster` is measured beside: Socket.IO with its Redis adapter, and nginx with Nchan.
# Running it again changes nothing.
#
# Everything lies under target/peers. The Debian packages are unpacked and not installed, so no service starts and
# the system's own nginx, if there is one, is not touched. One thing is outside: the directory /var/lib/nginx, in
# which Nchan of Debian makes an empty one (body) whatever its configuration says.
set -euo pipefail
cd "$(dirname "$0")/.."

SOCKET_IO_VERSION=4.8.4 # npm
ADAPTER_VERSION=8.3.0   # npm
REDIS_VERSION=4.7.1     # npm

peers=$PWD/target/peers

die() { echo "peers: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

socket_io() {
    local dir=$peers/node
    have node && have npm || die "there is no node or no npm: apt-get install nodejs npm"
    if [ "$(node -p "require('$dir/node_modules/socket.io/package.json').version" 2>/dev/null)" != "$SOCKET_IO_VERSION" ]; then
        rm -rf "$dir"
        mkdir -p "$dir"
        npm install --prefix "$dir" --no-save --no-audit --no-fund --loglevel=error "socket.io@$SOCKET_IO_VERSION" \
            "@socket.io/redis-adapter@$ADAPTER_VERSION" "redis@$REDIS_VERSION" >/dev/null \
            || die "npm did not give Socket.IO $SOCKET_IO_VERSION"
    fi
}

nchan() {
    local dir=$peers/nginx
    if [ ! -x "$dir/usr/sbin/nginx" ]; then
        have apt-get && have dpkg-deb || die "nginx and its module Nchan are taken from packages of Debian or Ubuntu"
        rm -rf "$dir" "$peers/packages"
        mkdir -p "$dir" "$peers/packages"
        (cd "$peers/packages" && apt-get download -qq nginx libnginx-mod-nchan) \
            || die "apt-get did not give nginx and libnginx-mod-nchan; has apt-get update been run?"
        for package in "$peers/packages"/*.deb; do dpkg-deb -x "$package" "$dir"; done
    fi
    if ldd "$dir/usr/sbin/nginx" "$dir/usr/lib/nginx/modules/ngx_nchan_module.so" | grep "not found"; then
        die "please install the libraries named above"
    fi
    [ -d /var/lib/nginx ] || mkdir /var/lib/nginx || die "please make it, as root: mkdir /var/lib/nginx"
}

socket_io
nchan
echo "peers: Socket.IO $SOCKET_IO_VERSION, $("$peers/nginx/usr/sbin/nginx" -v 2>&1 | sed 's/.*: //') with Nchan"
