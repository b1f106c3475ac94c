//! The echo endpoint: off unless asked for, no token, limits of its own.

use crate::support::client::status;
use crate::support::frame::encode;
use crate::support::{Client, Node, Opcode, Setup};

fn echo(node: &Node) -> Client {
    Client::open(node.ws, "/echo", &[]).unwrap()
}

#[test]
fn text_and_binary_of_a_mebibyte_come_back() {
    let node = Node::start(&["--echo-path", "/echo", "--auth-timeout-secs", "1"]);
    let mut client = echo(&node);
    let binary: Vec<u8> = (0..1u32 << 20).map(|n| ((n * 7) >> 3) as u8).collect();
    let text = "é€ ".repeat((1 << 20) / 6);
    for _ in 0..4 {
        for (opcode, payload) in [
            (Opcode::Binary, &binary[..]),
            (Opcode::Text, text.as_bytes()),
        ] {
            client.send(opcode, payload);
            let back = client.frame();
            assert_eq!((back.opcode, back.payload.len()), (opcode, payload.len()));
            assert!(back.payload == payload && back.is_final);
        }
    }
    client.send(Opcode::Text, b"");
    assert_eq!(client.frame().payload, b"");
    client.leave();
    node.awaits_emptiness();
}

#[test]
fn no_limit_of_the_other_path_holds_there() {
    let config = "[limits]\nframes_per_sec = 1\nbytes_per_sec = 1\ncontrol_frames_per_sec = 1\n\
                  fragments_max = 2\nmessage_secs = 1\nmessage_bytes_max = 4096\n\
                  preauth_bytes_max = 4096\n";
    let setup = Setup::new().config(config);
    let node = setup
        .args(&["--echo-path", "/echo", "--auth-timeout-secs", "1"])
        .start();
    let mut client = echo(&node);
    client.write(&encode(0x02, b"begun"));
    for _ in 0..2000 {
        client.write(&encode(0x00, b"x"));
    }
    for _ in 0..50 {
        client.send(Opcode::Ping, b"p");
        assert_eq!(client.frame().opcode, Opcode::Pong);
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    client.write(&encode(0x80, &[b'e'; 100_000]));
    assert_eq!(client.frame().payload.len(), 5 + 2000 + 100_000);
    client.leave();
}

#[test]
fn it_is_no_way_in_and_not_there_unless_asked_for() {
    let node = Node::start(&["--echo-path", "/echo"]);
    let mut client = echo(&node);
    client.say(&serde_json::json!({"path": "connet", "token": node.token("eve")}));
    assert_eq!(client.hear()["path"], "connet", "it is only sent back");
    assert_eq!(node.metric("sessions"), 0.0);
    node.send_to_all(&serde_json::json!({"n": 1})).content();
    client.send(Opcode::Text, b"{}");
    assert_eq!(client.frame().payload, b"{}", "nothing else arrives");
    let plain = Node::start(&[]);
    assert_eq!(
        status(&Client::open(plain.ws, "/echo", &[]).err().unwrap()),
        404
    );
}
