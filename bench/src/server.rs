//! A server as a child process: the floor, or a Throng node.
//!
//! Owns: the process, its scratch directory, and the connection over which broadcasts are pushed.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use throng_loadtest::{Api, Plan, Who};

use crate::{Failed, canned, floor};

/// What signs the crowd's tokens: a bench's secret guards nothing.
pub const SECRET: &str = "a token secret for benches, known to everybody";
const START_PATIENCE: Duration = Duration::from_secs(20);
const CONFIG: &str = "throng.toml";
const NO_RATES: &str =
    "[limits]\nframes_per_sec = 0\nbytes_per_sec = 0\ncontrol_frames_per_sec = 0\n";

pub struct Server {
    child: Child,
    ws: String,
    pusher: Pusher,
    dir: Scratch,
}

/// A directory that ends with its owner.
pub struct Scratch(pub PathBuf);

/// The connection over which a server is told what to push to everybody.
pub enum Pusher {
    Floor(TcpStream),
    Api(Api),
}

impl Pusher {
    /// `door`: the URL of an HTTP API, or the address of the floor's trigger.
    pub fn open(door: &str) -> Result<Pusher, Failed> {
        if door.starts_with("http://") {
            return Ok(Pusher::Api(Api::connect(door, None)?));
        }
        let trigger = TcpStream::connect(door)?;
        trigger.set_nodelay(true)?;
        Ok(Pusher::Floor(trigger))
    }

    /// Pushes these `msg` objects to everybody, as close together as it goes.
    pub fn push(&mut self, bodies: &[String]) -> io::Result<()> {
        match self {
            Pusher::Api(api) => api.send_to_all(bodies),
            Pusher::Floor(trigger) => {
                let mut wire = Vec::new();
                bodies
                    .iter()
                    .for_each(|body| canned::broadcast(body, &mut wire));
                floor::push(trigger, &wire)
            }
        }
    }
}

