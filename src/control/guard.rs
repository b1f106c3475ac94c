//! Who may ask, and what every answer carries.
//!
//! With an API key, whoever knows it. Without one, this machine: the listener is on loopback, and
//! the Host must be a loopback name, so that no web page can reach it through a name of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Desk;
use super::answer::Answer;
use super::serve::Ambiguous;
use crate::protocol::limits::Limit;

/// From the head of a request to its answer; only a body that trickles in takes longer.
const REQUEST_SECS: u64 = 30;

/// Compares keys by their MACs: the time it takes says nothing about the key.
pub struct KeyCheck {
    mac: Hmac<Sha256>,
    expected: [u8; 32],
}

impl KeyCheck {
    pub fn new(key: &str) -> KeyCheck {
        let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes());
        let mac = mac.expect("HMAC takes a key of any length");
        let expected = mac.clone().chain_update(key).finalize().into_bytes().into();
        KeyCheck { mac, expected }
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let text = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let Some((scheme, key)) = text.and_then(|text| text.split_once(' ')) else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer")
            && self
                .mac
                .clone()
                .chain_update(key.trim())
                .verify_slice(&self.expected)
                .is_ok()
    }
}

/// Every request passes here, also those for nothing.
pub async fn receive(State(desk): State<Arc<Desk>>, mut request: Request, next: Next) -> Response {
    let live = desk.live.get();
    DefaultBodyLimit::max(live.rules.limits.http_body_bytes_max).apply(&mut request);
    let mut response = match refusal(&desk, live.api_key.as_deref(), &request) {
        Some(refused) => refused,
        None => {
            let limit = Duration::from_secs(REQUEST_SECS);
            tokio::time::timeout(limit, next.run(request))
                .await
                .unwrap_or_else(|_| late())
        }
    };
    desk.metrics.count_request(response.status());
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        desk.note_strike(Limit::HttpBody);
    }
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn refusal(desk: &Desk, key: Option<&str>, request: &Request) -> Option<Response> {
    if request.extensions().get::<Ambiguous>().is_some() {
        let answer = Answer::bad("a body has either a Content-Length or a Transfer-Encoding");
        return Some(closing(answer.into_response()));
    }
    let path = request.uri().path();
    if matches!(path, "/health" | "/ready") {
        return None;
    }
    match key.map(KeyCheck::new) {
        Some(key) if key.accepts(request.headers()) => None,
        Some(_) => {
            // The page holds nothing secret, and is where a person can give the key.
            let mut response = match path {
                "/" => desk.page.locked(),
                _ => Answer::error(
                    StatusCode::UNAUTHORIZED,
                    "this needs the API key: Authorization: Bearer KEY",
                )
                .into_response(),
            };
            let challenge = HeaderValue::from_static("Bearer realm=\"throng\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
            Some(response)
        }
        None if is_for_loopback(request) => None,
        None => {
            let msg = "without an API key only requests for localhost are heard";
            Some(Answer::error(StatusCode::FORBIDDEN, msg).into_response())
        }
    }
}

fn late() -> Response {
    closing(Answer::error(StatusCode::REQUEST_TIMEOUT, "the body took too long").into_response())
}

fn closing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_for_loopback(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let named = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    host.to_str().is_ok_and(is_loopback_name) && named.is_none_or(is_loopback_name)
}

/// `localhost`, 127.0.0.0/8 or `[::1]`, with any port or none.
fn is_loopback_name(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(ip, port)| {
            is_loopback_ip(ip) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || is_loopback_ip(name))
}

fn is_loopback_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback_names() {
        for good in [
            "localhost",
            "LOCALHOST:8084",
            "127.0.0.1",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:8084",
        ] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1:8084",
            "[::2]:8084",
            "::1",
            "localhost:80:80",
            "localhost:evil",
            "[::1]evil",
            "a@localhost",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_whole_key_is_the_key() {
        let check = KeyCheck::new("0123456789abcdef0123456789abcdef");
        let accepts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap());
            check.accepts(&headers)
        };
        assert!(accepts("Bearer 0123456789abcdef0123456789abcdef"));
        assert!(accepts("bearer 0123456789abcdef0123456789abcdef"));
        for bad in [
            "Bearer",
            "Bearer ",
            "0123456789abcdef0123456789abcdef",
            "Basic 0123456789abcdef0123456789abcdef",
            "Bearer 0123456789abcdef0123456789abcde",
            "Bearer 0123456789abcdef0123456789abcdef0",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(!check.accepts(&HeaderMap::new()));
    }
}
