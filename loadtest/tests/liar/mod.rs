//! A small server that speaks enough of the protocol for every scenario, and lies on purpose: of
//! what it delivers, it drops, doubles, reorders, delays or misroutes some, and counts them.
//!
//! Owns: one lie, the users' sockets and inboxes, and the groups. Receipts are always true.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throng_loadtest::frame::{self, CLOSE, TEXT};
use throng_loadtest::message;

use crate::wire::{read_frame, read_head};

/// What the server does wrong with each delivery of which the number is a multiple of this.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lie {
    Drop(u64),
    Double(u64),
    /// With the next delivery to the same user.
    Reorder(u64),
    Misroute(u64),
    /// With all of them.
    Delay(Duration),
}

/// What was held back is told after so long, if nothing overtakes it.
const HELD_FOR: Duration = Duration::from_millis(300);

struct World {
    lie: Lie,
    deliveries: u64,
    told: u64,
    messages: u64,
    sockets: BTreeMap<String, TcpStream>,
    /// The seq of each user's last entry.
    heads: HashMap<String, u64>,
    /// Who is told of a message, and by which msgid.
    untold: HashMap<String, (String, String)>,
    groups: HashMap<String, Vec<String>>,
    held: HashMap<String, (Instant, Vec<u8>)>,
    later: Vec<(Instant, String, Vec<u8>)>,
}

#[derive(Clone)]
pub struct Liar {
    pub url: String,
    pub api: String,
    world: Arc<Mutex<World>>,
}

fn wire(text: &Value) -> Vec<u8> {
    let mut wire = Vec::new();
    frame::write_plain(&mut wire, TEXT, text.to_string().as_bytes());
    wire
}

impl World {
    fn write(&mut self, user: &str, wire: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(user) {
            // Whoever has gone needs nothing.
            let _ = socket.write_all(wire);
        }
    }

    fn say(&mut self, user: &str, text: &Value) {
        self.write(user, &wire(text));
    }

    fn next_id(&mut self) -> String {
        self.messages += 1;
        format!("{:032x}", self.messages)
    }

    /// The lie, if it is this delivery's turn, and for whom it is.
    fn lies_to(&mut self, user: &str) -> (Option<Lie>, String) {
        self.deliveries += 1;
        let is_turn = match self.lie {
            Lie::Drop(every) | Lie::Double(every) | Lie::Reorder(every) | Lie::Misroute(every) => {
                self.deliveries.is_multiple_of(every)
            }
            Lie::Delay(_) => true,
        };
        let lie = is_turn.then_some(self.lie);
        self.told += u64::from(is_turn && !matches!(self.lie, Lie::Reorder(_)));
        if !matches!(lie, Some(Lie::Misroute(_))) {
            return (lie, user.to_owned());
        }
        let users: Vec<&String> = self.sockets.keys().collect();
        let at = users.iter().position(|other| *other == user).unwrap_or(0);
        // Half of all away: that is another block of users and another group, but in a pair it
        // is the partner.
        let far = (at + users.len() / 2 + 1) % users.len();
        (lie, users[far].clone())
    }

    /// Says it as the lie wants. Two frames of one lie leave in one write.
    fn deliver(&mut self, user: &str, lie: Option<Lie>, text: &Value) {
        let mut frames = wire(text);
        match lie {
            Some(Lie::Drop(_)) => return,
            Some(Lie::Double(_)) => frames.extend(wire(text)),
            Some(Lie::Delay(by)) => {
                self.later
                    .push((Instant::now() + by, user.to_owned(), frames));
                return;
            }
            Some(Lie::Reorder(_)) if !self.held.contains_key(user) => {
                self.held.insert(user.to_owned(), (Instant::now(), frames));
                return;
            }
            _ => {}
        }
        if let Some((_, held)) = self.held.remove(user) {
            self.told += 1;
            frames.extend(held);
        }
        self.write(user, &frames);
    }

    /// What the lies have put off.
    fn catch_up(&mut self) {
        let now = Instant::now();
        let is_due = |(at, ..): &(Instant, String, Vec<u8>)| *at <= now;
        let (due, later) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(is_due);
        self.later = later;
        for (_, user, frames) in Vec::from_iter::<Vec<_>>(due) {
            self.write(&user, &frames);
        }
        let is_old = |held: &(Instant, Vec<u8>)| now >= held.0 + HELD_FOR;
        let old: Vec<String> = self
            .held
            .iter()
            .filter(|(_, held)| is_old(held))
            .map(|(u, _)| u.clone())
            .collect();
        for user in old {
            if let Some((_, frames)) = self.held.remove(&user) {
                self.write(&user, &frames);
            }
        }
    }

    /// What nobody stores.
    fn pass_on(&mut self, user: &str, msg: &Value) {
        let (lie, to) = self.lies_to(user);
        let id = self.next_id();
        self.deliver(
            &to,
            lie,
            &json!({"messageId": id, "msgType": 1, "msg": msg}),
        );
    }

    fn place(&mut self, user: &str, mut entry: Value) -> Value {
        let head = self.heads.entry(user.to_owned()).or_default();
        *head += 1;
        (entry["epoch"], entry["seq"]) = (json!("e1"), json!(*head));
        entry
    }

    fn store(&mut self, id: &str, user: &str, msg: Value) {
        let (lie, to) = self.lies_to(user);
        let entry = self.place(&to, json!({"messageId": id, "msgType": 1, "msg": msg}));
        self.deliver(&to, lie, &entry);
    }

