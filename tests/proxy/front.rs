//! Two nodes of a cluster, and nginx in front of them.

use std::net::SocketAddr;

use crate::nginx::{Doors, LOCAL, Nginx};
use crate::nodes::Cluster;
use crate::server::Server;
use crate::support::Client;
use crate::support::client::{dial_from, request};

/// What all tokens are signed with.
pub const SECRET: &str = "a secret of thirty-two bytes or more";

pub struct Front {
    // First, because it goes first: nobody is to find its nodes gone.
    pub nginx: Nginx,
    pub doors: Doors,
    pub cluster: Cluster,
}

/// What differs from what is shipped.
#[derive(Default)]
pub struct Wishes<'a> {
    /// Flags and configuration of the nodes.
    pub args: &'a [&'a str],
    pub limits: &'a str,
    pub read_timeout_secs: Option<u32>,
}

impl Front {
    pub fn start(wishes: Wishes) -> Front {
        let doors = Doors::new();
        let env = &[("THRONG_TOKEN_SECRET", SECRET)];
        let mut cluster = Cluster::over(Server::start(), 2, env);
        let config = format!("trusted_proxies = {LOCAL:?}\n[limits]\n{}\n", wishes.limits);
        for seat in 0..2 {
            let setup = cluster.setup(seat).config(&config).args(wishes.args);
            let node = setup.args(&["--public-url", &named(doors, seat)]).start();
            cluster.seat(seat, node);
        }
        cluster.await_each_other();
        let nodes = [0, 1].map(|seat| cluster.node(seat).ws);
        Front {
            nginx: Nginx::start(doors, nodes, wishes.read_timeout_secs),
            doors,
            cluster,
        }
    }

    /// A client of an address, at any node; the error is the answer that refuses.
    pub fn come(&self, from: &str, fields: &[&str]) -> Result<Client, String> {
        knock(self.doors.plain, from, "/websocket", fields)
    }

    /// A client of `user` that has been greeted, at whatever is served under this path.
    pub fn join(&self, user: &str, path: &str) -> Client {
        let running = self.cluster.nodes().last().expect("a node runs");
        let target = format!("{path}?token={}", running.token(user));
        let mut client = knock(self.doors.plain, "127.0.0.1", &target, &[]).unwrap();
        assert_eq!(client.hear()["msg"]["userId"], user);
        client
    }

    /// How many clients each node has.
    pub fn spread(&self) -> [f64; 2] {
        [0, 1].map(|seat| self.cluster.node(seat).metric("connections"))
    }
}

/// Where one node is reached by its name.
pub fn named(doors: Doors, seat: usize) -> String {
    format!("ws://{}{}", doors.plain, path(seat))
}

pub fn path(seat: usize) -> String {
    format!("/{}/websocket", seat + 1)
}

fn knock(door: SocketAddr, from: &str, target: &str, fields: &[&str]) -> Result<Client, String> {
    let mut client = Client::over(dial_from(from, door));
    client.write(request(target, fields).as_bytes());
    client.expect_upgrade().map(|()| client)
}
