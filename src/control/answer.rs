//! The one shape of answers, and how a request's body becomes a value.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::protocol::body;
use crate::protocol::order::{Fault, OK_TEXT, Reply, SOME_UNKNOWN};

/// `{"success","statusCode","content","msg"}` and its HTTP status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    #[serde(skip)]
    http: StatusCode,
    success: bool,
    status_code: i32,
    content: Value,
    msg: String,
}

impl Answer {
    pub fn ok(content: Value) -> Answer {
        let http = StatusCode::OK;
        Answer {
            http,
            success: true,
            status_code: 200,
            content,
            msg: OK_TEXT.to_owned(),
        }
    }

    pub fn error(http: StatusCode, msg: impl Into<String>) -> Answer {
        let status_code = i32::from(http.as_u16());
        Answer {
            http,
            success: false,
            status_code,
            content: Value::Null,
            msg: msg.into(),
        }
    }

    pub fn bad(msg: impl Into<String>) -> Answer {
        Answer::error(StatusCode::BAD_REQUEST, msg)
    }

    pub fn with(self, content: Value) -> Answer {
        Answer { content, ..self }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        let http = match reply.status {
            SOME_UNKNOWN => StatusCode::OK,
            status => u16::try_from(status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        };
        Answer {
            http,
            success: reply.status == 200,
            status_code: reply.status,
            content: reply.content,
            msg: reply.msg.into_owned(),
        }
    }
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Answer {
        Reply::from(fault).into()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("strings and numbers have a JSON form");
        (
            self.http,
            [(header::CONTENT_TYPE, "application/json")],
            body,
        )
            .into_response()
    }
}

/// The body of a POST, as JSON.
pub async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Answer> {
    let body = read_body(request).await?;
    body::read(&body).map_err(Answer::bad)
}

/// The body of a POST that says it is JSON.
pub async fn read_body(request: Request) -> Result<Bytes, Answer> {
    if !is_json(request.headers()) {
        let msg = "the body must be sent with Content-Type: application/json";
        return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, msg));
    }
    Bytes::from_request(request, &())
        .await
        .map_err(|rejection| {
            let status = rejection.status();
            let msg = match status {
                StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
                _ => "the body did not arrive whole",
            };
            Answer::error(status, msg)
        })
}

fn is_json(headers: &HeaderMap) -> bool {
    let text = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = text
        .and_then(|text| text.split(';').next())
        .unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/json")
}
