//! Why a node does not start or does not go on, and the exit status that says so.

use std::io;
use std::net::SocketAddr;

use crate::config::SecretFileError;
use crate::reactor::StartError;
use crate::session::auth::{JwtKeyError, SecretError};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    JwtKey(#[from] JwtKeyError),
    #[error(
        "max_connections = {wanted} does not fit: {reactors} reactors hold {fits} with {nofile} descriptors each. \
         Use --reactors {needed}, or raise nofile (see sysctl/README.md)"
    )]
    TooManyConnections {
        wanted: usize,
        reactors: usize,
        fits: usize,
        nofile: u64,
        needed: usize,
    },
    #[error(
        "max_connections = {wanted} does not fit: this host does not let threads have file tables \
         of their own, and {nofile} descriptors hold {fits}. Raise nofile (see sysctl/README.md)"
    )]
    TooManyForOneTable {
        wanted: usize,
        fits: usize,
        nofile: u64,
    },
    #[error(
        "{nofile} file descriptors are too few: at least {needed} are needed (see sysctl/README.md)"
    )]
    TooFewDescriptors { nofile: u64, needed: u64 },
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Reactor(#[from] StartError),
    #[error("a reactor failed: {0}")]
    ReactorFailed(io::Error),
    #[error("a reactor ended by itself")]
    ReactorEnded,
    #[error("stopped by a second signal before everybody had left")]
    StoppedTwice,
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl ServeError {
    /// 2 where the configuration is to be mended, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::TooManyConnections { .. }
            | ServeError::TooManyForOneTable { .. }
            | ServeError::Secret(_)
            | ServeError::JwtKey(_) => 2,
            _ => 1,
        }
    }
}
