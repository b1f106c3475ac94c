//! Other servers that reach from node to node over a Redis: Socket.IO, and Nchan in nginx.

use std::time::Duration;

use super::redis::Redis;
use crate::Failed;
use crate::peer::Peer;

/// Clients that one nginx has room for.
const CLIENTS_MAX: usize = 16_000;
/// It listens before it has its Redis, and refuses whoever comes in between.
const NCHAN_SETTLES: Duration = Duration::from_secs(2);

/// A Node process with Socket.IO and its Redis adapter.
pub fn socket_io(redis: &Redis) -> Result<Peer, Failed> {
    let mut command = Peer::node("socketio-cluster.cjs")?;
    command.env("REDIS_URL", redis.url());
    Peer::start(command, "socketio")
}

/// An nginx with Nchan whose messages are not kept in Redis. With the shared memory and the
/// message timeout that it has by default it runs out of memory after some seconds.
pub fn nchan(redis: &Redis) -> Result<Peer, Failed> {
    let http = format!(
        "    nchan_shared_memory_size 1024M;
    nchan_message_buffer_length 1;
    nchan_message_timeout 5s;
    upstream shared {{
        nchan_redis_server {};
        nchan_redis_storage_mode nostore;
        nchan_redis_nostore_fastpublish on;
    }}",
        redis.url()
    );
    let server = "        location = /subscribe {
            nchan_subscriber websocket;
            nchan_channel_id $arg_channel;
            nchan_redis_pass shared;
        }
        location = /publish {
            nchan_publisher websocket;
            nchan_channel_id $arg_channel;
            nchan_redis_pass shared;
        }";
    let peer = Peer::nchan(CLIENTS_MAX, &http, server)?;
    std::thread::sleep(NCHAN_SETTLES);
    Ok(peer)
}
