//! A reactor's own door: a listening socket among others on the same port, and the descriptor
//! that is kept back for the day when there are no more.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// A peer that acknowledges nothing for so long is gone (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent peer is asked after this long, and then every `KEEPALIVE_INTERVAL`.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(300);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Listens on `addr` beside others that do (`SO_REUSEPORT`). What is set here is inherited by
/// every connection that it accepts, so that none of them costs a call for it. `keeps_alive`: the
/// kernel asks silent peers whether they are there.
pub fn listen(addr: SocketAddr, backlog: u32, keeps_alive: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    if keeps_alive {
        let keepalive = TcpKeepalive::new();
        let keepalive = keepalive.with_time(KEEPALIVE_AFTER);
        socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE_INTERVAL))?;
    }
    if addr.is_ipv6() {
        // One address family a listener, or `::` would quietly serve IPv4 as well.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(backlog.min(i32::MAX as u32) as i32)?;
    Ok(socket.into())
}

/// A port that is held, and not listened on, so that nobody else takes it.
pub struct ReservedPort {
    _socket: Socket,
    /// With the port chosen.
    pub addr: SocketAddr,
}

/// Makes sure that nobody else serves `addr`: with `SO_REUSEPORT` a second process would share
/// the port in silence. To be held until [`listen`] has been called.
pub fn reserve_port(addr: SocketAddr) -> io::Result<ReservedPort> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    // Bound alone. From now on our own listeners may stand beside it, and nobody else, whom
    // SO_REUSEADDR would let in for as long as nobody listens.
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(false)?;
    let addr = socket.local_addr()?.as_socket();
    let addr = addr.ok_or_else(|| io::Error::other("not an internet address"))?;
    Ok(ReservedPort {
        _socket: socket,
        addr,
    })
}

/// One descriptor that is given up to answer a newcomer when the table is full: accept is
/// edge-triggered, so whoever is left in the queue would wait in silence.
pub struct Reserve(Option<File>);

impl Reserve {
    pub fn new() -> Reserve {
        Reserve(File::open("/dev/null").ok())
    }

    /// Frees the descriptor; false if there was none.
    pub fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Takes one again, if there is one.
    pub fn take_back(&mut self) {
        self.0 = self.0.take().or_else(|| File::open("/dev/null").ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_for_our_own_listeners_only() {
        let any = "127.0.0.1:0".parse().unwrap();
        let reserved = reserve_port(any).unwrap();
        let addr = reserved.addr;
        assert_ne!(addr.port(), 0);
        let is_taken = || reserve_port(addr).is_err() && StdListener::bind(addr).is_err();
        assert!(is_taken());
        let first = listen(addr, 8, false).unwrap();
        let second = listen(addr, 8, false).unwrap();
        drop(reserved);
        assert!(is_taken());
        drop((first, second));
        assert!(reserve_port(addr).is_ok());
    }
}
