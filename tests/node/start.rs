//! How a node comes up, what it says of itself, and how it fails to.

use crate::support::setup::{Folder, Setup};
use crate::support::{Node, eventually};

#[test]
fn the_ready_line_names_the_real_addresses_and_nothing_follows_it() {
    let node = Node::start(&[]);
    let (ws, api) = (node.ws, node.api);
    assert_ne!((ws.port(), api.port()), (0, 0));
    let line = format!("ready ws=ws://{ws}/websocket api=http://{api} node={api}");
    assert_eq!(node.ready, line);
    node.serves();
    assert!(node.open("?token=bad", &[]).is_err());
    assert_eq!(node.get("/nothing").status, 404);
    node.signal("TERM");
    let (status, output, _) = node.end();
    assert_eq!(status.code(), Some(0));
    assert_eq!(output, line + "\n");
}

#[test]
fn a_node_is_named_as_it_is_advertised() {
    let node = Node::start(&["--advertise", "gw-1.example"]);
    let port = node.api.port();
    let end = format!(" node=gw-1.example:{port}");
    assert!(node.ready.ends_with(&end), "{}", node.ready);
    let token = node.token("alice");
    let notice = node.open(&format!("?token={token}"), &[]).unwrap().hear();
    let session = notice["sessionId"].as_str().unwrap();
    let start = format!("gw-1.example:{port}_alice_");
    assert!(session.starts_with(&start), "{session}");
}

#[test]
fn an_address_that_is_taken_ends_the_start_with_status_1() {
    let node = Node::start(&[]);
    for (flag, addr) in [("--listen", node.ws), ("--api", node.api)] {
        let addr = addr.to_string();
        let says = Setup::new().args(&[flag, &addr]).fails_with(1);
        let expected = format!("cannot listen on {addr}: ");
        assert!(says.contains(&expected), "{says}");
        let way_out = format!("name another address with {flag}");
        assert!(says.contains(&way_out), "{says}");
    }
    node.serves();
}

#[test]
fn a_listener_serves_on_one_address_family() {
    // Wildcard addresses are announced as something that a client can use.
    let node = Node::start(&["--listen", "0.0.0.0:0"]);
    assert!(node.ready.contains(" api=http://127.0.0.1:"));
    assert!(node.ready.starts_with("ready ws=ws://127.0.0.1:"));
    node.serves();
    let node = Node::start(&["--listen", "[::1]:0", "--api", "[::1]:0"]);
    assert!(
        node.ready.starts_with("ready ws=ws://[::1]:"),
        "{}",
        node.ready
    );
    node.serves();
}

#[test]
fn logs_can_be_read_by_machines() {
    let setup = Setup::new().config("log_format = \"json\"\n");
    let node = setup.start();
    eventually("the node is up", || {
        node.errors().contains("the node is up")
    });
    let errors = node.errors();
    let line = errors.lines().find(|line| line.contains("the node is up"));
    let entry: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(entry["level"], "INFO", "{entry}");
}

#[test]
fn nobody_has_to_read_the_log() {
    let setup = Setup::new().config("log_level = \"trace\"\n");
    let node = setup.unheard().start();
    node.serves();
    node.signal("TERM");
    assert_eq!(node.end().0.code(), Some(0));
}

#[test]
fn the_help_and_the_version_go_to_standard_output_with_status_0() {
    for (flag, word) in [("--help", "--max-connections"), ("--version", "throng ")] {
        let output = Setup::bare(Folder::new()).args(&[flag]).run();
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8(output.stdout).unwrap().contains(word));
        assert!(output.stderr.is_empty());
    }
}
