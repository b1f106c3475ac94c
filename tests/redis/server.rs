//! A real redis-server for one test: its own port, its own directory, ended by its own pid.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use redis::Connection;
use throng::store::redis::{ACL, Address};

const PATIENCE: Duration = Duration::from_secs(60);
pub const PREFIX: &str = "throng:";

pub struct Server {
    child: Option<Child>,
    pub dir: PathBuf,
    pub port: u16,
    options: Vec<String>,
}

impl Server {
    pub fn start() -> Server {
        Server::with(&[])
    }

    /// With more options than those that all have.
    pub fn with(options: &[&str]) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("throng-redis-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("users.acl"), ACL).unwrap();
        let mut server = Server {
            child: None,
            dir,
            port: free_port(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        server.restart();
        server
    }

    /// Starts it, on the port and with the data that it had.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--unixsocket", self.socket().to_str().unwrap()])
            .arg("--dir")
            .arg(&self.dir)
            .arg("--aclfile")
            .arg(self.dir.join("users.acl"))
            .args(&self.options)
            // Names are sorted by their bytes.
            .env("LC_ALL", "C")
            .stdout(Stdio::null());
        let started = command.spawn();
        self.child = Some(started.expect("redis-server: scripts/test-tools.sh installs it"));
        let deadline = Instant::now() + PATIENCE;
        while self.try_admin().is_none() {
            assert!(Instant::now() < deadline, "redis-server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        // It answers before it has read what it holds.
        self.until("\nloading:0");
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("redis.sock")
    }

    /// Where the gateway's own user comes in.
    pub fn url(&self) -> String {
        format!("redis://throng:change-this@127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> Address {
        Address::parse(&self.url()).unwrap()
    }

    /// A connection that may do everything.
    pub fn admin(&self) -> Connection {
        self.try_admin().expect("the server answers")
    }

    fn try_admin(&self) -> Option<Connection> {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let mut connection = redis::Client::open(url).ok()?.get_connection().ok()?;
        // It answers a PING with an error while it cannot save.
        let echo = redis::cmd("ECHO").arg("x").query::<String>(&mut connection);
        echo.is_ok().then_some(connection)
    }

    pub fn set(&self, name: &str, value: &str) {
        self.command(&["CONFIG", "SET", name, value]);
    }

    pub fn command(&self, words: &[&str]) {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.exec(&mut self.admin()).unwrap();
    }

    /// Waits until it says so of itself.
    pub fn until(&self, line: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info: String = redis::cmd("INFO").query(&mut self.admin()).unwrap();
            if info.contains(line) {
                return;
            }
            assert!(Instant::now() < deadline, "never {line}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
}

/// A port that nobody has. The system gives none of these to whoever connects, so it stays free
/// while its owner is down.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (number % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