    /// One text of a client.
    fn hear(&mut self, user: &str, text: &Value) {
        let params = &text["params"];
        let word = |key: &str| params[key].as_str().unwrap_or_default().to_owned();
        match text["type"].as_i64() {
            Some(7) => self.say(user, &json!({"type": 8, "status": 200, "params": {}})),
            Some(15) => {
                let id = word("msgid");
                let answer = json!({"type": 16, "status": 200, "params": {"message": id}});
                self.say(user, &answer);
                if let Some((sender, msgid)) = self.untold.remove(&id) {
                    let params = json!({"msgid": msgid, "messageId": id, "toUser": user});
                    let msg = json!({"type": 17, "status": 200, "params": params});
                    let own = self.next_id();
                    let entry = json!({"messageId": own, "msgType": 1, "msg": msg});
                    let entry = self.place(&sender, entry);
                    // No lie of its own, but it keeps its place behind what was put off.
                    let lie = matches!(self.lie, Lie::Delay(_)).then_some(self.lie);
                    self.deliver(&sender, lie, &entry);
                }
            }
            Some(kind @ (1 | 9)) => {
                let (to, msgid) = (word("toMessageId"), word("msgid"));
                let id = self.next_id();
                let params = json!({"fromUser": {"openid": user}, "message": word("message")});
                let msg = json!({"type": kind + 1, "status": 200, "params": params});
                if kind == 1 {
                    self.untold
                        .insert(id.clone(), (user.to_owned(), msgid.clone()));
                    self.store(&id, &to, msg);
                } else {
                    let members = self.groups[&to].clone();
                    for member in members.iter().filter(|member| *member != user) {
                        self.store(&id, member, msg.clone());
                    }
                }
                let params = json!({"msgid": msgid, "messageId": id});
                self.say(user, &json!({"type": 0, "status": 200, "params": params}));
            }
            _ => self.pass_on(text["to"].as_str().unwrap(), &text["msg"]),
        }
    }

    /// The content of the answer to one request of a backend.
    fn ask(&mut self, head: &str, body: &Value) -> Value {
        let names = |key: &str| -> Vec<String> {
            let names = body[key].as_array().into_iter().flatten();
            names
                .map(|name| name.as_str().unwrap().to_owned())
                .collect()
        };
        if head.starts_with("POST /api/v1/groups") {
            let id = body["groupId"].as_str().unwrap().to_owned();
            self.groups.insert(id, names("userIdList"));
            return json!({});
        }
        if let Some(rest) = head.strip_prefix("DELETE /api/v1/groups/") {
            let id = rest.split(' ').next().unwrap();
            self.groups.remove(id).unwrap();
            return json!({});
        }
        let users = match body["sendToAll"] == true {
            true => self.sockets.keys().cloned().collect(),
            false => names("to"),
        };
        for user in &users {
            self.pass_on(user, &body["msg"]);
        }
        json!({})
    }
}

fn serve_client(mut stream: TcpStream, world: &Mutex<World>) -> Option<()> {
    let request = read_head(&mut stream)?;
    let rest = request.split("openid=").nth(1)?;
    let user = rest.split(['&', ' ']).next()?.to_owned();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        message::ACCEPT
    );
    stream.write_all(answer.as_bytes()).ok()?;
    let socket = stream.try_clone().ok()?;
    {
        let mut world = world.lock().unwrap();
        world.sockets.insert(user.clone(), socket);
        world.say(&user, &json!({"msgType": 0, "msg": {"userCode": "x"}}));
    }
    loop {
        let (opcode, body) = read_frame(&mut stream)?;
        match opcode {
            TEXT => {
                let text = serde_json::from_slice(&body).unwrap();
                world.lock().unwrap().hear(&user, &text);
            }
            CLOSE => return None,
            _ => {}
        }
    }
}

fn serve_backend(mut stream: TcpStream, world: &Mutex<World>) -> Option<()> {
    loop {
        let head = read_head(&mut stream)?;
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).ok()?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let content = world.lock().unwrap().ask(&head, &body);
        let answer = json!({"success": true, "statusCode": 200, "content": content}).to_string();
        let length = answer.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn listen(world: Arc<Mutex<World>>, serve: fn(TcpStream, &Mutex<World>) -> Option<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let world = world.clone();
            let stream = stream.unwrap();
            let _ = stream.set_nodelay(true);
            std::thread::spawn(move || serve(stream, &world));
        }
    });
    address
}

impl Liar {
    pub fn new(lie: Lie) -> Liar {
        let world = Arc::new(Mutex::new(World {
            lie,
            deliveries: 0,
            told: 0,
            messages: 0,
            sockets: BTreeMap::new(),
            heads: HashMap::new(),
            untold: HashMap::new(),
            groups: HashMap::new(),
            held: HashMap::new(),
            later: Vec::new(),
        }));
        let clock = world.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(5));
                clock.lock().unwrap().catch_up();
            }
        });
        Liar {
            url: format!("ws://{}/websocket", listen(world.clone(), serve_client)),
            api: format!("http://{}", listen(world.clone(), serve_backend)),
            world,
        }
    }

    /// How often it has lied.
    pub fn told(&self) -> u64 {
        self.world.lock().unwrap().told
    }

    /// Groups that nobody has ended.
    pub fn groups(&self) -> usize {
        self.world.lock().unwrap().groups.len()
    }
}
