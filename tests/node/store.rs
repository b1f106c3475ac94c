//! What was accepted outlives the process, the end of it, and a full disk; and what an operator
//! does with it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::setup::Folder;
use crate::support::{Client, Node, Setup, eventually};

/// Nodes that follow each other on one data directory.
struct Home(Folder);

impl Home {
    fn new() -> Home {
        Home(Folder::new())
    }

    fn data(&self) -> PathBuf {
        self.0.path("data")
    }

    fn file(&self) -> PathBuf {
        self.data().join("store.redb")
    }

    fn setup(&self) -> Setup {
        Setup::new().args(&["--data-dir", &self.data().display().to_string()])
    }

    fn start(&self) -> Node {
        self.setup().start()
    }

    /// `throng store` with this directory.
    fn tool(&self, args: &[&str]) -> Setup {
        let data = self.data().display().to_string();
        Setup::bare(Folder::new())
            .args(&["store", args[0], "--data-dir", &data])
            .args(&args[1..])
    }
}

/// Ends a node in order.
fn end(node: Node) -> String {
    node.signal("TERM");
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    errors
}

fn kill(node: Node) {
    node.signal("KILL");
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), None, "{errors}");
}

fn chat(to: &str, message: &str, msgid: &str) -> Value {
    let params = json!({"toMessageId": to, "message": message, "fileType": 0, "msgid": msgid});
    json!({"type": 1, "params": params})
}

/// Sends a chat and returns what it is answered with.
fn send(client: &mut Client, to: &str, message: &str, msgid: &str) -> Value {
    client.say(&chat(to, message, msgid));
    client.hear()
}

/// The id of a message that was accepted now for the first time.
fn accepted(answer: &Value) -> String {
    assert_eq!(
        (&answer["type"], &answer["status"]),
        (&json!(0), &json!(200)),
        "{answer}"
    );
    assert_eq!(answer["params"].get("dup"), None, "{answer}");
    answer["params"]["messageId"].as_str().unwrap().to_owned()
}

/// A client that acknowledges.
fn join_acknowledging(node: &Node, user: &str) -> Client {
    node.join_for(&json!({"userId": user}), "ack=1&device=phone")
        .0
}

/// The next message of an inbox, acknowledged: its id and its text.
fn take(client: &mut Client) -> (String, String) {
    let envelope = client.hear();
    assert_eq!(envelope["msg"]["type"], 2, "{envelope}");
    let id = envelope["messageId"].as_str().unwrap().to_owned();
    client.say(&json!({"type": 15, "params": {"msgid": id}}));
    let text = &envelope["msg"]["params"]["message"];
    (id, text.as_str().unwrap().to_owned())
}

/// Hears that an acknowledgement has been written down.
fn await_acknowledged(client: &mut Client) {
    let answer = client.hear();
    assert_eq!(
        (&answer["type"], &answer["status"]),
        (&json!(16), &json!(200)),
        "{answer}"
    );
}

#[test]
fn messages_wait_across_restarts_until_they_are_acknowledged() {
    let home = Home::new();
    let node = home.start();
    let mut alice = node.join("alice");
    let ids: Vec<String> = (0..3)
        .map(|n| {
            accepted(&send(
                &mut alice,
                "bob",
                &format!("hi {n}"),
                &format!("m{n}"),
            ))
        })
        .collect();
    let errors = end(node);
    assert!(errors.contains("the store is closed"), "{errors}");

    let node = home.start();
    let mut bob = join_acknowledging(&node, "bob");
    let epoch = take_all(&mut bob, &ids);
    drop(bob);
    end(node);

    let node = home.start();
    let mut bob = join_acknowledging(&node, "bob");
    assert_eq!(bob.is_heard(), [Value::Null; 0], "nothing comes twice");
    // Alice would hear of what has arrived first.
    let mut carl = node.join("carl");
    accepted(&send(&mut carl, "bob", "and now", "m9"));
    let envelope = loop {
        let heard = bob.hear();
        if heard["msg"]["type"] == 2 {
            break heard;
        }
    };
    assert_eq!((&envelope["seq"], &envelope["epoch"]), (&json!(4), &epoch));
}

