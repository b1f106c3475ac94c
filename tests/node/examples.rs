//! Every example of PROTOCOL.md is sent to a node, and what comes back is what is written there.

mod document;
mod likeness;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::{Client, Node, Setup};
use document::{Call, Entry, Shown, Step, codes, rows, section, shown, steps};
use likeness::{Names, assert_like, is_text_like, stem};

const HTTP: usize = 11;
/// From the families of messages to the inbox.
const MESSAGES: std::ops::RangeInclusive<usize> = 3..=9;

/// With the addresses of this node in the place of the default ones.
fn at(node: &Node, text: &str) -> String {
    text.replace("127.0.0.1:8084", &node.api.to_string())
        .replace("127.0.0.1:8888", &node.ws.to_string())
}

/// A client of a user, and the id of its session.
fn join(node: &Node, order: &Value, query: &str) -> (Client, String) {
    let (client, notice) = node.join_for(order, query);
    (client, notice["sessionId"].as_str().unwrap().to_owned())
}

/// Those who are connected while the examples of the HTTP section are tried: alice once, bob twice.
struct Audience {
    node: Node,
    clients: Vec<(Client, String)>,
    names: Names,
}

impl Audience {
    fn new() -> Audience {
        // Whoever is to be closed stays until it is told to go.
        let config = "[limits]\nclose_secs = 60\n";
        let node = Setup::new().config(config).start();
        let clients = (0..3).map(|n| Self::come(&node, n)).collect();
        let staff = json!({"groupId": "staff", "userIdList": ["alice"]});
        node.post("/api/v1/groups", &staff).content();
        let names = Names::default();
        Audience {
            node,
            clients,
            names,
        }
    }

    fn come(node: &Node, n: usize) -> (Client, String) {
        match n {
            0 => join(
                node,
                &json!({"userId": "alice", "userName": "Alice"}),
                "os=ios",
            ),
            _ => join(node, &json!({"userId": "bob"}), ""),
        }
    }

    /// What has to happen before an example makes sense.
    fn prepare(&mut self, call: &Call) {
        let alice = &mut self.clients[0].0;
        if call.is("POST", "/api/v1/users/alice/trace") {
            // Whatever was sent to her before is with her, and nothing of it in the trace.
            self.node.push(&["alice"], &json!("all of it")).content();
            while alice.hear()["msg"] != "all of it" {}
        }
        if call.is("GET", "/api/v1/users/alice/trace") {
            alice.say(&json!({"type": 1, "params":
                {"toMessageId": "bob", "message": "hi", "fileType": 0, "msgid": "m1"}}));
            while alice.hear()["type"] != 0 {}
        }
        if call.is("GET", "/api/v1/drain") {
            for (mut bob, _) in self.clients.drain(1..) {
                assert_eq!(bob.closed().code, 1012);
                bob.say_goodbye(1012);
                assert_eq!(bob.read_to_end(), "");
            }
            self.node.awaits("connections", 1.0);
        }
    }

    /// Whoever an operator has closed hears it, and comes back.
    fn restore(&mut self, closed: &Value) {
        for (n, place) in self.clients.iter_mut().enumerate() {
            let (client, session) = place;
            if closed.as_array().unwrap().contains(&json!(session)) {
                assert_eq!(client.closed().code, 4410);
                client.say_goodbye(4410);
                *place = Self::come(&self.node, n);
            }
        }
        self.node.awaits("connections", 3.0);
    }

    fn try_out(&mut self, call: &Call, is_whole: bool) {
        self.prepare(call);
        let mut target = self.names.real(&at(&self.node, &call.target));
        if let Some(user) = stem(&target.replace("/api/v1/sessions/", "")) {
            // The session of an example stands for one that there is.
            let sessions = self.clients.iter().map(|(_, session)| session);
            let mut of_user = sessions.filter(|session| stem(session) == Some(user));
            target = format!("/api/v1/sessions/{}", of_user.next().unwrap());
        }
        let answer = self::call(self.node.api, &call.method, &target, &[], &call.body);
        let written = at(&self.node, &call.answer);
        let Ok(written) = serde_json::from_str::<Value>(&written) else {
            assert!(!written.starts_with(['{', '[']), "no JSON: {written}");
            assert_eq!(answer.status, 200, "{target}");
            assert!(is_text_like(&written, answer.body.trim_end()), "{target}");
            return;
        };
        let written = match written.get("statusCode") {
            Some(_) => written,
            None if is_whole => panic!("the first answers are shown whole: {written}"),
            None => json!({"success": true, "statusCode": 200, "content": written,
                "msg": "操作成功"}),
        };
        let real = answer.json();
        assert_like(&written, &real);
        self.names.learn(&written, &real);
        let status = real["statusCode"].as_i64().unwrap();
        let status = if status == -501 { 200 } else { status };
        assert_eq!(i64::from(answer.status), status, "{target}");
        if let Some(closed) = real["content"].get("closed") {
            self.restore(closed);
        }
    }
}

#[test]
fn every_row_of_the_http_section_has_an_example_and_the_node_answers_as_it_is_written() {
    let text = section(HTTP);
    let blocks = shown(text).into_iter().filter_map(|shown| match shown {
        Shown::Block(block) => Some(block),
        Shown::Object(_) => None,
    });
    let calls: Vec<Call> = blocks.map(|block| Call::read(&block)).collect();
    let has_path = |row: &&Vec<&str>| row[0].contains("`/");
    let entries: Vec<Entry> = rows(text)
        .iter()
        .filter(has_path)
        .flat_map(|row| Entry::all(row[0]))
        .collect();
    assert!(entries.len() > 25, "{entries:?}");
    for entry in &entries {
        let is_shown = calls.iter().any(|call| entry.is_shown_by(call));
        assert!(is_shown, "no example of {entry:?}");
    }
    let mut audience = Audience::new();
    for (n, call) in calls.iter().enumerate() {
        let is_promised = entries.iter().any(|entry| entry.is_shown_by(call));
        assert!(is_promised, "no row for {call:?}");
        audience.try_out(call, n < 3);
    }
}

