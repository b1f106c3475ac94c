//! Where a Redis is, as an operator writes it, and connections to it.
//!
//! - `redis://[user:password@]host[:port][/db]`, `rediss://…` over TLS
//! - `redis+unix:///path/of/socket[?db=…&user=…&pass=…]`
//! - `redis+sentinel://[user:password@]host[:port][,host…]/master[/db]`, or `rediss+sentinel://…`:
//!   the sentinels say who is the master now. User and password are the server's; sentinels are
//!   asked without.
//!
//! Certificates are proven by the system's authorities, or by the one that is configured.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Everything is served by one thread: one that waits for longer serves nobody.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that nobody acknowledges mean a peer that is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
const SENTINEL_PORT: u16 = 26379;

#[derive(Clone, Debug)]
pub struct Address {
    place: Place,
    login: RedisConnectionInfo,
    is_tls: bool,
    /// PEM.
    authority: Option<Vec<u8>>,
    /// As it was written, without the password.
    shown: String,
}

#[derive(Clone, Debug)]
enum Place {
    Server(ConnectionAddr),
    Sentinels {
        addrs: Vec<(String, u16)>,
        master: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no address of a Redis: write redis://, rediss:// or redis+sentinel://host:port/…, or \
     redis+unix:///path"
)]
pub struct NoAddress;

impl Address {
    pub fn parse(text: &str) -> Result<Address, NoAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(NoAddress)?;
        let (place, login, is_tls) = match scheme {
            "redis+sentinel" | "rediss+sentinel" => {
                let (place, login) = sentinels(rest).ok_or(NoAddress)?;
                (place, login, scheme.starts_with("rediss"))
            }
            "redis" | "rediss" | "redis+unix" => {
                let info = text.into_connection_info().map_err(|_| NoAddress)?;
                let login = info.redis_settings().clone();
                (
                    Place::Server(info.addr().clone()),
                    login,
                    scheme == "rediss",
                )
            }
            _ => return Err(NoAddress),
        };
        Ok(Address {
            place,
            login: login.set_skip_set_lib_name(),
            is_tls,
            authority: None,
            shown: without_secrets(scheme, rest),
        })
    }

    /// Certificates are proven by this authority (PEM) and no other.
    pub fn trusting(self, authority: Vec<u8>) -> Address {
        Address {
            authority: Some(authority),
            ..self
        }
    }

    /// With another password than the one that was written.
    pub fn with_password(mut self, password: &str) -> Address {
        self.login = self.login.set_password(password);
        self
    }

    /// The host that is connected to first, where there is one.
    pub fn peer(&self) -> Option<(String, u16)> {
        match &self.place {
            Place::Server(
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. },
            ) => Some((host.clone(), *port)),
            Place::Server(_) => None,
            Place::Sentinels { addrs, .. } => addrs.first().cloned(),
        }
    }

    /// One more connection, with time-outs; what sentinels are asked for is asked now.
    pub fn connect(&self) -> Result<Connection, RedisError> {
        let addr = match &self.place {
            Place::Server(addr) => addr.clone(),
            Place::Sentinels { addrs, master } => self.master(addrs, master)?,
        };
        self.open(addr, self.login.clone())
    }

    fn open(
        &self,
        addr: ConnectionAddr,
        login: RedisConnectionInfo,
    ) -> Result<Connection, RedisError> {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE);
        let settings = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(USER_TIMEOUT);
        let info = addr
            .into_connection_info()?
            .set_tcp_settings(settings)
            .set_redis_settings(login);
        let client = self.client(info)?;
        let connection = client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        if !self.is_tls {
            return Client::open(info);
        }
        // Whoever chose before has chosen the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: self.authority.clone(),
        };
        Client::build_with_tls(info, certificates)
    }

    /// Whom the first sentinel that answers takes for the master.
    fn master(&self, addrs: &[(String, u16)], name: &str) -> Result<ConnectionAddr, RedisError> {
        let mut failure = RedisError::from((redis::ErrorKind::EmptySentinelList, "no sentinel"));
        let plain = RedisConnectionInfo::default().set_skip_set_lib_name();
        for (host, port) in addrs {
            let found = self.open(self.tcp(host.clone(), *port), plain.clone());
            let asked = found.and_then(|mut sentinel| {
                redis::cmd("SENTINEL")
                    .arg("get-master-addr-by-name")
                    .arg(name)
                    .query::<Option<(String, u16)>>(&mut sentinel)
            });
            match asked {
                Ok(Some((host, port))) => return Ok(self.tcp(host, port)),
                Ok(None) => {
                    let kind = redis::ErrorKind::MasterNameNotFoundBySentinel;
                    failure = (kind, "the sentinels know no master of this name").into();
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn tcp(&self, host: String, port: u16) -> ConnectionAddr {
        if !self.is_tls {
            return ConnectionAddr::Tcp(host, port);
        }
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

fn without_secrets(scheme: &str, rest: &str) -> String {
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    let place = place.split('?').next().unwrap_or_default();
    format!("{scheme}://{place}")
}

fn sentinels(rest: &str) -> Option<(Place, RedisConnectionInfo)> {
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let mut login = RedisConnectionInfo::default();
    if let Some(user) = user {
        let (name, password) = user.split_once(':')?;
        if !name.is_empty() {
            login = login.set_username(percent_decode_str(name).decode_utf8().ok()?);
        }
        login = login.set_password(percent_decode_str(password).decode_utf8().ok()?);
    }
    let mut parts = rest.split('/');
    let addrs: Option<Vec<_>> = parts.next()?.split(',').map(sentinel).collect();
    let master = parts.next().filter(|name| !name.is_empty())?.to_owned();
    if let Some(db) = parts.next() {
        login = login.set_db(db.parse().ok()?);
    }
    let addrs = addrs?;
    parts
        .next()
        .is_none()
        .then_some((Place::Sentinels { addrs, master }, login))
}

fn sentinel(text: &str) -> Option<(String, u16)> {
    let is_bare = text.ends_with(']') || !text.contains(':');
    let (host, port) = match text.rsplit_once(':').filter(|_| !is_bare) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, SENTINEL_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_understood() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost"),
            ("redis://u:p%40@h:1/2", "redis://h:1/2"),
            ("rediss://:secret@h:1", "rediss://h:1"),
            (
                "redis+unix:///run/r.sock?pass=secret",
                "redis+unix:///run/r.sock",
            ),
            (
                "redis+sentinel://u:p@a,b:2/main/3",
                "redis+sentinel://a,b:2/main/3",
            ),
            (
                "rediss+sentinel://[::1]/main",
                "rediss+sentinel://[::1]/main",
            ),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis+sentinel://a,b",
            "redis+sentinel:///main",
            "redis+sentinel://a:port/main",
            "redis+sentinel://user@a/main",
            "redis+sentinel://a/main/x",
            "redis+sentinel://a/main/1/2",
        ] {
            assert_eq!(Address::parse(text).err(), Some(NoAddress), "{text}");
        }
    }

    #[test]
    fn sentinels_have_their_own_port_and_the_servers_user() {
        let (place, login) = sentinels("u%20v:p%2Fw@a,[::1]:7/main/3").unwrap();
        let Place::Sentinels { addrs, master } = place else {
            panic!("{place:?}");
        };
        assert_eq!(
            addrs,
            [("a".to_owned(), SENTINEL_PORT), ("::1".to_owned(), 7)]
        );
        assert_eq!(master, "main");
        assert_eq!(
            (login.username(), login.password()),
            (Some("u v"), Some("p/w"))
        );
        assert_eq!(login.db(), 3);
    }
}
