//! The opening handshake (RFC 6455 section 4.2): a request head in, a request or a refusal out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::mem::MaybeUninit;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use tungstenite::handshake::derive_accept_key;

use super::envelope::Text;
use super::limits::{Limit, Limits};
use super::metadata::TooMuchMetadata;

/// The subprotocol that we speak; `bearer.<token>` may stand beside it.
pub const SUBPROTOCOL: &str = "throng";
const BEARER: &str = "bearer.";
/// Header fields of a request at most, whatever the configuration says.
pub const HEADERS_MAX: usize = 256;

/// Why a handshake is refused: an HTTP status and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub why: &'static str,
    /// The limit that the request is past, where it is one.
    pub limit: Option<Limit>,
}

const fn refuse(status: u16, why: &'static str) -> Refusal {
    Refusal {
        status,
        why,
        limit: None,
    }
}

const fn past(limit: Limit, status: u16, why: &'static str) -> Refusal {
    Refusal {
        status,
        why,
        limit: Some(limit),
    }
}

/// What was asked for, if it is HTTP at all.
#[derive(Debug)]
pub struct Request<'a> {
    /// Without the query.
    pub path: &'a str,
    query: &'a str,
    method: &'a str,
    is_http_1_1: bool,
    host: Single<'a>,
    upgrade: bool,
    connection: bool,
    key: Single<'a>,
    version: Single<'a>,
    origin: Single<'a>,
    authorization: Single<'a>,
    offers: Option<Offers<'a>>,
    /// Each of them counts: proxies append fields as well as entries.
    forwarded_for: SmallVec<[&'a str; 2]>,
    has_body: bool,
}

/// A header field that may stand once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Single<'a> {
    #[default]
    Absent,
    Value(&'a str),
    Repeated,
}

impl<'a> Single<'a> {
    fn put(&mut self, value: &'a str) {
        *self = if *self == Single::Absent {
            Single::Value(value)
        } else {
            Single::Repeated
        };
    }

    fn value(self) -> Option<&'a str> {
        match self {
            Single::Value(value) => Some(value),
            Single::Absent | Single::Repeated => None,
        }
    }
}

/// What of the subprotocols offered is ours.
#[derive(Clone, Copy, Debug, Default)]
struct Offers<'a> {
    ours: bool,
    token: Option<&'a str>,
}

