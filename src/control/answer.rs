//! The one shape of answers, and how a request's body becomes a value.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const DONE: &str = "操作成功";
const SOME_UNKNOWN: &str = "存在找不到的客户端";
/// `statusCode` where some of the ids that were named are not here.
const UNKNOWN_IDS: i32 = -501;

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
            msg: DONE.to_owned(),
        }
    }

    /// HTTP 200, but no success: `ids` are not here.
    pub fn unknown(ids: Vec<String>) -> Answer {
        Answer {
            http: StatusCode::OK,
            success: false,
            status_code: UNKNOWN_IDS,
            content: ids.into(),
            msg: SOME_UNKNOWN.to_owned(),
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
    if !is_json(request.headers()) {
        let msg = "the body must be sent with Content-Type: application/json";
        return Err(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, msg));
    }
    let body = Bytes::from_request(request, &())
        .await
        .map_err(|rejection| {
            let status = rejection.status();
            let msg = match status {
                StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
                _ => "the body did not arrive whole",
            };
            Answer::error(status, msg)
        })?;
    serde_json::from_slice(&body)
        .map_err(|e| Answer::bad(format!("the body is not as expected: {e}")))
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