/// The users of the other sections, each with a connection.
struct Cast {
    node: Node,
    clients: BTreeMap<String, Client>,
    names: Names,
    /// What has been sent and got, as `type 7`, `msgType 1` or `path ping`.
    sent: BTreeSet<String>,
    got: BTreeSet<String>,
}

impl Cast {
    fn new() -> Cast {
        let mut cast = Cast {
            // One: what anybody has sent is with the others before their next word is read.
            node: Node::start(&["--reactors", "1"]),
            clients: BTreeMap::new(),
            names: Names::default(),
            sent: BTreeSet::new(),
            got: BTreeSet::new(),
        };
        for user in ["alice", "bob"] {
            let (client, _) = join(&cast.node, &Self::order(user), "");
            cast.clients.insert(user.to_owned(), client);
        }
        cast
    }

    /// A token's: everybody is called by the id with a capital, and alice may push.
    fn order(user: &str) -> Value {
        let name = user[..1].to_uppercase() + &user[1..];
        let perms: &[&str] = if user == "alice" {
            &["message/send"]
        } else {
            &[]
        };
        json!({"userId": user, "userName": name, "perms": perms})
    }

    /// With a token in the place of `…`.
    fn complete(&self, user: &str, message: &Value) -> Value {
        let text = self.names.real(&message.to_string());
        let mut message: Value = serde_json::from_str(&text).unwrap();
        let places = ["/token", "/body/token"];
        let place = places.into_iter().find(|at| message.pointer(at).is_some());
        if let Some(token) = place.and_then(|at| message.pointer_mut(at)) {
            *token = json!(self.node.token_for(&Self::order(user)));
        }
        message
    }

    /// Who is not here yet comes without a token.
    fn client(&mut self, user: &str) -> &mut Client {
        let node = &self.node;
        let place = self.clients.entry(user.to_owned());
        place.or_insert_with(|| node.stranger())
    }

    fn play(&mut self, step: &Step) {
        let Step { user, message, .. } = step;
        let kinds = kinds_of(message);
        if step.is_sent {
            let message = self.complete(user, message);
            self.client(user).say(&message);
            self.sent.extend(kinds);
        } else {
            let written = at(&self.node, &message.to_string());
            let written = serde_json::from_str(&written).unwrap();
            let real = self.client(user).hear();
            assert_like(&written, &real);
            self.names.learn(&written, &real);
            self.got.extend(kinds);
        }
    }

    /// What nobody has told of is passed over. The store answers in turn, so behind this question
    /// nothing is left of what was asked before.
    fn pause(&mut self) {
        let question = json!({"path": "group/members", "body": {"groupId": "no-group"},
            "requestId": "pause"});
        for client in self.clients.values_mut() {
            client.say(&question);
            while client.hear()["requestId"] != "pause" {}
        }
    }

    /// A message that stands in a sentence, without its answer: nothing is wrong with it.
    fn mention(&mut self, message: &Value) {
        self.sent.extend(kinds_of(message));
        let alice = self.client("alice");
        alice.say(message);
        for answer in alice.is_heard() {
            let is_refused = answer["type"] == 500 || answer["success"] == false;
            assert!(!is_refused, "{message}: {answer}");
        }
    }
}

fn kinds_of(message: &Value) -> Vec<String> {
    let places = [
        ("type", "/type"),
        ("type", "/msg/type"),
        ("msgType", "/msgType"),
        ("path", "/path"),
    ];
    let found = places.iter().filter_map(|(name, at)| {
        let value = message.pointer(at)?;
        let text = value.as_str().map_or(value.to_string(), str::to_owned);
        Some(format!("{name} {text}"))
    });
    found.collect()
}

#[test]
fn the_examples_of_messages_are_what_clients_may_send_and_what_they_get() {
    let mut cast = Cast::new();
    for number in MESSAGES {
        for shown in shown(section(number)) {
            match shown {
                Shown::Block(block) => {
                    for step in steps(&block) {
                        cast.play(&step);
                    }
                }
                Shown::Object(message) if kinds_of(&message).is_empty() => {}
                Shown::Object(message) => cast.mention(&message),
            }
            cast.pause();
        }
    }
    let Cast { sent, got, .. } = &cast;
    let assert_shown = |all: &BTreeSet<String>, kind: String| {
        assert!(all.contains(&kind), "no example of {kind}");
    };
    let [commands, frames, routes] = [5, 6, 7].map(|number| rows(section(number)));
    assert!(commands.len() > 12 && frames.len() > 5 && routes.len() > 8);
    for row in &commands {
        // What clients send has four columns, what the node sends two.
        let all = if row.len() == 4 { sent } else { got };
        for number in row[0].split(", ") {
            assert_shown(all, format!("type {number}"));
        }
    }
    for row in &frames {
        for (all, cell) in [(sent, row[1]), (got, row[2])] {
            if !cell.is_empty() {
                assert_shown(all, format!("msgType {}", row[0]));
            }
        }
    }
    for path in routes.iter().flat_map(|row| codes(row[0])) {
        assert_shown(sent, format!("path {path}"));
    }
}
