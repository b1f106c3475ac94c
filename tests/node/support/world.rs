//! Faults that no peer can cause: a wall clock that steps, a thread that hangs, a kernel in a hurry.
//!
//! A small library in C is loaded before the node's own and answers a few system calls. It is
//! built with `cc`, which every build of a Rust program needs as its linker.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::setup::Folder;

/// What `world.c` maps: numbers of 64 bits, in this order.
#[derive(Clone, Copy)]
pub enum Field {
    WallSecs,
    IsStuck,
    IsHasty,
    UserTimeoutMs,
    KeepaliveSecs,
    KeepaliveIntervalSecs,
}

pub struct World {
    file: File,
    pub path: PathBuf,
    _folder: Folder,
}

impl World {
    /// One in which nothing is wrong yet.
    pub fn new() -> World {
        let folder = Folder::new();
        let path = folder.path("world");
        fs::write(&path, [0; 4096]).unwrap();
        World {
            file: File::options().read(true).write(true).open(&path).unwrap(),
            path,
            _folder: folder,
        }
    }

    pub fn set(&self, field: Field, value: i64) {
        let at = field as u64 * 8;
        self.file.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }

    pub fn get(&self, field: Field) -> i64 {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, field as u64 * 8)
            .unwrap();
        i64::from_ne_bytes(bytes)
    }
}

/// The library, built once for all tests of this process.
pub fn library() -> PathBuf {
    static BUILT: OnceLock<(PathBuf, Folder)> = OnceLock::new();
    let built = || {
        let folder = Folder::new();
        let path = folder.path("world.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/support/world.c");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", source, "-o"])
            .arg(&path)
            .status();
        let status = status.expect("cc, the linker of Rust, is needed");
        assert!(status.success(), "cc {source}");
        (path, folder)
    };
    BUILT.get_or_init(built).0.clone()
}
