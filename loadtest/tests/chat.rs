//! Pairs chat over a tiny server that keeps inboxes, and breaks what it is told to break. What
//! the clients write down is judged.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use throng_history::{Kind, Report};
use throng_loadtest::frame::{self, TEXT};
use throng_loadtest::{Chats, Chatted, Crowd, Flow, Plan, Who, message};
use wire::{read_frame, read_head};

mod wire;

/// What the server does wrong, or lets happen, with each message of this number.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The connection ends between storing and answering. That is no fault of a server.
    BreakOff(u64),
    /// Answered, and not stored.
    Lose(u64),
    /// Stored twice, under two ids.
    Double(u64),
    /// Told of before anybody has acknowledged.
    TellEarly(u64),
    /// Refused, and stored.
    RefuseAndStore(u64),
}

#[derive(Default)]
struct Inboxes {
    /// Entries as JSON, without their place.
    logs: HashMap<String, Vec<Value>>,
    sockets: HashMap<String, TcpStream>,
    by_msgid: HashMap<String, String>,
    /// Sender and msgid of the messages that nobody has acknowledged.
    untold: HashMap<String, (String, String)>,
    messages: u64,
}

impl Inboxes {
    fn append(&mut self, user: &str, entry: Value) {
        let log = self.logs.entry(user.to_owned()).or_default();
        log.push(entry);
        let seq = log.len();
        self.push(user, seq, false);
    }

    fn push(&mut self, user: &str, seq: usize, is_again: bool) {
        let mut entry = self.logs[user][seq - 1].clone();
        (entry["epoch"], entry["seq"]) = (json!("e1"), json!(seq));
        if is_again {
            entry["redelivered"] = json!(true);
        }
        self.say(user, &entry);
    }

    fn say(&mut self, user: &str, text: &Value) {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, TEXT, text.to_string().as_bytes());
        if let Some(socket) = self.sockets.get_mut(user) {
            // Whoever has gone comes back for it.
            let _ = socket.write_all(&wire);
        }
    }

    fn store(&mut self, from: &str, to: &str, msgid: &str, text: &str) -> String {
        self.messages += 1;
        let id = format!("{:032x}", self.messages);
        self.untold
            .insert(id.clone(), (from.to_owned(), msgid.to_owned()));
        let params =
            json!({"fromUser": {"openid": from}, "message": text, "toUser": {"openid": to}});
        let msg = json!({"type": 2, "status": 200, "params": params});
        self.append(to, json!({"messageId": id, "msgType": 1, "msg": msg}));
        id
    }

    fn tell(&mut self, id: &str, by: &str) {
        if let Some((sender, msgid)) = self.untold.remove(id) {
            let params = json!({"msgid": msgid, "messageId": id, "toUser": by});
            let msg = json!({"type": 17, "status": 200, "params": params});
            self.append(
                &sender,
                json!({"messageId": "f".repeat(32), "msgType": 1, "msg": msg}),
            );
        }
    }

    /// A cursor acknowledges everything up to it.
    fn pass(&mut self, user: &str, cursor: usize) {
        let log = self.logs.get(user).into_iter().flatten().take(cursor);
        let ids: Vec<Value> = log.map(|entry| entry["messageId"].clone()).collect();
        for id in ids {
            self.tell(id.as_str().unwrap(), user);
        }
    }

    /// One command; false ends the connection.
    fn hear(&mut self, user: &str, command: &Value, fault: Fault) -> bool {
        let params = &command["params"];
        let text = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        match command["type"].as_i64() {
            Some(7) => self.say(user, &json!({"type": 8, "status": 200, "params": {}})),
            Some(15) => {
                let id = text("msgid");
                self.tell(&id, user);
                let params = json!({"message": id});
                self.say(user, &json!({"type": 16, "status": 200, "params": params}));
            }
            Some(1) => {
                return self.chat(
                    user,
                    &text("toMessageId"),
                    &text("msgid"),
                    &text("message"),
                    fault,
                );
            }
            _ => panic!("{command}"),
        }
        true
    }

    fn chat(&mut self, user: &str, to: &str, msgid: &str, body: &str, fault: Fault) -> bool {
        let number = self.messages + 1;
        let known = self.by_msgid.get(msgid).cloned();
        let mut params = json!({"msgid": msgid, "messageId": known, "dup": known.is_some()});
        if known.is_none() && fault == Fault::TellEarly(number) {
            self.tell_early(user, to, msgid, body);
            return true;
        } else if known.is_none() {
            let id = match fault {
                Fault::Lose(n) if n == number => {
                    self.messages += 1;
                    "e".repeat(32)
                }
                _ => self.store(user, to, msgid, body),
            };
            if fault == Fault::Double(number) {
                self.store(user, to, msgid, body);
            }
            self.by_msgid.insert(msgid.to_owned(), id.clone());
            params["messageId"] = json!(id);
            if fault == Fault::BreakOff(number) {
                return false;
            }
            if fault == Fault::RefuseAndStore(number) {
                let params = json!({"code": 404, "message": "", "ref": msgid});
                self.say(user, &json!({"type": 500, "status": 500, "params": params}));
                return true;
            }
        }
        self.say(user, &json!({"type": 0, "status": 200, "params": params}));
        true
    }

    /// Type 0 and type 17, and only then, after a while, the message itself.
    fn tell_early(&mut self, user: &str, to: &str, msgid: &str, body: &str) {
        let id = format!("{:032x}", self.messages + 1);
        let params = json!({"msgid": msgid, "messageId": id});
        self.say(user, &json!({"type": 0, "status": 200, "params": params}));
        let told = (user.to_owned(), msgid.to_owned());
        self.untold.insert(id.clone(), told);
        self.tell(&id, to);
        std::thread::sleep(Duration::from_millis(300));
        self.store(user, to, msgid, body);
        self.untold.remove(&id);
        self.by_msgid.insert(msgid.to_owned(), id);
    }
}

