//! How a node is started: flags, a configuration file, the environment, a descriptor limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::node::Node;
use super::world::{self, World};

pub const THRONG: &str = env!("CARGO_BIN_EXE_throng");

/// Gives this process as many descriptors as it may have: often only a thousand are there at first.
pub fn raise_descriptors() {
    let line = format!(
        "prlimit --pid {} --nofile=$(ulimit -Hn):",
        std::process::id()
    );
    let status = Command::new("sh").args(["-c", &line]).status();
    let status = status.expect("prlimit (of util-linux) is needed");
    assert!(status.success(), "{line}");
}

/// A folder that goes with its owner.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("node-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over lies under target/ and is swept with it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything that one start of the binary is given.
pub struct Setup {
    args: Vec<String>,
    env: Vec<(String, String)>,
    config: String,
    /// What starts the binary, with its own arguments; nothing: we do.
    starter: Vec<String>,
    is_unheard: bool,
    pub folder: Folder,
}

impl Setup {
    /// A node on free ports of the loopback address, with a folder of its own.
    pub fn new() -> Setup {
        let folder = Folder::new();
        let data = folder.path("data").display().to_string();
        let args = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        Setup::bare(folder).args(&args).args(&["--data-dir", &data])
    }

    /// Nothing but the binary.
    pub fn bare(folder: Folder) -> Setup {
        Setup {
            args: Vec::new(),
            env: Vec::new(),
            config: String::new(),
            starter: Vec::new(),
            is_unheard: false,
            folder,
        }
    }

    pub fn args(mut self, args: &[&str]) -> Setup {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Text of a configuration file.
    pub fn config(mut self, text: &str) -> Setup {
        self.config.push_str(text);
        self
    }

    /// Starts it with `ulimit -n` at so many.
    pub fn descriptors(self, limit: u32) -> Setup {
        self.after(&format!("ulimit -n {limit}"))
    }

    /// Starts it from a shell that carries out this line first.
    pub fn after(self, line: &str) -> Setup {
        let line = format!("{line} && exec \"$@\"");
        self.started_by(&["sh", "-c", &line, "sh"])
    }

    /// Starts it by another program, which has to become it.
    pub fn started_by(mut self, starter: &[&str]) -> Setup {
        self.starter = starter.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Starts it in a world that can misbehave.
    pub fn within(self, world: &World) -> Setup {
        let library = world::library().display().to_string();
        let path = world.path.display().to_string();
        self.env("LD_PRELOAD", &library).env("WORLD", &path)
    }

    /// Nobody reads its standard error: every write to it fails.
    pub fn unheard(mut self) -> Setup {
        self.is_unheard = true;
        self
    }

    fn command(&self) -> Command {
        let mut words = self.starter.iter().map(String::as_str).chain([THRONG]);
        let mut command = Command::new(words.next().unwrap_or(THRONG));
        command.args(words);
        command.args(&self.args);
        if !self.config.is_empty() {
            let path = self.folder.path("throng.toml");
            fs::write(&path, &self.config).unwrap();
            command.arg("--config").arg(path);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("THRONG_") {
                command.env_remove(name);
            }
        }
        command
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a node and waits until it is ready.
    pub fn start(self) -> Node {
        self.try_start()
            .unwrap_or_else(|says| panic!("it is not ready: {says}"))
    }

    /// The same with a node that may end before it is ready: what it says then.
    pub fn try_start(self) -> Result<Node, String> {
        let mut child = self.command().spawn().unwrap();
        if self.is_unheard {
            drop(child.stderr.take());
        }
        Node::new(child, self.folder)
    }

    /// Runs what ends by itself.
    pub fn run(&self) -> Output {
        let mut child = self.command().spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("it goes on: {:?}", child.wait_with_output());
            }
            sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    /// Runs what must fail, and returns what it says on standard error.
    pub fn fails_with(&self, status: i32) -> String {
        let output = self.run();
        let says = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{says}");
        assert!(output.stdout.is_empty(), "{:?}", output.stdout);
        says
    }
}