impl Server {
    /// One that pings each connection so often, 0 for never.
    pub fn floor(reactors: usize, ping_secs: u32) -> Result<Server, Failed> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([
            "floor",
            "--listen",
            "127.0.0.1:0",
            "--reactors",
            &reactors.to_string(),
            "--ping-secs",
            &ping_secs.to_string(),
        ]);
        let dir = Scratch::new("floor")?;
        let (child, ready) = start(command, &dir.0)?;
        Ok(Server {
            child,
            ws: field(&ready, "ws")?.to_owned(),
            pusher: Pusher::open(field(&ready, "trigger")?)?,
            dir,
        })
    }

    /// A node with rate limits off; everything else is as it comes, but for `extra`.
    pub fn throng(binary: &Path, reactors: usize, extra: &[&str]) -> Result<Server, Failed> {
        let reactors = reactors.to_string();
        let extra = [&["--reactors", &reactors], extra].concat();
        Self::node(binary, &extra, "")
    }

    /// The same with these lines at the top of its configuration; [`Server::reload`] changes them.
    pub fn configured(binary: &Path, reactors: usize, lines: &str) -> Result<Server, Failed> {
        Self::node(binary, &["--reactors", &reactors.to_string()], lines)
    }

    /// One with one reactor that finds a store in `data`, and how long it took to be ready.
    pub fn on_data(binary: &Path, data: &Path) -> Result<(Server, Duration), Failed> {
        let began = Instant::now();
        let data = data.to_str().ok_or("the scratch directory is no text")?;
        let server = Self::node(binary, &["--reactors", "1", "--data-dir", data], "")?;
        Ok((server, began.elapsed()))
    }

    fn node(binary: &Path, extra: &[&str], lines: &str) -> Result<Server, Failed> {
        let dir = Scratch::new("node")?;
        let config = dir.0.join(CONFIG);
        std::fs::write(&config, format!("{lines}\n{NO_RATES}"))?;
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THRONG_") {
                command.env_remove(name);
            }
        }
        command.env("THRONG_TOKEN_SECRET", SECRET);
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--api",
            "127.0.0.1:0",
            "--config",
        ]);
        command
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.0.join("data"));
        command.args(extra);
        let (child, ready) = start(command, &dir.0)?;
        Ok(Server {
            child,
            ws: field(&ready, "ws")?.to_owned(),
            pusher: Pusher::open(field(&ready, "api")?)?,
            dir,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where clients connect.
    pub fn ws(&self) -> &str {
        &self.ws
    }

    /// The same, without path.
    pub fn address(&self) -> Result<SocketAddr, Failed> {
        let rest = self.ws.strip_prefix("ws://").unwrap_or(&self.ws);
        let host = rest.split('/').next().unwrap_or(rest);
        Ok(host.parse().map_err(|e| format!("{host}: {e}"))?)
    }

    /// Pushes this `msg` object to these users, to be stored.
    pub fn store_for(&mut self, users: &[String], body: &str) -> io::Result<()> {
        match &mut self.pusher {
            Pusher::Api(api) => api.store_for(users, body),
            Pusher::Floor(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// How many nodes it knows, itself included.
    pub fn nodes(&mut self) -> io::Result<usize> {
        match &mut self.pusher {
            Pusher::Api(api) => api.nodes(),
            Pusher::Floor(_) => Ok(1),
        }
    }

    /// Has a node read its configuration again, with these lines at the top.
    pub fn reload(&self, lines: &str) -> Result<(), Failed> {
        std::fs::write(self.dir.0.join(CONFIG), format!("{lines}\n{NO_RATES}"))?;
        let status = Command::new("kill")
            .args(["-HUP", &self.pid().to_string()])
            .status()?;
        status
            .success()
            .then_some(())
            .ok_or("kill -HUP failed".into())
    }

    /// What a node's `/metrics` says of this metric, the greatest where there are several.
    pub fn metric(&mut self, name: &str) -> Result<f64, Failed> {
        let Pusher::Api(api) = &mut self.pusher else {
            return Err("the floor has no metrics".into());
        };
        let text = api.text("/metrics")?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let is_whole_name = rest.starts_with(['{', ' ']);
            is_whole_name.then(|| rest.rsplit(' ').next()?.parse().ok())?
        });
        values
            .reduce(f64::max)
            .ok_or_else(|| format!("no {name} in the metrics").into())
    }

    /// Where somebody else pushes to everybody: what [`Pusher::open`] takes.
    pub fn door(&self) -> Result<String, Failed> {
        Ok(match &self.pusher {
            Pusher::Floor(trigger) => trigger.peer_addr()?.to_string(),
            Pusher::Api(api) => api.url(),
        })
    }

    /// A crowd's plan for this server.
    pub fn plan(&self, clients: usize) -> Result<Plan, Failed> {
        Ok(Plan::new(&self.ws, Who::signed(SECRET)?, "load-", clients)?)
    }

    /// Pushes these `msg` objects to everybody, as close together as it goes.
    pub fn push(&mut self, bodies: &[String]) -> io::Result<()> {
        self.pusher.push(bodies)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; its directory is a scratch one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scratch {
    pub fn new(name: &str) -> io::Result<Scratch> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let own = format!("throng-bench-{}-{name}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(own);
        // What an earlier process of the same id left behind.
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Starts a server and waits for its ready line. Its standard error goes to a file, which is
/// quoted if it fails.
pub fn start(mut command: Command, dir: &Path) -> Result<(Child, String), Failed> {
    let log = dir.join("log");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log)?)
        .spawn()
        .map_err(|e| format!("cannot start {:?}: {e}", command.get_program()))?;
    let stdout = child
        .stdout
        .take()
        .ok_or("the child has no standard output")?;
    let (line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for text in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Only the first is waited for; the rest is drained.
            let _ = line.send(text);
        }
    });
    match lines.recv_timeout(START_PATIENCE) {
        Ok(text) if text.starts_with("ready ") => Ok((child, text)),
        other => {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            Err(format!(
                "{:?} is not ready ({other:?}):\n{said}",
                command.get_program()
            )
            .into())
        }
    }
}

pub fn field<'a>(ready: &'a str, name: &str) -> Result<&'a str, Failed> {
    ready
        .split_whitespace()
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .ok_or_else(|| format!("no {name}= in the line: {ready}").into())
}

/// The Throng binary beside this one, built if it is missing or older than its source.
pub fn build_throng() -> Result<PathBuf, Failed> {
    let me = std::env::current_exe()?;
    let profile = me.parent().ok_or("this binary has no directory")?;
    let target = profile
        .parent()
        .ok_or("this binary is in no target directory")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "throng",
            "--bin",
            "throng",
        ])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .map_err(|e| format!("cannot run cargo: {e}; --throng PATH names a built binary"))?;
    if !status.success() {
        return Err("throng does not build; --throng PATH names a built binary".into());
    }
    Ok(target.join("release/throng"))
}