fn serve_one(mut stream: TcpStream, inboxes: &Mutex<Inboxes>, fault: Fault) {
    let Some(request) = read_head(&mut stream) else {
        return;
    };
    let of = |key: &str| {
        let rest = request.split(key).nth(1)?;
        rest.split(['&', ' ']).next().map(str::to_owned)
    };
    let user = of("openid=").unwrap();
    let cursor: Option<usize> =
        of("cursor=").map(|c| c.split(':').nth(1).unwrap().parse().unwrap());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        message::ACCEPT
    );
    stream.write_all(answer.as_bytes()).unwrap();
    {
        let mut inboxes = inboxes.lock().unwrap();
        let socket = stream.try_clone().unwrap();
        inboxes.sockets.insert(user.clone(), socket);
        inboxes.say(&user, &json!({"msgType": 0, "msg": {"userCode": "x"}}));
        let cursor = cursor.unwrap_or(0);
        inboxes.pass(&user, cursor);
        let head = inboxes.logs.get(&user).map_or(0, Vec::len);
        for seq in cursor + 1..=head {
            inboxes.push(&user, seq, true);
        }
    }
    while let Some((opcode, body)) = read_frame(&mut stream) {
        if opcode == TEXT {
            let command = serde_json::from_slice(&body).unwrap();
            if !inboxes.lock().unwrap().hear(&user, &command, fault) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}

/// Begins to serve, and says where.
fn serve(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/websocket", listener.local_addr().unwrap());
    let inboxes = Arc::new(Mutex::new(Inboxes::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let inboxes = inboxes.clone();
            std::thread::spawn(move || serve_one(stream.unwrap(), &inboxes, fault));
        }
    });
    url
}

fn chat(name: &str, fault: Fault) -> (Chatted, Report) {
    let url = serve(fault);
    let history = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.history"));
    let mut plan = Plan::new(&url, Who::Openid, "chat-", 4).unwrap();
    plan.threads = 2;
    plan.chats = Some(Arc::new(Chats::new(Some(&history)).unwrap()));
    let mut crowd = Crowd::gather(plan).unwrap();
    assert_eq!(crowd.open(4, Duration::from_secs(20)).unwrap().open, 4);
    let patience = match fault {
        Fault::None | Fault::BreakOff(_) => Duration::from_secs(30),
        _ => Duration::from_millis(500),
    };
    let chatted = crowd
        .chat(Flow::PerSec(200.0), Duration::from_millis(500), patience)
        .unwrap();
    let file = std::fs::File::open(&history).unwrap();
    (
        chatted,
        throng_history::judge(BufReader::new(file)).unwrap(),
    )
}

fn kinds(report: &Report) -> Vec<Kind> {
    report.kinds.keys().copied().collect()
}

