//! Texts of every alphabet, and what is no text: what comes through unchanged, and what is refused.

use serde_json::{Value, json};

use crate::support::client::status;
use crate::support::frame::encode;
use crate::support::{Client, Node, Opcode};

/// At most 64 bytes each, so that a name may be any of them.
const TEXTS: [&str; 12] = [
    "שלום עולם",
    "مرحبا بالعالم",
    "日本語テキスト",
    "한국어",
    "ไทยแลนด์",
    "Ελληνικά и кириллица",
    "e\u{301}\u{323}\u{35c} combining",
    "👩‍👩‍👧‍👦🏳️‍🌈🇪🇺",
    "\u{202e}backwards\u{202c}",
    "zero\u{200b}width\u{feff}",
    "\u{10ffff}\u{e000}\u{fffd}",
    "quote \" slash \\ / tab \t line \n bell \u{7} nul \u{0}",
];

fn join_none(node: &Node, user: &str) -> Client {
    let mut client = node.open(&format!("?openid={user}"), &[]).unwrap();
    assert_eq!(client.hear()["msg"]["userId"], user);
    client
}

#[test]
fn texts_and_names_of_every_alphabet_come_through_unchanged() {
    let node = Node::start(&["--auth", "none", "--reactors", "2"]);
    let mut alice = join_none(&node, "alice");
    let mut bob = join_none(&node, "bob");
    for text in TEXTS {
        alice.say(&json!({"to": "bob", "msg": {text: text}, "requestId": text}));
        let message = bob.hear();
        assert_eq!(
            (&message["msg"][text], &message["requestId"]),
            (&json!(text), &json!(text))
        );
        let params = json!({"openid": "alice", "userName": text, "loginStatus": "1"});
        alice.say(&json!({"type": 7, "params": params}));
        assert_eq!(alice.hear()["params"]["userName"], text);
        let params =
            json!({"toMessageId": "bob", "message": text, "msgid": text, "fileType": text});
        alice.say(&json!({"type": 1, "params": params}));
        let receipt = alice.hear();
        let params = &receipt["params"];
        assert_eq!(
            (&params["message"], &params["msgid"]),
            (&json!(text), &json!(text))
        );
        let chat = bob.hear();
        let params = &chat["msg"]["params"];
        assert_eq!(
            (&params["message"], &params["fileType"]),
            (&json!(text), &json!(text))
        );
        assert_eq!(params["fromUser"]["userName"], text);
        assert_eq!(node.get("/api/v1/users/alice").content()["userName"], text);
        node.push(&["bob"], &json!([text])).content();
        assert_eq!(bob.hear()["msg"], json!([text]));
        node.send_to_all(&json!(text)).content();
        assert_eq!(alice.hear()["msg"], text);
        assert_eq!(bob.hear()["msg"], text);
    }
    // The same in escapes, which are passed on as they came.
    let escaped = r#""\u05e9\ud83d\ude00\u0000\u202e\/\"""#;
    alice.send(
        Opcode::Text,
        format!(r#"{{"to":"bob","msg":{escaped}}}"#).as_bytes(),
    );
    let frame = bob.frame();
    let text = String::from_utf8(frame.payload).unwrap();
    assert!(text.contains(escaped), "{text}");
}

#[test]
fn user_ids_have_one_alphabet_at_every_door() {
    let node = Node::start(&["--auth", "none"]);
    let tokens = Node::start(&[]);
    let mut alice = join_none(&node, "alice");
    let long = "a".repeat(65);
    let very_long = "a".repeat(50_000);
    let others = ["", "al ice", "alice\0", "ALİCE", "аlice", long.as_str()];
    for id in TEXTS.into_iter().chain(others) {
        let query: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = node.open(&format!("?openid={query}"), &[]).err().unwrap();
        assert_eq!(status(&answer), 400, "{id:?}");
        let mut stranger = node.stranger();
        stranger.say(&json!({"path": "connet", "body": {"openid": id}}));
        assert_eq!(stranger.hear()["statusCode"], 400, "{id:?}");
        stranger.say(&json!({"type": 7, "params": {"openid": id, "loginStatus": "1"}}));
        assert_eq!(stranger.hear()["params"]["code"], 400, "{id:?}");
        let order = json!({"userId": id});
        assert_eq!(tokens.post("/api/v1/tokens", &order).status, 400, "{id:?}");
        alice.say(&json!({"type": 3, "params": {"groupId": id}}));
        assert_eq!(alice.hear()["params"]["code"], 400, "{id:?}");
    }
    assert_eq!(node.metric("sessions"), 1.0);
    // As receivers of a push they are refused, and nobody gets it; of a direct frame they are
    // just not there.
    for id in TEXTS.into_iter().chain([long.as_str(), very_long.as_str()]) {
        let refused = node.push(&["alice", id], &json!(1)).json();
        assert_eq!(refused["statusCode"], 400, "{refused}");
        alice.say(&json!({"to": [id], "msg": 1, "requestId": "r"}));
        let error = alice.hear();
        let params = &error["params"];
        assert_eq!(
            (&params["code"], &params["ref"]),
            (&json!(404), &json!("r")),
            "{error}"
        );
        alice.say(&json!({"type": 1, "params": {"toMessageId": id, "message": "hi"}}));
        assert_eq!(alice.hear()["params"]["code"], 400);
    }
    // The longest that there may be, of all letters that there are.
    let id = "ABCXYZabcxyz0189_.@-".repeat(4)[..64].to_owned();
    let mut client = join_none(&node, &id);
    alice.say(&json!({"to": id, "msg": "long"}));
    assert_eq!(client.hear()["msg"], "long");
}

#[test]
fn what_is_no_text_is_refused_and_reaches_nobody() {
    let node = Node::start(&[]);
    let mut bob = node.join("bob");
    let lone = [
        r"\ud800",
        r"\udfff",
        r"\ude00\ud83d",
        r"\ud83d\ud83d",
        r"\ud83d x",
        r"\uD83D\n",
        r"\ud83",
        r"\uzzzz",
        r"\x41",
    ];
    for lone in lone {
        let messages = [
            format!(r#"{{"to":"bob","msg":"{lone}"}}"#),
            format!(r#"{{"to":"bob","msg":{{"{lone}":1}}}}"#),
            format!(r#"{{"type":1,"params":{{"toMessageId":"bob","message":"{lone}"}}}}"#),
        ];
        let mut eve = node.join("eve");
        for message in &messages {
            eve.send(Opcode::Text, message.as_bytes());
            assert_eq!(eve.hear()["params"]["code"], 400, "{message}");
        }
        eve.expect_close(1008);
        for body in [
            format!(r#"{{"to":"bob","msg":"{lone}","store":false}}"#),
            format!(r#"{{"sendToAll":true,"msg":[{{"{lone}":1}}]}}"#),
            format!(r#"{{"to":"{lone}","msg":1}}"#),
        ] {
            let json = &["Content-Type: application/json"];
            let answer =
                crate::support::http::call(node.api, "POST", "/api/v1/messages", json, &body);
            assert_eq!(answer.status, 400, "{body} {}", answer.body);
        }
    }
    for bytes in [
        &b"\xc0\x80"[..],
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"\x80",
        b"\xe2\x82",
    ] {
        let mut eve = node.join("eve");
        let message = [br#"{"to":"bob","msg":""#, bytes, br#""}"#].concat();
        eve.write(&encode(0x81, &message));
        eve.expect_close(1007);
    }
    for raw in ["\0", "\u{1f}", "\n"] {
        let mut eve = node.join("eve");
        let message = format!("{{\"to\":\"bob\",\"msg\":\"{raw}\"}}");
        eve.send(Opcode::Text, message.as_bytes());
        assert_eq!(eve.hear()["params"]["code"], 400, "{raw:?}");
    }
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
}
