//! One server that is not of this project, as a process: what `scripts/peers.sh` has installed
//! under target/peers.
//!
//! Owns: the process, its children and its scratch directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Failed;
use crate::server::{Scratch, field, free_port, start, wait_for};
use throng_loadtest::process::family;

const INSTALL: &str = "scripts/peers.sh installs it";

pub struct Peer {
    child: Child,
    pub address: SocketAddr,
    /// What stands behind the address, path and query.
    pub place: String,
    _dir: Scratch,
}

impl Peer {
    /// One that prints a ready line.
    pub fn start(command: Command, name: &str) -> Result<Peer, Failed> {
        let dir = Scratch::new(name)?;
        let (child, ready) = start(command, &dir.0)?;
        let url = field(&ready, "ws")?.trim_start_matches("ws://");
        let (host, place) = url.split_at(url.find('/').unwrap_or(url.len()));
        Ok(Peer {
            child,
            address: host.parse().map_err(|e| format!("{host}: {e}"))?,
            place: place.to_owned(),
            _dir: dir,
        })
    }

    /// A script of bench/peers in Node.
    pub fn node(script: &str) -> Result<Command, Failed> {
        let mut command = Command::new("node");
        command
            .arg(source(script))
            .env("NODE_ENV", "production")
            .env("NODE_PATH", installed("node/node_modules", script)?);
        Ok(command)
    }

    /// An nginx with Nchan, one worker. `http` stands in its block of that name, `server` in the
    /// block in that.
    pub fn nchan(connections: usize, http: &str, server: &str) -> Result<Peer, Failed> {
        let nginx = installed("nginx/usr/sbin/nginx", "nginx")?;
        let module = installed("nginx/usr/lib/nginx/modules/ngx_nchan_module.so", "Nchan")?;
        let dir = Scratch::new("nchan")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (module, at) = (module.display(), dir.0.display());
        // Those of clients, and some for itself. nginx begins to close what it can when but a
        // sixteenth of its connections is free.
        let descriptors = connections + connections / 15 + 200;
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp = temp.map(|kind| format!("    {kind}_temp_path {at}/{kind};\n"));
        let temp = temp.concat();
        // Where root starts it, workers would be somebody else, who may not enter the directory.
        // Where somebody else does, `user` is ignored.
        let config = format!(
            "user root;
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {descriptors};
pid {at}/nginx.pid;
error_log {at}/error.log notice;
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
{temp}
{http}
    server {{
        listen {address};
{server}
    }}
}}
"
        );
        let path = dir.0.join("nginx.conf");
        std::fs::write(&path, config)?;
        let child = Command::new(nginx)
            .arg("-p")
            .arg(&dir.0)
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(dir.0.join("error.log"))
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start nginx: {e}"))?;
        let mut peer = Peer {
            child,
            address,
            place: String::new(),
            _dir: dir,
        };
        wait_for(address, &mut peer.child)?;
        Ok(peer)
    }

    /// It and its workers, where there are such.
    pub fn pids(&self) -> Vec<u32> {
        family(self.pid())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
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

/// Where scripts/peers.sh puts everything.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

/// A file of bench/peers.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(name)
}

/// A file or directory that `what` needs.
pub fn installed(path: &str, what: &str) -> Result<PathBuf, Failed> {
    let path = root().join(path);
    match path.exists() {
        true => Ok(path.canonicalize()?),
        false => Err(format!("{what} is not installed: {INSTALL}").into()),
    }
}
