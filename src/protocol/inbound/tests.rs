//! Groups, chats, pushes and credentials, as they are read from each family.

use super::*;
use crate::protocol::json::is_taken_from_clients;
use crate::protocol::order::{ChatText, FileType, GroupOrder};

fn with<R>(text: &str, check: impl FnOnce(Result<Inbound<'_>, Malformed<'_>>) -> R) -> R {
    let mut scratch = Scratch::new(32);
    let mut buffer = text.as_bytes().to_vec();
    buffer.resize(text.len() + PADDING, b'"');
    check(parse(&mut scratch, &mut buffer, text.len()))
}

fn sends(text: &str, ids: &[&str], raw_msg: &str) {
    with(text, |inbound| match inbound.unwrap().ask {
        Ask::Order(Order::Send { to, msg }) => assert_eq!((&to[..], msg), (ids, raw_msg), "{text}"),
        other => panic!("{text}: {other:?}"),
    });
}

fn fault(text: &str) -> &'static str {
    with(text, |inbound| {
        inbound.map(|i| format!("{i:?}")).expect_err(text).why
    })
}

fn ask(text: &str, check: impl FnOnce(Ask<'_>)) {
    with(text, |inbound| check(inbound.expect(text).ask));
}

#[test]
fn a_direct_frame_passes_its_msg_through_untouched() {
    sends(
        r#"{"from":"a","to":"bob","msg":"hi","msgType":1}"#,
        &["bob"],
        r#""hi""#,
    );
    sends(
        r#"{"msg" : {"a":[1,{"b":"}\""}],"c":1.50} ,"to":"b,c , d"}"#,
        &["b", "c", "d"],
        r#"{"a":[1,{"b":"}\""}],"c":1.50}"#,
    );
    sends(
        r#"{"to":["b","c"],"msgType":"1","msg":"\u0061\"\\"}"#,
        &["b", "c"],
        r#""\u0061\"\\""#,
    );
    sends(
        r#"{"to":"b","msgType":"","msg":123456789012345678901.5e1}"#,
        &["b"],
        "123456789012345678901.5e1",
    );
    sends(r#"{"\u0074o":"\u0062","m\u0073g":null}"#, &["b"], "null");
    sends(
        r#"{"msg":1,"to":"b","x":{"msg":3},"msg":[2]}"#,
        &["b"],
        "[2]",
    );
    sends(
        r#"{"x":"é\n\"msg\":9","to":"b","msg":true}"#,
        &["b"],
        "true",
    );
}

#[test]
fn the_families_are_told_apart_by_their_keys() {
    let family = |text: &str| with(text, |inbound| inbound.unwrap().about.family);
    assert_eq!(
        family(r#"{"path":"ping","type":7,"msgType":3}"#),
        Family::Route
    );
    assert_eq!(family(r#"{"type":"11","msgType":3}"#), Family::Command);
    assert_eq!(family(r#"{"path":5,"type":11}"#), Family::Command);
    assert_eq!(family(r#"{"msgType":3}"#), Family::Direct);
    for text in [
        "{}",
        "[1]",
        "7",
        "\"x\"",
        "null",
        "",
        " ",
        "{",
        r#"{"to":"b"}"#,
        r#"{"type":99}"#,
        r#"{"type":"x"}"#,
        r#"{"type":1.5}"#,
        r#"{"type":11}x"#,
    ] {
        fault(text);
    }
}

#[test]
fn a_type_that_is_no_number_leaves_a_direct_frame_a_direct_frame() {
    sends(r#"{"type":"abc","to":"z","msg":1}"#, &["z"], "1");
    sends(r#"{"type":true,"to":"z","msg":2}"#, &["z"], "2");
    with(r#"{"type":{},"msgType":3}"#, |inbound| {
        let inbound = inbound.unwrap();
        assert_eq!(inbound.about.family, Family::Direct);
        assert_eq!(inbound.ask, Ask::Heartbeat);
    });
    assert_eq!(fault(r#"{"type":"abc"}"#), NO_FAMILY);
}

#[test]
fn a_number_with_nothing_behind_its_point_is_a_whole_one() {
    for text in [
        r#"{"type":11.0}"#,
        r#"{"type":1.1e1}"#,
        r#"{"msgType":3.0}"#,
    ] {
        ask(text, |ask| assert_eq!(ask, Ask::Heartbeat, "{text}"));
    }
    ask(
        r#"{"type":7.0,"params":{"loginStatus":0.0}}"#,
        |ask| match ask {
            Ask::Register { is_online, .. } => assert!(!is_online),
            other => panic!("{other:?}"),
        },
    );
    ask(
        r#"{"type":1,"params":{"toMessageId":"b","message":"m","fileType":2.0}}"#,
        |ask| match ask {
            Ask::Order(Order::Chat { text, .. }) => {
                assert_eq!(text.file_type, FileType::Number(2));
            }
            other => panic!("{other:?}"),
        },
    );
    for (text, why) in [
        (r#"{"type":11.5}"#, "type is not a whole number"),
        (r#"{"msgType":3.5}"#, "msgType is not a whole number"),
        (
            r#"{"type":18446744073709551627}"#,
            "type is not a whole number",
        ),
        (
            r#"{"type":-9223372036854775809}"#,
            "type is not a whole number",
        ),
        (
            r#"{"msgType":18446744073709551616}"#,
            "msgType is not a whole number",
        ),
        (r#"{"type":1e300}"#, "type is not a whole number"),
    ] {
        assert_eq!(fault(text), why, "{text}");
    }
}

#[test]
fn a_number_of_any_size_passes_if_a_double_holds_it() {
    for number in [
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890",
        "1e308",
    ] {
        let text = format!(r#"{{"to":"b","msg":{number},"x":[{number}]}}"#);
        sends(&text, &["b"], number);
        assert!(is_taken_from_clients(number), "{number}");
    }
    for refused in ["1e309", "-1e309", r#""\ud800""#, r#"["\udc00\ud800"]"#] {
        let text = format!(r#"{{"to":"b","msg":{refused}}}"#);
        assert_eq!(fault(&text), NOT_JSON, "{text}");
        assert!(!is_taken_from_clients(refused), "{refused}");
    }
    for taken in [
        "null",
        "7",
        r#""\ud83d\ude00""#,
        "[]",
        r#"{"a":[1.5,true]}"#,
    ] {
        assert!(is_taken_from_clients(taken), "{taken}");
    }
}

#[test]
fn registering_and_connecting_carry_their_credentials() {
    with(
        r#"{"type":7,"params":{"openid":"u","userName":"rose","loginStatus":"0","token":"T"}}"#,
        |inbound| {
            let who = Credentials {
                token: Some("T"),
                openid: Some("u"),
                name: Some("rose"),
                device: None,
                cursor: None,
            };
            assert_eq!(
                inbound.unwrap().ask,
                Ask::Register {
                    who,
                    is_online: false
                }
            );
        },
    );
    with(
        r#"{"token":"T","path":"connet","body":{"openid":"u"},"requestId":"r1"}"#,
        |inbound| {
            let inbound = inbound.unwrap();
            let about = inbound.about;
            assert_eq!((about.path, about.request_id), ("connet", Some("r1")));
            let who = Credentials {
                token: Some("T"),
                openid: Some("u"),
                name: None,
                device: None,
                cursor: None,
            };
            assert_eq!(inbound.ask, Ask::Connect(who));
        },
    );
    fault(r#"{"type":7,"params":{"loginStatus":2}}"#);
    fault(r#"{"type":7,"params":{"openid":7}}"#);
}

#[test]
fn a_chat_passes_its_message_through_untouched() {
    ask(
        r#"{"type":1,"params":{"toMessageId":"bob","message":"h\u00e9 \"\n","fileType":0}}"#,
        |ask| {
            let text = ChatText {
                message: r#""h\u00e9 \"\n""#,
                file_type: FileType::Number(0),
            };
            assert_eq!(ask, Ask::Order(Order::Chat { to: "bob", text }));
        },
    );
    ask(
        r#"{"type":"9","params":{"message":"m","toMessageId":"g","fileType":"pdf"},"msgid":"1"}"#,
        |ask| {
            let text = ChatText {
                message: r#""m""#,
                file_type: FileType::Text("pdf"),
            };
            assert_eq!(ask, Ask::Order(Order::GroupChat { group: "g", text }));
        },
    );
}

#[test]
fn what_a_chat_lacks_is_named_and_its_ids_are_known() {
    for (text, why) in [
        (r#"{"type":1}"#, "toMessageId is missing"),
        (
            r#"{"type":1,"params":{"toMessageId":"b"}}"#,
            "message is missing",
        ),
        (
            r#"{"type":1,"params":{"toMessageId":"b","message":7}}"#,
            "message is not a string",
        ),
        (
            r#"{"type":9,"params":{"toMessageId":"b","message":"m","fileType":1.5}}"#,
            "fileType is neither a whole number nor a string",
        ),
        (r#"{"type":3,"params":{}}"#, "groupId is missing"),
        (
            r#"{"type":14,"params":{"groupId":"g","leave":"yes"}}"#,
            "leave is neither true nor false",
        ),
    ] {
        assert_eq!(fault(text), why, "{text}");
    }
    with(
        r#"{"type":1,"requestId":"r","params":{"msgid":"m","toMessageId":7}}"#,
        |inbound| {
            let about = inbound.unwrap_err().about;
            assert_eq!((about.request_id, about.msgid), (Some("r"), Some("m")));
        },
    );
}

#[test]
fn groups_are_named_in_two_families() {
    let members = |ids: &[&'static str]| ids.iter().copied().collect::<Targets<'_>>();
    let group = |text: &str, wanted: GroupOrder<'_>| {
        let wanted = format!("{:?}", Ask::Order(Order::Group(wanted)));
        ask(text, |ask| assert_eq!(format!("{ask:?}"), wanted, "{text}"));
    };
    let id = "g";
    let both = members(&["a", "b"]);
    let create = |members| GroupOrder::Create { id, members };
    group(
        r#"{"type":3,"params":{"groupId":"g","userIdList":"a, b"}}"#,
        create(both.clone()),
    );
    group(
        r#"{"path":"group/create","body":{"groupId":"g","userIdList":["a","b"]}}"#,
        create(both.clone()),
    );
    group(
        r#"{"type":3,"params":{"groupId":"g"}}"#,
        create(members(&[])),
    );
    let join = |members| GroupOrder::Join { id, members };
    group(
        r#"{"type":14,"params":{"groupId":"g","leave":false}}"#,
        join(members(&[])),
    );
    group(
        r#"{"path":"group/join","body":{"groupId":"g","userIdList":"a,b"}}"#,
        join(both),
    );
    group(
        r#"{"type":14,"params":{"groupId":"g","leave":true}}"#,
        GroupOrder::Leave { id },
    );
    group(
        r#"{"path":"group/members","body":{"groupId":"g"}}"#,
        GroupOrder::Members { id },
    );
    assert_eq!(fault(r#"{"path":"group/join"}"#), "groupId is missing");
    ask(r#"{"path":"group/other"}"#, |ask| {
        assert_eq!(ask, Ask::Unknown)
    });
}

#[test]
fn a_push_is_passed_on_as_it_came() {
    ask(
        r#"{"path":"message/send","body" : {"to":["b"],"msg":{"a":1.0}} ,"requestId":"r"}"#,
        |ask| {
            let body = r#"{"to":["b"],"msg":{"a":1.0}}"#;
            assert_eq!(ask, Ask::Order(Order::Push { body }));
        },
    );
    assert_eq!(fault(r#"{"path":"message/send"}"#), "body is missing");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| {
        format!(
            r#"{{"type":11,"x":{}{}}}"#,
            "[".repeat(depth - 1),
            "]".repeat(depth - 1)
        )
    };
    with(&nested(32), |inbound| assert!(inbound.is_ok()));
    fault(&nested(33));
    fault(&"[".repeat(60_000));
}

#[test]
fn the_scratch_serves_one_message_after_another() {
    let mut scratch = Scratch::new(32);
    for text in [
        r#"{"type":11}"#,
        "{oops",
        r#"{"to":"b","msg":"x"}"#,
        r#"{"msgType":3}"#,
    ] {
        let mut buffer = text.as_bytes().to_vec();
        buffer.resize(text.len() + PADDING, 0);
        assert_eq!(
            parse(&mut scratch, &mut buffer, text.len()).is_ok(),
            text != "{oops"
        );
    }
}