/// Where the head ends that `bytes` begins with, if it has arrived; `from` bytes were looked at.
///
/// Errors: a head that is over its limits already, ended or not; something that is no HTTP.
pub fn head_end(bytes: &[u8], from: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
    // TLS and other protocols are told apart by their first byte, and need not be waited for.
    if bytes
        .first()
        .is_some_and(|&b| !b.is_ascii_alphabetic() && b != b'\r' && b != b'\n')
    {
        return Err(refuse(400, "this is not HTTP"));
    }
    let from = from.saturating_sub(3);
    let end = memchr::memmem::find(&bytes[from..], b"\r\n\r\n").map(|at| from + at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    let line_max = limits.request_line_bytes_max;
    // The line's own end does not count, whether it is a line feed or two bytes, of which only
    // the first may have arrived.
    let line_end = memchr::memchr(b'\n', &head[..head.len().min(line_max + 2)]);
    let line = &head[..line_end.unwrap_or(head.len())];
    if line.len() - usize::from(line.ends_with(b"\r")) > line_max {
        return Err(past(Limit::RequestLine, 414, "request line too long"));
    }
    // Neither does the empty line behind the fields.
    let fields = head.len() - line_end.map_or(head.len(), |at| at + 1);
    if fields > limits.header_bytes_max + 2 {
        return Err(past(Limit::HeaderBytes, 431, "header fields too large"));
    }
    Ok(end)
}

impl<'a> Request<'a> {
    /// `head`: up to and with the empty line.
    pub fn parse(head: &'a [u8], limits: &Limits) -> Result<Request<'a>, Refusal> {
        let mut fields = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let room = &mut fields[..limits.headers_max.min(HEADERS_MAX)];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(past(Limit::Headers, 431, "too many header fields"));
            }
            Err(httparse::Error::Version) => {
                return Err(refuse(505, "HTTP/1.1 is needed"));
            }
            _ => return Err(refuse(400, "malformed request")),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(refuse(400, "malformed request"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            path,
            query,
            method,
            is_http_1_1: parsed.version == Some(1),
            host: Single::Absent,
            upgrade: false,
            connection: false,
            key: Single::Absent,
            version: Single::Absent,
            origin: Single::Absent,
            authorization: Single::Absent,
            offers: None,
            forwarded_for: SmallVec::new(),
            has_body: false,
        };
        for field in parsed.headers.iter() {
            request.take(field.name, field.value)?;
        }
        Ok(request)
    }

    fn take(&mut self, name: &str, value: &'a [u8]) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let text = || {
            std::str::from_utf8(value)
                .map(str::trim)
                .map_err(|_| refuse(400, "a header field is not text"))
        };
        let lists = |text: &'a str, token: &str| {
            text.split(',')
                .any(|part| part.trim().eq_ignore_ascii_case(token))
        };
        if is("host") {
            self.host.put(text()?);
        } else if is("upgrade") {
            self.upgrade |= lists(text()?, "websocket");
        } else if is("connection") {
            self.connection |= lists(text()?, "upgrade");
        } else if is("sec-websocket-key") {
            self.key.put(text()?);
        } else if is("sec-websocket-version") {
            self.version.put(text()?);
        } else if is("origin") {
            self.origin.put(text()?);
        } else if is("authorization") {
            self.authorization.put(text()?);
        } else if is("sec-websocket-protocol") {
            let offers = self.offers.get_or_insert_default();
            for part in text()?.split(',').map(str::trim) {
                offers.ours |= part == SUBPROTOCOL;
                offers.token = offers.token.or(part.strip_prefix(BEARER));
            }
        } else if is("x-forwarded-for") {
            // Anybody may send it, so one that is no text is no fault: it names nobody.
            self.forwarded_for.push(text().unwrap_or_default());
        } else if is("content-length") {
            self.has_body |= text()? != "0";
        } else if is("transfer-encoding") {
            self.has_body = true;
        }
        Ok(())
    }

    /// A probe that is answered without an upgrade.
    pub fn is_health_probe(&self) -> bool {
        self.path == "/health" && matches!(self.method, "GET" | "HEAD")
    }

    /// The handshake's accept key, if this is one (RFC 6455 section 4.2.1).
    pub fn accept_key(&self) -> Result<String, Refusal> {
        if self.method != "GET" {
            return Err(refuse(405, "only GET is served here"));
        }
        if !self.is_http_1_1 {
            return Err(refuse(505, "HTTP/1.1 is needed"));
        }
        if self.host.value().is_none_or(str::is_empty) {
            return Err(refuse(400, "one Host header field is needed"));
        }
        if self.has_body {
            return Err(refuse(400, "an upgrade has no body"));
        }
        if !self.upgrade || !self.connection {
            return Err(refuse(
                400,
                "this is a WebSocket endpoint: Upgrade is missing",
            ));
        }
        if self.version.value() != Some("13") {
            return Err(refuse(426, "WebSocket version 13 is needed"));
        }
        let key = self
            .key
            .value()
            .ok_or(refuse(400, "one Sec-WebSocket-Key is needed"))?;
        let mut nonce = [0; 18];
        if key.len() != 24 || STANDARD.decode_slice(key, &mut nonce) != Ok(16) {
            return Err(refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64"));
        }
        Ok(derive_accept_key(key.as_bytes()))
    }

    /// The Origin, as browsers send it. Errors: more than one.
    pub fn origin(&self) -> Result<Option<&'a str>, Refusal> {
        match self.origin {
            Single::Absent => Ok(None),
            Single::Value(origin) => Ok(Some(origin)),
            Single::Repeated => Err(refuse(400, "more than one Origin")),
        }
    }

    /// The `X-Forwarded-For` fields, in their order: true only as far as whoever wrote them is.
    pub fn forwarded_for(&self) -> &[&'a str] {
        &self.forwarded_for
    }

    /// The token, from the query, the Authorization field or the subprotocols, in this order.
    pub fn token(&self) -> Option<Cow<'a, str>> {
        self.parameter("token").or_else(|| {
            let bearer = self.authorization.value().and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
            });
            bearer
                .or(self.offers.and_then(|offers| offers.token))
                .map(Cow::Borrowed)
        })
    }

    /// A query parameter, decoded; the first one counts.
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.raw_parameters()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| decoded(value))
    }

    pub fn has_parameters(&self) -> bool {
        !self.query.is_empty()
    }

    /// The query parameters except those called as in `names`, decoded, in their order.
    pub fn parameters_but(
        &self,
        names: &'static [&'static str],
    ) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        self.raw_parameters()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (decoded(key), value))
            .filter(move |(key, _)| !names.contains(&key.as_ref()))
            .map(|(key, value)| (key, decoded(value)))
    }

    fn raw_parameters(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = Some(self.query);
        std::iter::from_fn(move || {
            let (pair, behind) = split_at(rest?, b'&');
            rest = behind;
            let (key, value) = split_at(pair, b'=');
            Some((key, value.unwrap_or_default()))
        })
    }

    /// Appends the 101 answer.
    pub fn write_accept(&self, accept_key: &str, out: &mut Vec<u8>) {
        let mut out = Text(out);
        out.raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
        out.raw(accept_key);
        if self.offers.is_some_and(|offers| offers.ours) {
            out.raw("\r\nSec-WebSocket-Protocol: throng");
        }
        out.raw("\r\n\r\n");
    }
}