/// Takes these messages, and returns the epoch that they came with.
fn take_all(client: &mut Client, ids: &[String]) -> Value {
    let envelopes: Vec<Value> = ids.iter().map(|_| client.hear()).collect();
    for (seq, (envelope, id)) in (1..).zip(envelopes.iter().zip(ids)) {
        assert_eq!(envelope["messageId"], **id);
        assert_eq!(envelope["seq"], seq);
        assert_eq!(envelope["epoch"], envelopes[0]["epoch"]);
    }
    for id in ids {
        client.say(&json!({"type": 15, "params": {"msgid": id}}));
        await_acknowledged(client);
    }
    envelopes[0]["epoch"].clone()
}

#[test]
fn what_was_accepted_survives_kill_9_and_comes_once_and_a_repeat_is_known() {
    let home = Home::new();
    let node = home.start();
    let mut alice = node.join("alice");
    let id = accepted(&send(&mut alice, "bob", "hi", "m1"));
    kill(node);

    let node = home.start();
    let mut bob = join_acknowledging(&node, "bob");
    assert_eq!(take(&mut bob), (id.clone(), "hi".to_owned()));
    await_acknowledged(&mut bob);
    let mut alice = node.join("alice");
    // She hears that it arrived, and that her repeat is one.
    alice.say(&chat("bob", "hi", "m1"));
    let mut receipt = Value::Null;
    while receipt["type"] != 0 {
        receipt = alice.hear();
    }
    assert_eq!(receipt["params"]["messageId"], *id);
    assert_eq!(receipt["params"]["dup"], true, "{receipt}");
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
    kill(node);
    let node = home.start();
    let mut bob = join_acknowledging(&node, "bob");
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
}

#[test]
fn of_a_burst_that_kill_9_cuts_off_nothing_is_lost_and_nothing_comes_twice() {
    const CHATS: usize = 300;
    let home = Home::new();
    let node = home.start();
    let mut alice = node.join("alice");
    let name = |n: usize| (format!("text {n}"), format!("m{n}"));
    for n in 0..CHATS {
        let (text, msgid) = name(n);
        alice.say(&chat("bob", &text, &msgid));
    }
    let mut ids = BTreeMap::new();
    for n in 0..CHATS / 6 {
        ids.insert(name(n).0, accepted(&alice.hear()));
    }
    kill(node);

    let node = home.start();
    let mut alice = node.join("alice");
    for n in 0..CHATS {
        let (text, msgid) = name(n);
        let answer = send(&mut alice, "bob", &text, &msgid);
        assert_eq!(
            (&answer["type"], &answer["status"]),
            (&json!(0), &json!(200))
        );
        let id = answer["params"]["messageId"].as_str().unwrap().to_owned();
        if let Some(before) = ids.insert(text, id.clone()) {
            assert_eq!((id, &answer["params"]["dup"]), (before, &json!(true)));
        }
    }
    let mut bob = join_acknowledging(&node, "bob");
    let mut got = BTreeMap::new();
    while got.len() < CHATS {
        let (id, text) = loop {
            let heard = bob.hear();
            if heard["msg"]["type"] == 2 {
                let id = heard["messageId"].as_str().unwrap().to_owned();
                bob.say(&json!({"type": 15, "params": {"msgid": id}}));
                let text = heard["msg"]["params"]["message"].as_str().unwrap();
                break (id, text.to_owned());
            }
        };
        assert_eq!(got.insert(text.clone(), id), None, "{text} came twice");
    }
    assert!(got == ids);
}

#[test]
fn a_second_node_on_the_same_directory_ends_with_status_1_and_harms_nobody() {
    let home = Home::new();
    let node = home.start();
    let says = home.setup().fails_with(1);
    let file = home.file().display().to_string();
    assert!(says.contains(&file), "{says}");
    assert!(says.contains("in use by another process"), "{says}");
    node.serves();
    let says = home.tool(&["check"]).fails_with(1);
    assert!(says.contains("in use by another process"), "{says}");
    let mode = |path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(home.data()), mode(home.file())), (0o700, 0o600));
}