#[test]
fn chats_over_a_good_server_keep_every_promise() {
    let (chatted, report) = chat("good", Fault::None);
    assert!(report.is_clean(), "{report}");
    assert!(chatted.is_settled);
    assert_eq!((chatted.issued, report.totals.owed), (100, 100));
    let tally = &chatted.tally;
    assert_eq!(
        (tally.confirmed, tally.delivered, tally.noticed),
        (100, 100, 100)
    );
    assert_eq!((tally.acks, tally.answers, tally.comebacks), (100, 100, 0));
    for histogram in [&tally.to_stored, &tally.to_delivered, &tally.to_noticed] {
        assert_eq!(histogram.len(), 100);
    }
    assert!(tally.to_noticed.max() >= tally.to_delivered.min());
}

#[test]
fn who_was_cut_off_comes_back_and_repeats_and_nothing_is_lost_or_doubled() {
    let (chatted, report) = chat("cut", Fault::BreakOff(20));
    assert!(report.is_clean(), "{report}");
    assert!(chatted.is_settled);
    let tally = &chatted.tally;
    assert_eq!(
        (tally.confirmed, tally.delivered, tally.noticed),
        (100, 100, 100)
    );
    assert!(tally.dups >= 1 && tally.unknown >= 1 && tally.comebacks >= 1);
    assert_eq!(report.totals.attempts, tally.attempts);
}

#[test]
fn a_server_that_breaks_its_word_is_found_out() {
    let (chatted, report) = chat("lost", Fault::Lose(20));
    assert!(!chatted.is_settled);
    assert_eq!(kinds(&report), [Kind::Lost], "{report}");
    let (_, report) = chat("double", Fault::Double(20));
    assert!(report.count(Kind::DuplicateMsgid) == 1 && report.count(Kind::TwoIds) == 1);
    let (_, report) = chat("early", Fault::TellEarly(20));
    assert_eq!(kinds(&report), [Kind::NoticeWithoutAck], "{report}");
    let (chatted, report) = chat("refused", Fault::RefuseAndStore(20));
    // What comes though nobody waits for it ends the run while others are still on their way.
    assert_eq!(report.count(Kind::FailedDelivered), 1, "{report}");
    assert_eq!(chatted.tally.given_up, 1);
}

/// Runs the program, with two clients who only listen, and returns its report.
fn rolling(name: &str, fault: Fault, drain_secs: &str) -> Value {
    let history = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.history"));
    let output = Command::new(env!("CARGO_BIN_EXE_throng-loadtest"))
        .args(["rolling", "--openid", "--json", "--url", &serve(fault)])
        .args(["--connections", "6", "--talkers", "4", "--rate", "200"])
        .args(["--secs", "1", "--drain-secs", drain_secs, "--history"])
        .arg(&history)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["complete"], json!(output.status.success()));
    report
}

#[test]
fn the_program_judges_what_became_of_chats_while_connections_were_lost() {
    let report = rolling("rolling", Fault::BreakOff(20), "60");
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["judged"], json!({ "lost": 0, "doubled": 0 }));
    let (chat, returns) = (&report["chat"], &report["returns"]);
    assert_eq!(
        (&chat["issued"], &chat["confirmed"]),
        (&json!(200), &json!(200))
    );
    // Who had been cut off sent it again, under the msgid that the server knew.
    assert!(chat["dups"].as_u64() >= Some(1) && chat["unknown"].as_u64() >= Some(1));
    assert_eq!(
        (&returns["open"], &returns["outage"]["count"]),
        (&json!(6), &json!(1))
    );
    let of = |who: &str| chat[who]["stored (0)"]["count"].as_u64().unwrap();
    let (all, survivors) = (of("latencies"), of("latencies_of_survivors"));
    assert!(
        all == 200 && (50..200).contains(&survivors),
        "{survivors} of {all}"
    );
}

#[test]
fn the_program_does_not_pass_over_what_was_lost_or_came_twice() {
    let report = rolling("rolling-lost", Fault::Lose(20), "4");
    assert_eq!(
        (&report["complete"], &report["judged"]["lost"]),
        (&json!(false), &json!(1))
    );
    let report = rolling("rolling-double", Fault::Double(20), "4");
    assert_eq!(
        (&report["complete"], &report["judged"]["doubled"]),
        (&json!(false), &json!(1))
    );
}
