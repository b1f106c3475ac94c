//! Why a node does not start or does not go on, and the exit status that says so.

use std::io;
use std::net::SocketAddr;

use super::member::Undelivered;
use crate::cluster::JoinError;
use crate::config::SecretFileError;
use crate::reactor::StartError;
use crate::session::auth::{JwtKeyError, SecretError};
use crate::store::OpenError;
use crate::store::redis::{LinkError, NoAddress};
use crate::store::tool::ToolError;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    JwtKey(#[from] JwtKeyError),
    /// `option` names the address.
    #[error("cannot listen on {addr}: {source}. {}", way_out(.source, .option))]
    Listen {
        addr: SocketAddr,
        option: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("redis {0}")]
    NoAddress(#[from] NoAddress),
    #[error(transparent)]
    Redis(#[from] LinkError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Undelivered(#[from] Undelivered),
    #[error("cannot look for undelivered entries in the data directory: {0}")]
    Leftovers(ToolError),
    #[error("another process has taken this node's name")]
    Superseded,
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
            ServeError::Secret(_)
            | ServeError::JwtKey(_)
            | ServeError::NoAddress(_)
            | ServeError::Undelivered(_) => 2,
            _ => 1,
        }
    }
}

fn way_out(source: &io::Error, option: &str) -> String {
    let first = match source.kind() {
        io::ErrorKind::AddrInUse => "Another program has the port: end it, or name",
        _ => "Name",
    };
    format!("{first} another address with {option}")
}