#[test]
fn a_store_that_cannot_be_used_ends_the_start_with_status_1_and_stays_as_it_is() {
    let home = Home::new();
    fs::create_dir_all(home.data()).unwrap();
    fs::write(home.file(), "this is no store").unwrap();
    let says = home.setup().fails_with(1);
    assert!(says.contains("is damaged and was left as it is"), "{says}");
    assert_eq!(fs::read(home.file()).unwrap(), b"this is no store");
    fs::remove_file(home.file()).unwrap();
    end(home.start());
    let mut bytes = fs::read(home.file()).unwrap();
    (bytes[64], bytes[192]) = (9, 9);
    fs::write(home.file(), &bytes).unwrap();
    let says = home.setup().fails_with(1);
    assert!(says.contains("was written by a newer version"), "{says}");
    assert!(fs::read(home.file()).unwrap() == bytes);
    fs::remove_file(home.file()).unwrap();
    fs::create_dir(home.file()).unwrap();
    let says = home.setup().fails_with(1);
    assert!(says.contains("cannot open the store"), "{says}");
}

#[test]
fn a_node_that_keeps_messages_in_memory_forgets_them_and_writes_no_store() {
    let home = Home::new();
    let start = || home.setup().args(&["--store", "memory"]).start();
    let node = start();
    let mut alice = node.join("alice");
    accepted(&send(&mut alice, "bob", "hi", "m1"));
    end(node);
    assert!(!home.file().exists());
    let node = start();
    let mut bob = join_acknowledging(&node, "bob");
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
}

#[test]
fn limits_of_an_inbox_hold_and_change_on_sighup() {
    let setup = Setup::new().config("[limits]\ninbox_entries_max = 2\n");
    let node = setup.start();
    let mut alice = node.join("alice");
    for n in 0..2 {
        accepted(&send(&mut alice, "bob", "hi", &format!("m{n}")));
    }
    let error = send(&mut alice, "bob", "hi", "m2");
    assert_eq!(
        (&error["params"]["code"], &error["params"]["reason"]),
        (&json!(503), &json!("inbox_full"))
    );
    let text = "[limits]\ninbox_entries_max = 3\n";
    fs::write(node.folder.path("throng.toml"), text).unwrap();
    node.signal("HUP");
    eventually("the other limit", || {
        node.errors().contains("limits.inbox_entries_max")
    });
    accepted(&send(&mut alice, "bob", "hi", "m2"));
    let error = send(&mut alice, "bob", "hi", "m3");
    assert_eq!(error["params"]["reason"], "inbox_full");
}