impl Refusal {
    /// The node takes nobody at present.
    pub const UNAVAILABLE: Refusal = refuse(503, "this node is full");
    pub const DRAINING: Refusal = refuse(503, "this node is draining");
    pub const FORBIDDEN_ORIGIN: Refusal = refuse(403, "this Origin is not allowed");
    pub const BAD_TOKEN: Refusal = refuse(401, "the token is refused");
    pub const BAD_OPENID: Refusal = refuse(400, "openid is not a user id");
    pub const NOT_FOUND: Refusal = refuse(404, "there is no such path");
    pub const TIMEOUT: Refusal = past(Limit::Handshake, 408, "the request took too long");
    pub const BAD_PROXY_HEADER: Refusal = refuse(400, "this is no PROXY header of version 2");
    pub const BAD_DEVICE: Refusal = refuse(400, "device is not 1 to 64 of [A-Za-z0-9_.-]");
    pub const BAD_CURSOR: Refusal = refuse(400, "cursor is not <epoch>:<seq>");

    /// What a connection may say of itself.
    pub const fn of_metadata(error: TooMuchMetadata) -> Refusal {
        let limit = match error {
            TooMuchMetadata::Pairs => Limit::MetadataPairs,
            TooMuchMetadata::Bytes => Limit::Metadata,
        };
        past(
            limit,
            400,
            "more query parameters than a connection may have",
        )
    }

    /// What one address may have on a node.
    pub const fn of_address(limit: Limit) -> Refusal {
        past(limit, 503, "too many connections from this address")
    }

    /// Appends the whole answer, after which the connection closes. `retry_secs` goes with 503.
    pub fn write(self, retry_secs: u32, out: &mut Vec<u8>) {
        let Refusal { status, why, .. } = self;
        let mut out = Text(out);
        let _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason_phrase(status));
        match status {
            401 => out.raw("WWW-Authenticate: Bearer\r\n"),
            405 => out.raw("Allow: GET\r\n"),
            426 => out.raw("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"),
            503 => {
                let _ = write!(out, "Retry-After: {retry_secs}\r\n");
            }
            _ => {}
        }
        let connection = if status == 426 {
            "close, Upgrade"
        } else {
            "close"
        };
        let _ = write!(
            out,
            "Connection: {connection}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{why}\n",
            why.len() + 1
        );
    }
}

/// What stands before and behind the first `mark`, which is ASCII. A query is mostly its token:
/// `str::split` takes several times as long for it.
fn split_at(text: &str, mark: u8) -> (&str, Option<&str>) {
    match memchr::memchr(mark, text.as_bytes()) {
        None => (text, None),
        Some(at) => (&text[..at], Some(&text[at + 1..])),
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    match memchr::memchr(b'%', text.as_bytes()) {
        None => Cow::Borrowed(text),
        Some(_) => percent_decode_str(text).decode_utf8_lossy(),
    }
}

/// Appends the answer to a health probe, after which the connection closes.
pub fn write_health(request: &Request<'_>, is_draining: bool, out: &mut Vec<u8>) {
    let body = if is_draining { "draining\n" } else { "ok\n" };
    let status = if is_draining { 503 } else { 200 };
    let mut out = Text(out);
    let _ = write!(
        out,
        "HTTP/1.1 {status} {}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        reason_phrase(status),
        body.len()
    );
    if request.method != "HEAD" {
        out.raw(body);
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

/// The host of an Origin such as `http://localhost:3000`, without its port.
fn origin_host(origin: &str) -> Option<&str> {
    let (_, authority) = origin.split_once("://")?;
    if let Some(v6) = authority.strip_prefix('[') {
        return v6.split_once(']').map(|(host, _)| host);
    }
    Some(
        authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    )
}

/// True for an Origin on this machine: names that no foreign page can have.
pub fn is_loopback_origin(origin: &str) -> bool {
    origin_host(origin).is_some_and(|host| {
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    })
}

#[cfg(test)]
mod tests;
