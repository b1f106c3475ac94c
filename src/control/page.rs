//! The status page: one file without anything from elsewhere, filled by its own script.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::Desk;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page and the policy that lets nothing but this very script and style run in it.
pub struct Page {
    html: String,
    policy: HeaderValue,
}

impl Page {
    pub fn new() -> Page {
        let html = include_str!("page.html")
            .replace("/*style*/", STYLE)
            .replace("/*script*/", SCRIPT);
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(SCRIPT),
            hash(STYLE)
        );
        let policy = HeaderValue::from_str(&policy).expect("a policy of ASCII letters");
        Page { html, policy }
    }

    /// For those who have not given the API key: the page will ask for it.
    pub fn locked(&self) -> Response {
        (StatusCode::UNAUTHORIZED, self.response()).into_response()
    }

    fn response(&self) -> Response {
        let mut response = Html(self.html.clone()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        );
        response
    }
}

pub async fn show(State(desk): State<Arc<Desk>>) -> Response {
    desk.page.response()
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}
