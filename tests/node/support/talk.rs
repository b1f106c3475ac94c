//! Clients that others wrote: Python's `websockets` and Node's `ws`, as line clients.
//!
//! scripts/test-tools.sh puts both under target/tools. Where one is missing the test fails: a
//! test that is skipped proves nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use serde_json::Value;

use super::PATIENCE;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A client in a process of its own. Its lines are explained in tests/clients/talk.py.
pub struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

#[derive(Clone, Copy)]
pub enum Kind {
    Python,
    NodeJs,
}

/// Where scripts/test-tools.sh puts what is for these tests alone.
pub fn tools() -> PathBuf {
    std::env::var_os("THRONG_TOOLS")
        .map_or_else(|| Path::new(ROOT).join("target/tools"), PathBuf::from)
}

impl Talk {
    pub fn start(kind: Kind, url: &str, protocols: &[&str]) -> Talk {
        Talk::within(&[], kind, url, protocols)
    }

    /// With more in its environment.
    pub fn within(env: &[(&str, &Path)], kind: Kind, url: &str, protocols: &[&str]) -> Talk {
        let (program, needed, script) = match kind {
            Kind::Python => {
                let python = tools().join("py/bin/python");
                (python.clone(), python, "talk.py")
            }
            Kind::NodeJs => {
                let library = tools().join("node/node_modules/ws");
                (PathBuf::from("node"), library, "talk.mjs")
            }
        };
        let advice = "run scripts/test-tools.sh (make test does)";
        assert!(needed.exists(), "{} is missing: {advice}", needed.display());
        let mut child = Command::new(&program)
            .arg(Path::new(ROOT).join("tests/clients").join(script))
            .arg(url)
            .args(protocols)
            .env("THRONG_TOOLS", tools())
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: {advice}", program.display()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Talk {
            input: child.stdin.take(),
            child,
            lines,
        }
    }

    pub fn line(&self) -> String {
        self.lines
            .recv_timeout(PATIENCE)
            .expect("the client says nothing")
    }

    /// The next message.
    pub fn hear(&self) -> Value {
        let line = self.line();
        let text = line.strip_prefix("recv ").expect(&line);
        serde_json::from_str(text).expect(text)
    }

    pub fn say(&mut self, text: &str) {
        let mut input = self.input.as_ref().unwrap();
        writeln!(input, "{text}").unwrap();
    }

    pub fn status(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
