//! A server as a child process: the floor, a Throng node, or a peer.
//!
//! Owns: the process, its scratch directory, and the way by which broadcasts are pushed.

use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use throng_loadtest::process::family;
use throng_loadtest::{Api, Dialect, Plan, Who};

use crate::peer::Peer;
use crate::posts::{Load, Posts};
use crate::{Failed, canned, floor};

/// What signs the crowd's tokens: a bench's secret guards nothing.
pub const SECRET: &str = "a token secret for benches, known to everybody";
const START_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const CONFIG: &str = "throng.toml";
const NO_RATES: &str =
    "[limits]\nframes_per_sec = 0\nbytes_per_sec = 0\ncontrol_frames_per_sec = 0\n";

pub struct Server {
    process: Process,
    ws: String,
    dialect: Dialect,
    pusher: Pusher,
}

enum Process {
    Own(Own),
    Peer(Peer),
}

/// A server of this project.
struct Own {
    child: Child,
    dir: Scratch,
}

/// A directory that ends with its owner.
pub struct Scratch(pub PathBuf);

/// The connection over which a server is told what to push to everybody.
pub enum Pusher {
    Floor(TcpStream),
    Api(Api),
    Posts(Posts),
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
            Pusher::Posts(posts) => posts.push(bodies),
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
            process: Process::Own(Own { child, dir }),
            ws: field(&ready, "ws")?.to_owned(),
            dialect: Dialect::Throng,
            pusher: Pusher::open(field(&ready, "trigger")?)?,
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
            process: Process::Own(Own { child, dir }),
            ws: field(&ready, "ws")?.to_owned(),
            dialect: Dialect::Throng,
            pusher: Pusher::open(field(&ready, "api")?)?,
        })
    }

    /// Somebody else's, which takes pushes as posts of `load` to /push.
    pub fn peer(peer: Peer, dialect: Dialect, load: Load) -> Server {
        let posts = Posts {
            address: peer.address,
            path: "/push",
            load,
        };
        Server {
            ws: format!("ws://{}{}", peer.address, peer.place),
            process: Process::Peer(peer),
            dialect,
            pusher: Pusher::Posts(posts),
        }
    }

    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Own(own) => own.child.id(),
            Process::Peer(peer) => peer.pid(),
        }
    }

    /// Its process, and those that it has started.
    pub fn pids(&self) -> Vec<u32> {
        family(self.pid())
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
            Pusher::Floor(_) | Pusher::Posts(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// How many nodes it knows, itself included.
    pub fn nodes(&mut self) -> io::Result<usize> {
        match &mut self.pusher {
            Pusher::Api(api) => api.nodes(),
            Pusher::Floor(_) | Pusher::Posts(_) => Ok(1),
        }
    }

    /// Has a node read its configuration again, with these lines at the top.
    pub fn reload(&self, lines: &str) -> Result<(), Failed> {
        let Process::Own(own) = &self.process else {
            return Err("a peer has no such configuration".into());
        };
        std::fs::write(own.dir.0.join(CONFIG), format!("{lines}\n{NO_RATES}"))?;
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
        match &self.pusher {
            Pusher::Floor(trigger) => Ok(trigger.peer_addr()?.to_string()),
            Pusher::Api(api) => Ok(api.url()),
            Pusher::Posts(_) => Err("pushes to a peer go by its own way".into()),
        }
    }

    /// A crowd's plan for this server.
    pub fn plan(&self, clients: usize) -> Result<Plan, Failed> {
        let who = match &self.process {
            Process::Own(_) => Who::signed(SECRET)?,
            Process::Peer(_) => Who::Openid,
        };
        let mut plan = Plan::new(&self.ws, who, "load-", clients)?;
        plan.dialect = self.dialect;
        Ok(plan)
    }

    /// Pushes these `msg` objects to everybody, as close together as it goes.
    pub fn push(&mut self, bodies: &[String]) -> io::Result<()> {
        self.pusher.push(bodies)
    }
}

impl Drop for Own {
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

/// A port that nobody has now.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until somebody listens there.
pub fn wait_for(address: SocketAddr, child: &mut Child) -> Result<(), Failed> {
    let deadline = Instant::now() + START_PATIENCE;
    while TcpStream::connect(address).is_err() {
        if let Some(status) = child.try_wait()? {
            return Err(format!("what was to listen on {address} has ended: {status}").into());
        }
        if Instant::now() > deadline {
            return Err(format!("nobody listens on {address}").into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
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