/// Fills what `full` has made too small, frees it with `free`, and proves that what was accepted
/// arrives, and nothing else.
fn survives(node: &Node, full: impl FnOnce(), free: impl FnOnce()) {
    let mut alice = node.join("alice");
    let mut dora = node.join("dora");
    let mut ids = vec![accepted(&send(&mut alice, "bob", "before", "m0"))];
    full();
    let text = "x".repeat(20_000);
    let mut number = 0;
    let mut attempt = |client: &mut Client, text: &str| {
        number += 1;
        let answer = send(client, "bob", text, &format!("m{number}"));
        if answer["type"] == 0 {
            ids.push(accepted(&answer));
            return true;
        }
        let params = &answer["params"];
        assert_eq!(
            (&answer["type"], &params["code"], &params["reason"]),
            (&json!(500), &json!(503), &json!("store_down")),
            "{answer}"
        );
        false
    };
    let refused = (0..400).filter(|_| !attempt(&mut alice, &text)).take(5);
    assert_eq!(refused.count(), 5, "it was never full");
    // Something small may still find room, and then it works again for a moment.
    eventually("the store is down", || {
        attempt(&mut alice, &text);
        node.metric("store_up") == 0.0
    });
    let order = json!({"to": ["bob"], "msg": text, "store": true});
    let answer = node.post("/api/v1/messages", &order);
    assert_eq!(
        (answer.status, &answer.json()["content"]["reason"]),
        (503, &json!("store_down"))
    );
    // What nobody has to keep goes on.
    alice.say(&json!({"to": "dora", "msg": "live", "msgType": 1}));
    assert_eq!(dora.hear()["msg"], "live");
    assert_eq!(node.push(&["dora"], &json!("pushed")).status, 200);
    assert_eq!(dora.hear()["msg"], "pushed");
    assert_eq!(alice.is_heard(), [Value::Null; 0]);

    free();
    eventually("a chat is accepted again", || attempt(&mut alice, "after"));
    node.awaits("store_up", 1.0);
    let mut bob = join_acknowledging(node, "bob");
    let mut got = Vec::new();
    while got.len() < ids.len() {
        let heard = bob.hear();
        if heard["msg"]["type"] == 2 {
            bob.say(&json!({"type": 15, "params": {"msgid": heard["messageId"]}}));
            got.push(heard["messageId"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(got, ids);
    let rest = bob.is_heard();
    assert!(rest.iter().all(|heard| heard["type"] == 16), "{rest:?}");
}

#[test]
fn a_file_that_may_not_grow_refuses_what_is_to_be_stored_until_it_may() {
    let home = Home::new();
    // Without this the system would end the process instead of refusing the write.
    let node = home.setup().after("trap '' XFSZ").start();
    let allow = |bytes: &str| {
        let pid = node.id().to_string();
        let limit = format!("--fsize={bytes}:");
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(status.unwrap().success(), "prlimit of util-linux");
    };
    let bytes = fs::metadata(home.file()).unwrap().len();
    survives(&node, || allow(&bytes.to_string()), || allow("unlimited"));
    end(node);
    assert!(home.tool(&["check"]).run().status.success());
}

#[test]
fn a_full_disk_refuses_what_is_to_be_stored_until_there_is_room() {
    let home = Home::new();
    fs::create_dir_all(home.data()).unwrap();
    let data = home.data().display().to_string();
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let unshare = if is_root { "-m" } else { "-rm" };
    let line = format!("mount -t tmpfs -o size=16m none {data}");
    let trial = ["unshare", unshare, "sh", "-c", &line];
    if !Command::new(trial[0])
        .args(&trial[1..])
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("not tried: this host lets nobody mount a small disk here");
        return;
    }
    let line = format!("{line} && exec \"$@\"");
    let starter = ["unshare", unshare, "sh", "-c", &line, "sh"];
    let node = home.setup().started_by(&starter).start();
    // As the node sees it.
    let ballast = format!("/proc/{}/root{data}/ballast", node.id());
    let fill = || {
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    survives(&node, fill, || fs::remove_file(&ballast).unwrap());
    end(node);
}

#[test]
fn a_store_is_checked_exported_and_imported() {
    let home = Home::new();
    let node = home.start();
    let mut alice = node.join("alice");
    let ids: Vec<String> = (0..5)
        .map(|n| accepted(&send(&mut alice, "bob", "hi", &format!("m{n}"))))
        .collect();
    let order = json!({"groupId": "team", "userIdList": ["alice", "bob"]});
    node.post("/api/v1/groups", &order).content();
    end(node);

    let checked = home.tool(&["check"]).run();
    let says = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{says}");
    assert!(says.contains("5 entries, 1 groups"), "{says}");
    let exported = home.tool(&["export"]).run();
    assert_eq!(exported.status.code(), Some(0));
    let text = String::from_utf8(exported.stdout).unwrap();
    let kinds: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!((count("entry"), count("group"), count("member")), (5, 1, 2));
    assert_eq!(
        (&kinds[0], &kinds[kinds.len() - 1]),
        (&json!("store"), &json!("end"))
    );

    let other = Home::new();
    let file = home.0.path("export.json");
    let path = file.display().to_string();
    home.tool(&["export", &path]).run();
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let imported = other.tool(&["import", &path]).run();
    assert_eq!(imported.status.code(), Some(0), "{imported:?}");
    assert_eq!(
        String::from_utf8(other.tool(&["export"]).run().stdout).unwrap(),
        text
    );
    let says = other.tool(&["import", &path]).fails_with(1);
    assert!(says.contains("is not empty"), "{says}");
    let node = other.start();
    let mut bob = join_acknowledging(&node, "bob");
    take_all(&mut bob, &ids);

    let nowhere = Home::new();
    let says = nowhere.tool(&["check"]).fails_with(1);
    assert!(says.contains("there is no store"), "{says}");
    fs::write(
        &file,
        text.replace("\"kind\":\"pair\"", "\"kind\":\"pear\""),
    )
    .unwrap();
    let says = nowhere.tool(&["import", &path]).fails_with(1);
    assert!(
        says.contains("line ") && says.contains("Nothing was imported"),
        "{says}"
    );
    let empty = nowhere.tool(&["export"]).run();
    assert_eq!(String::from_utf8(empty.stdout).unwrap().lines().count(), 2);
}
