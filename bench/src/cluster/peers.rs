//! Other servers that reach from node to node over a Redis: Socket.IO, and Nchan in nginx. What
//! `scripts/peers.sh` has installed under target/peers.
//!
//! Owns: their processes and scratch directories.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::redis::{Redis, free_port, wait_for};
use crate::Failed;
use crate::server::{Scratch, field, start};
use throng_loadtest::process::family;

const INSTALL: &str = "scripts/peers.sh installs it, --no-peers goes without";

/// It listens before it has its Redis, and refuses whoever comes in between.
const NCHAN_SETTLES: Duration = Duration::from_secs(2);

/// One process of a peer.
pub struct Peer {
    child: Child,
    pub address: SocketAddr,
    _dir: Scratch,
}

impl Peer {
    /// A Node process with Socket.IO and its Redis adapter.
    pub fn socket_io(redis: &Redis) -> Result<Peer, Failed> {
        let modules = installed("node/node_modules/socket.io", "Socket.IO")?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/socketio.cjs");
        let mut command = Command::new("node");
        command
            .arg(script)
            .env("NODE_ENV", "production")
            .env("NODE_PATH", modules.parent().unwrap_or(&modules))
            .env("REDIS_URL", redis.url());
        let dir = Scratch::new("socketio")?;
        let (child, ready) = start(command, &dir.0)?;
        let host = field(&ready, "ws")?.trim_start_matches("ws://");
        let address = host.trim_end_matches('/').parse();
        Ok(Peer {
            child,
            address: address.map_err(|e| format!("{host}: {e}"))?,
            _dir: dir,
        })
    }

    /// An nginx with Nchan: one worker, messages are not kept in Redis. With the shared memory and
    /// the message timeout that it has by default it runs out of memory after some seconds.
    pub fn nchan(redis: &Redis) -> Result<Peer, Failed> {
        let nginx = installed("nginx/usr/sbin/nginx", "nginx")?;
        let module = installed("nginx/usr/lib/nginx/modules/ngx_nchan_module.so", "Nchan")?;
        let dir = Scratch::new("nchan")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = dir.0.join("nginx.conf");
        std::fs::write(&config, nchan_config(&module, &dir.0, address, redis))?;
        let child = Command::new(nginx)
            .arg("-p")
            .arg(&dir.0)
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(dir.0.join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start nginx: {e}"))?;
        let mut peer = Peer {
            child,
            address,
            _dir: dir,
        };
        wait_for(address, &mut peer.child)?;
        std::thread::sleep(NCHAN_SETTLES);
        Ok(peer)
    }

    /// Master and worker, where there are such.
    pub fn pids(&self) -> Vec<u32> {
        family(self.child.id())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // An nginx that is told to end takes its worker along; one that is killed would not.
        let pid = self.child.id().to_string();
        let told = Command::new("kill").arg(pid).status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn installed(path: &str, what: &str) -> Result<PathBuf, Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers");
    let path = root.join(path);
    match path.exists() {
        true => Ok(path.canonicalize()?),
        false => Err(format!("{what} is not installed: {INSTALL}").into()),
    }
}

fn nchan_config(module: &Path, dir: &Path, address: SocketAddr, redis: &Redis) -> String {
    let (module, dir, url) = (module.display(), dir.display(), redis.url());
    // Where root starts it, workers would be somebody else, who may not enter the directory. Where
    // somebody else does, `user` is ignored.
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temp = temp.map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"));
    let temp = temp.concat();
    format!(
        "user root;
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {dir}/nginx.pid;
error_log {dir}/error.log notice;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    nchan_shared_memory_size 1024M;
    nchan_message_buffer_length 1;
    nchan_message_timeout 5s;
{temp}
    upstream shared {{
        nchan_redis_server {url};
        nchan_redis_storage_mode nostore;
        nchan_redis_nostore_fastpublish on;
    }}
    server {{
        listen {address};
        location = /subscribe {{
            nchan_subscriber websocket;
            nchan_channel_id $arg_channel;
            nchan_redis_pass shared;
        }}
        location = /publish {{
            nchan_publisher websocket;
            nchan_channel_id $arg_channel;
            nchan_redis_pass shared;
        }}
    }}
}}
"
    )
}
