//! What the node is called and where it is found, and the lines that tell it.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::hub::node::Node;
use crate::protocol::identity::Identity;
use crate::session::auth::Auth;

/// The demo token lives for a day.
const DEMO_TOKEN_MS: u64 = 24 * 3600 * 1000;

/// What the node is called, and where its clients find it.
pub struct Names {
    /// `ip:apiPort`.
    pub node: String,
    pub ws_url: String,
    /// What clients of other nodes are told.
    pub public_url: Option<String>,
}

impl Names {
    /// `towards`: this machine's address as the other nodes may reach it.
    pub fn of(
        config: &Config,
        listen: SocketAddr,
        api: SocketAddr,
        towards: Option<IpAddr>,
    ) -> Names {
        let ws_url = format!("ws://{}{}", reachable(listen), config.path);
        let is_local = listen.ip().is_loopback();
        let configured = config.public_url.clone();
        Names {
            node: node_name(config.advertise.as_deref(), api, towards),
            public_url: configured.or_else(|| is_local.then(|| ws_url.clone())),
            ws_url,
        }
    }

    pub fn node(&self, max_connections: usize) -> Node {
        let public_url = self.public_url.clone();
        Node::new(
            self.node.clone(),
            self.ws_url.clone(),
            public_url,
            max_connections,
        )
    }
}

/// The address as a client on this machine would use it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    addr
}

/// `ip:apiPort`: as advertised, else by the address `towards` the other nodes, else by the local
/// one.
fn node_name(advertise: Option<&str>, api: SocketAddr, towards: Option<IpAddr>) -> String {
    if let (None, Some(ip)) = (advertise, towards) {
        return SocketAddr::new(ip, api.port()).to_string();
    }
    match advertise {
        Some(name) if has_port(name) => name.to_owned(),
        Some(host) => format!("{host}:{}", api.port()),
        None if api.ip().is_unspecified() => SocketAddr::new(
            local_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            api.port(),
        )
        .to_string(),
        None => api.to_string(),
    }
}

fn has_port(name: &str) -> bool {
    let port = name
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The address from which this machine would reach a host. Connecting a UDP socket sends nothing.
pub fn local_ip_towards(host: &str, port: u16) -> Option<IpAddr> {
    let peer = (host, port).to_socket_addrs().ok()?.next()?;
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The address from which this machine would reach others. Connecting a UDP socket sends nothing.
fn local_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// One line for programs on standard output, the demo token for people on standard error.
/// Nobody may be reading either; the node serves all the same.
pub fn announce(node: &Node, api: SocketAddr, auth: &Auth) {
    if let Auth::Hmac(keys) = auth {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let expires_ms = now.as_millis() as u64 + DEMO_TOKEN_MS;
        if let Ok(demo) = Identity::new("demo", "") {
            let token = keys.sign(&demo, expires_ms, &[]);
            let _ = writeln!(
                io::stderr(),
                "demo token (user demo, one day): {token}\ntry: {}?token={token}",
                node.ws_url
            );
        }
    }
    let mut out = io::stdout().lock();
    let _ = writeln!(
        out,
        "ready ws={} api=http://{} node={}",
        node.ws_url,
        reachable(api),
        node.name
    );
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_as_advertised_or_by_its_api_address() {
        let api: SocketAddr = "127.0.0.1:8084".parse().unwrap();
        assert_eq!(node_name(None, api, None), "127.0.0.1:8084");
        let towards = Some([10, 0, 0, 7].into());
        assert_eq!(node_name(None, api, towards), "10.0.0.7:8084");
        assert_eq!(node_name(Some("gw-1"), api, towards), "gw-1:8084");
        assert_eq!(node_name(Some("gw-1:99"), api, None), "gw-1:99");
        assert_eq!(node_name(Some("[::1]"), api, None), "[::1]:8084");
        assert_eq!(node_name(Some("[::1]:99"), api, None), "[::1]:99");
    }
}
