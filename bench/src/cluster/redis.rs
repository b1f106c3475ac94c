//! A redis-server for one cluster, on its own port, that keeps nothing on disk.
//!
//! Owns: the process and its scratch directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::Failed;
use crate::server::{Scratch, free_port, wait_for};

pub struct Redis {
    child: Child,
    address: SocketAddr,
    _dir: Scratch,
}

impl Redis {
    pub fn start() -> Result<Redis, Failed> {
        let dir = Scratch::new("redis")?;
        let port = free_port()?;
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(&dir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("cannot start redis-server: {e}; apt-get install redis-server"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut redis = Redis {
            child,
            address,
            _dir: dir,
        };
        wait_for(address, &mut redis.child)?;
        Ok(redis)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Bytes that it says it has allocated.
    pub fn used_memory(&self) -> Result<u64, Failed> {
        let mut stream = BufReader::new(TcpStream::connect(self.address)?);
        stream.get_mut().write_all(b"INFO memory\r\n")?;
        let mut head = String::new();
        stream.read_line(&mut head)?;
        let length = head.trim().strip_prefix('$').and_then(|n| n.parse().ok());
        let mut text = vec![0; length.ok_or_else(|| format!("INFO answers {head:?}"))?];
        stream.read_exact(&mut text)?;
        let text = String::from_utf8(text)?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        Ok(value.ok_or("INFO names no used_memory")?.trim().parse()?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; it keeps nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
