//! Who is measured: each server, how it is started, and what a reader of its figures should know.

use std::path::Path;
use std::process::Command;

use throng_loadtest::Dialect;

use crate::Failed;
use crate::peer::{Peer, installed, root, source};
use crate::posts::Load;
use crate::server::Server;

/// What axum's documentation offers to those who hold many connections.
const SMALL_READ_BUFFER: &str = "4096";

pub struct Kind {
    pub name: &'static str,
    /// What scripts/peers.sh calls it; nothing for what this project builds.
    pub script: Option<&'static str>,
    /// In what form it is measured.
    pub form: &'static str,
    pub start: fn(&Setting) -> Result<Server, Failed>,
}

/// What all of them are given.
pub struct Setting<'a> {
    pub throng: &'a Path,
    pub connections: usize,
}

/// In the order in which they are measured.
pub const KINDS: [Kind; 8] = [
    Kind {
        name: "Throng",
        script: None,
        form: "1 reactor; tokens checked, roster, heartbeats, inboxes on disk; rate limits off",
        start: |setting| Server::throng(setting.throng, 1, &[]),
    },
    Kind {
        name: "Bun",
        script: Some("bun"),
        form: "1 thread for JavaScript; `Bun.serve`, a topic for broadcasts",
        start: bun,
    },
    Kind {
        name: "ws on Node",
        script: Some("ws"),
        form: "1 thread for JavaScript",
        start: |_| imitation(Peer::start(Peer::node("ws.cjs")?, "ws")?),
    },
    Kind {
        name: "Socket.IO",
        script: Some("socketio"),
        form: "Node, 1 thread for JavaScript; WebSocket at once, a room for each user",
        start: socket_io,
    },
    Kind {
        name: "Nchan",
        script: Some("nchan"),
        form: "nginx, 1 worker; 1 GiB of shared memory, messages kept for 5 s",
        start: nchan,
    },
    Kind {
        name: "Netty",
        script: Some("netty"),
        form: "JVM with its defaults; NIO, 2 event loops a core; Jackson",
        start: netty,
    },
    Kind {
        name: "axum",
        script: Some("axum"),
        form: "tokio, 1 worker thread a core; read buffers of 128 KiB (default)",
        start: |_| axum(&[]),
    },
    Kind {
        name: "axum, small buffer",
        script: Some("axum"),
        form: "the same with `read_buffer_size` 4096",
        start: |_| axum(&["--read-buffer", SMALL_READ_BUFFER]),
    },
];

impl Kind {
    /// The version that scripts/peers.sh has installed, or why there is none.
    pub fn version(&self) -> Result<String, String> {
        let Some(script) = self.script else {
            return Ok("this commit".to_owned());
        };
        let read = |dir: &str| std::fs::read_to_string(root().join(dir).join(script));
        let version = read("versions").map(|text| text.trim().to_owned());
        version.map_err(|_| match read("missing") {
            Ok(reason) => reason.trim().to_owned(),
            Err(_) => "not installed: run scripts/peers.sh".to_owned(),
        })
    }
}

/// One that speaks as Throng does.
fn imitation(peer: Peer) -> Result<Server, Failed> {
    Ok(Server::peer(peer, Dialect::Throng, Load::All))
}

fn bun(_: &Setting) -> Result<Server, Failed> {
    let mut command = Command::new(installed("node/node_modules/bun/bin/bun.exe", "Bun")?);
    command.arg(source("bun.ts")).env("NODE_ENV", "production");
    imitation(Peer::start(command, "bun")?)
}

fn socket_io(_: &Setting) -> Result<Server, Failed> {
    let peer = Peer::start(Peer::node("socketio.cjs")?, "socketio")?;
    Ok(Server::peer(peer, Dialect::SocketIo, Load::All))
}

/// Each client's WebSocket hears its own channel and that of everybody, and publishes to one.
fn nchan(setting: &Setting) -> Result<Server, Failed> {
    let http = "    nchan_shared_memory_size 1024M;
    nchan_message_timeout 5s;";
    let server = "        location = /websocket {
            nchan_pubsub websocket;
            nchan_publisher_channel_id $arg_to;
            nchan_subscriber_channel_id $arg_openid everybody;
            nchan_subscriber_first_message newest;
        }
        location = /push {
            nchan_publisher http;
            nchan_channel_id everybody;
        }";
    let mut peer = Peer::nchan(setting.connections, http, server)?;
    peer.place = "/websocket".to_owned();
    Ok(Server::peer(peer, Dialect::Nchan, Load::One))
}

fn netty(_: &Setting) -> Result<Server, Failed> {
    let classes = installed("netty/classes", "Netty")?;
    let jars = installed("netty/usr/share/java", "Netty")?;
    let mut command = Command::new("java");
    command
        .arg("-cp")
        .arg(format!("{}:{}/*", classes.display(), jars.display()))
        .arg("Gateway");
    imitation(Peer::start(command, "netty")?)
}

fn axum(arguments: &[&str]) -> Result<Server, Failed> {
    let mut command = Command::new(installed("axum/release/peer-axum", "axum")?);
    command.args(arguments);
    imitation(Peer::start(command, "axum")?)
}
