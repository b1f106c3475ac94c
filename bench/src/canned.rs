//! The bytes that the floor sends: those of a gateway, made beforehand.

use throng::protocol::envelope::{Body, Envelope, MessageId, Trigger};
use throng_loadtest::frame::{self, TEXT};
use throng_loadtest::message::{self, BODY_BYTES};

/// A user id as long as the crowd's.
const UID: &str = "load-000000000000000000000001234";
const SESSION: &str = "127.0.0.1:8084_load-000000000000000000000001234_20261121091500";
const ACTIVE_MS: u64 = 1_795_252_500_123;

/// The answer to an upgrade with the connected notice behind it.
pub fn greeting() -> Vec<u8> {
    let mut wire = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        message::ACCEPT
    )
    .into_bytes();
    let code = "c".repeat(118);
    let msg = format!(
        "{{\"userCode\":\"{code}\",\"userId\":\"{UID}\",\"userName\":\"{UID}\",\
         \"epoch\":\"0123456789abcdef\",\"headSeq\":0}}"
    );
    let tail = Envelope {
        body: Body::Raw(&msg),
        msg_type: 0,
        from: "system",
        ..envelope()
    };
    frame::write_plain(&mut wire, TEXT, &with_head(&tail));
    wire
}

/// The answer to a registration.
pub fn registered() -> Vec<u8> {
    let mut wire = Vec::new();
    let text = format!(
        "{{\"type\":8,\"status\":200,\"params\":{{\"openid\":\"{UID}\",\"userName\":\"{UID}\",\
         \"loginStatus\":\"1\",\"sessionId\":\"{SESSION}\",\"epoch\":\"0123456789abcdef\",\"headSeq\":0}}}}"
    );
    frame::write_plain(&mut wire, TEXT, text.as_bytes());
    wire
}

/// A broadcast of the `msg` object `msg`.
pub fn broadcast(msg: &str, wire: &mut Vec<u8>) {
    let mut text = Vec::new();
    let request_id = Some("0123456789abcdef0123456789abcdef");
    Envelope {
        body: Body::Raw(msg),
        request_id,
        trigger: Trigger::Http,
        from: "system",
        ..envelope()
    }
    .write_broadcast(&mut text);
    frame::write_plain(wire, TEXT, &text);
}

/// A direct message's frame as its receiver gets it, and where in it the body stands.
pub fn direct() -> (Vec<u8>, std::ops::Range<usize>) {
    let body = "#".repeat(BODY_BYTES);
    let msg = format!("\"{body}\"");
    let mut wire = Vec::new();
    frame::write_plain(
        &mut wire,
        TEXT,
        &with_head(&Envelope {
            body: Body::Raw(&msg),
            ..envelope()
        }),
    );
    let at = wire
        .windows(BODY_BYTES)
        .position(|window| window == body.as_bytes());
    let at = at.expect("the body was just written");
    (wire, at..at + BODY_BYTES)
}

fn envelope() -> Envelope<'static> {
    Envelope {
        active_ms: ACTIVE_MS,
        from: UID,
        message_id: MessageId([0xab; 16]),
        body: Body::Raw(""),
        msg_type: 1,
        request_id: None,
        trigger: Trigger::WebSocket,
    }
}

/// A receiver's own head before the shared tail.
fn with_head(envelope: &Envelope) -> Vec<u8> {
    let mut text = format!("{{\"sessionId\":\"{SESSION}\",\"to\":[\"{UID}\"],").into_bytes();
    envelope.write_tail(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_loadtest::message::Text;

    #[test]
    fn the_crowd_knows_the_canned_bytes_again() {
        let text = |wire: &[u8]| frame::parse(wire).unwrap().unwrap().0.payload.to_vec();
        let greeting = greeting();
        let message::Upgrade::Switched(head) = message::read_upgrade(&greeting) else {
            panic!("not a 101");
        };
        assert!(message::is_notice(&text(&greeting[head..])));
        assert!(message::is_registered(&text(&registered())));
        let mut wire = Vec::new();
        broadcast(&message::wave(77), &mut wire);
        assert_eq!(message::read(&text(&wire)), Text::Wave(77));
        let sent = message::Direct {
            number: 1,
            sent_nanos: 2,
            receiver: 3,
        };
        let (mut wire, place) = direct();
        let mut body = String::new();
        message::write_direct_body(&mut body, sent);
        wire[place].copy_from_slice(body.as_bytes());
        assert_eq!(message::read(&text(&wire)), Text::Direct(sent));
    }
}
