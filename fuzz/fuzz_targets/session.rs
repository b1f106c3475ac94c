//! Sessions of one node under any sequence of events. Whatever happens: no panic, every peer
//! reads well-formed frames and nothing behind a close, every text is one object without a key
//! twice, nobody is woken without progress, the roster holds who is online and nobody else, no
//! user has too many sessions or two on one device, nothing is left of who is gone, and how bytes
//! are cut changes nothing.
//!
//! Input: a script: who comes, what is said, how time passes, a byte or two for each choice.

#![no_main]

#[path = "../oracle.rs"]
mod oracle;
#[path = "../../tests/rig/mod.rs"]
mod rig;

use std::collections::HashSet;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use rig::feed::{Chance, Feed};
use rig::wire::{Frame, Heard};
use rig::{Peer, Rig};
use throng::session::Newcomer;
use throng::session::rules::{Rules, SessionPolicy};

const STEPS_MAX: usize = 96;
const PEERS_MAX: usize = 24;
const USERS: [&str; 3] = ["rose", "bob", "eve"];
const SESSIONS_MAX: usize = 3;
const WATCHES_MAX: usize = 4;
const WORDS: [&str; 56] = [
    r#"{"type":11}"#,
    r#"{"msgType":3}"#,
    r#"{"path":"ping","requestId":"r"}"#,
    r#"{"to":"rose","msg":{"a":1}}"#,
    r#"{"to":["bob","eve","rose"],"msg":"hi","msgType":1,"requestId":"r"}"#,
    r#"{"to":"bob,nobody","msg":null}"#,
    r#"{"to":"bob","msg":1,"msgid":"m"}"#,
    r#"{"type":7,"params":{"openid":"rose","userName":"Rose","loginStatus":"1"}}"#,
    r#"{"type":7,"params":{"openid":"bob","loginStatus":"0"}}"#,
    r#"{"type":7,"params":{"loginStatus":0}}"#,
    r#"{"type":7,"params":{"loginStatus":1,"userName":"Bobby"}}"#,
    r#"{"type":1,"params":{"toMessageId":"bob","message":"hi"}}"#,
    r#"{"type":99}"#,
    r#"{"path":"order/new"}"#,
    "{",
    "7",
    r#"{"type":1,"params":{"toMessageId":"rose","message":"\u0041\n\"é","fileType":"png","msgid":"m"}}"#,
    r#"{"type":1,"params":{"toMessageId":"nobody","message":"hi"}}"#,
    r#"{"type":3,"params":{"groupId":"g","userIdList":["bob","eve"]}}"#,
    r#"{"type":3,"params":{"groupId":"h"}}"#,
    r#"{"type":14,"params":{"groupId":"g"}}"#,
    r#"{"type":14,"params":{"groupId":"g","userIdList":"rose,bob,eve,ann"}}"#,
    r#"{"type":14,"params":{"groupId":"g","leave":true}}"#,
    r#"{"type":9,"params":{"toMessageId":"g","message":"all","fileType":2,"msgid":"m"}}"#,
    r#"{"type":15,"params":{"msgid":"m"}}"#,
    r#"{"path":"group/create","body":{"groupId":"i","userIdList":["rose"]},"requestId":"r"}"#,
    r#"{"path":"group/join","body":{"groupId":"g","userIdList":["eve"]},"requestId":"r"}"#,
    r#"{"path":"group/leave","body":{"groupId":"g"}}"#,
    r#"{"path":"group/members","body":{"groupId":"g"},"requestId":"r"}"#,
    r#"{"path":"group/nothing","body":{}}"#,
    r#"{"path":"online","body":{"uids":["rose","nobody"]},"requestId":"r"}"#,
    r#"{"path":"online","body":{"watch":["rose","bob"]}}"#,
    r#"{"path":"online","body":{"watch":"eve,ann,cid,dan","unwatch":["rose"]}}"#,
    r#"{"path":"online","body":{"unwatch":["rose","bob","eve"]}}"#,
    r#"{"path":"online"}"#,
    r#"{"path":"message/send","body":{"to":["rose","bob"],"msg":{"a":1},"store":false},"requestId":"r"}"#,
    r#"{"path":"message/send","body":{"sendToAll":true,"msg":{"b":[1, 2]}}}"#,
    r#"{"path":"message/send","body":{"sendToAll":true,"selector":{"os":"ios"},"msg":{}}}"#,
    r#"{"path":"message/send","body":{"to":"eve","selector":{"os":"ios"},"store":false,"msg":{}}}"#,
    r#"{"path":"message/send","body":{"to":["bob"],"msg":1,"store":true,"delay":3}}"#,
    r#"{"path":"message/send"}"#,
    r#"{"path":"token/renew","token":"no.token"}"#,
    r#"{"path":"token/renew"}"#,
    r#"{"to":["rose","bob","rose"],"msg":[],"msgid":"m","requestId":"r"}"#,
    r#"{"to":"bob","msg":1e400}"#,
    r#"{"type":15,"params":{"msgids":["018cc7fffe6000000000000000000002","018cc7fffe6000000000000000000003"]}}"#,
    r#"{"type":15,"params":{"upTo":"e1:1"}}"#,
    r#"{"type":15,"params":{"upTo":"e1:999"}}"#,
    r#"{"msgType":2,"messageId":"018cc7fffe6000000000000000000003"}"#,
    r#"{"path":"message/ack","body":{"upTo":"e1:3"},"requestId":"r"}"#,
    r#"{"path":"message/pull","body":{"after":1,"limit":2},"requestId":"r"}"#,
    r#"{"path":"connect","body":{"cursor":"e1:2"}}"#,
    r#"{"path":"message/send","body":{"to":["bob","ann"],"msg":1,"uniqueMsgid":"u"}}"#,
    r#"{"msgType":2,"msgid":"m"}"#,
    r#"{"type":7,"params":{"userName":"\" \\ \u0000 é"}}"#,
    r#"{"type":11,"x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
];

fuzz_target!(|data: &[u8]| {
    let whole = run(Rig::with(rules), data);
    let mut rig = Rig::with(rules);
    rig.feed = Feed::split(data.len() as u64);
    assert_eq!(whole, run(rig, data), "the pieces matter");
});

/// Limits that a short script reaches.
fn rules(rules: &mut Rules) {
    rules.limits.user_sessions_max = SESSIONS_MAX;
    rules.limits.watches_max = WATCHES_MAX;
    rules.limits.group_members_max = 3;
    rules.limits.groups_per_user_max = 2;
}

/// Plays the script and returns what each peer heard.
fn run(mut rig: Rig, data: &[u8]) -> Vec<Vec<Heard>> {
    let mut heard: Vec<Vec<Heard>> = Vec::new();
    let mut script = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if script.is_empty() || step(&mut rig, &mut script).is_err() {
            break;
        }
        listen(&mut rig, &mut heard);
        check_roster(&rig);
    }
    rig.takes = None;
    for peer in rig.peers() {
        rig.hang_up(peer);
        assert!(rig.is_gone(peer));
    }
    assert_eq!(rig.counts(), (0, 0), "nobody is left behind");
    assert_eq!(rig.desk.post.watches.len(), 0, "nobody watches");
    assert!(rig.desk.selectors.is_empty(), "nobody is to be selected");
    listen(&mut rig, &mut heard);
    heard
}

fn listen(rig: &mut Rig, heard: &mut Vec<Vec<Heard>>) {
    heard.resize(rig.peers().count(), Vec::new());
    for peer in rig.peers() {
        let fresh = rig.heard(peer);
        for one in &fresh {
            if let Heard::Text(text) = one
                && !rig.is_echo(peer)
            {
                oracle::check_object(text);
            }
        }
        heard[peer.0].extend(fresh);
    }
}

fn check_roster(rig: &Rig) {
    let online = rig.peers().filter(|&peer| rig.is_online(peer)).count();
    assert_eq!(rig.counts().1, online, "the roster holds who is online");
    let bound = rig.peers().filter(|&peer| rig.is_bound(peer)).count();
    assert!(rig.desk.post.watches.len() <= bound * WATCHES_MAX);
    for uid in USERS {
        let sessions = rig.desk.post.roster.sessions(uid);
        assert!(sessions.len() <= SESSIONS_MAX, "{uid} has too many");
        let extras = sessions.iter().filter_map(|view| view.extra.as_ref());
        let devices: Vec<_> = extras.filter_map(|extra| extra.device.clone()).collect();
        let different: HashSet<_> = devices.iter().collect();
        assert_eq!(different.len(), devices.len(), "{uid} is twice on a device");
    }
}

fn step(rig: &mut Rig, script: &mut Unstructured<'_>) -> Result<()> {
    let count = rig.peers().count();
    let choice = script.int_in_range(0..=17u8)?;
    if choice < 4 || count == 0 {
        if count < PEERS_MAX {
            come(rig, script)?;
        }
        return Ok(());
    }
    let peer = Peer(script.choose_index(count)?);
    match choice {
        4..=6 => rig.say(peer, script.choose(&WORDS)?),
        7 => {
            let uid = script.choose(&USERS)?;
            let expires_ms = rig.now.wall_ms + 1000 * u64::from(script.arbitrary::<u16>()?);
            let token = rig.token_until(uid, "", expires_ms.saturating_sub(1000));
            rig.say(peer, format!(r#"{{"path":"connet","token":"{token}"}}"#));
        }
        8 => {
            let bytes = piece(script)?;
            rig.say_frame(peer, &Frame::text(bytes));
        }
        9 => {
            let (first, bytes) = (script.arbitrary()?, piece(script)?);
            let mut frame = Frame::new(0, bytes);
            frame.first = first;
            rig.say_frame(peer, &frame);
        }
        10 => {
            let bytes = piece(script)?;
            rig.say_bytes(peer, bytes);
        }
        11 => rig.advance_ticks(script.int_in_range(1..=40)?),
        12 => rig.advance_secs(script.int_in_range(1..=250)?),
        13 => rig.hang_up(peer),
        14 => match script.int_in_range(0..=7u8)? {
            0 => rig.dismiss(peer, 1012),
            1 => rig.desk.is_draining ^= true,
            2 => rig.desk.courier.is_jammed ^= true,
            3 => rig.step_wall_secs(script.int_in_range(-4000..=4000)?),
            4 => rig.rules.groups_are_open ^= true,
            5 => rig.desk.store.is_down ^= true,
            6 => rig.desk.store.is_jammed ^= true,
            _ => {
                rig.rules.session_policy = match rig.rules.session_policy {
                    SessionPolicy::Multi => SessionPolicy::Single,
                    SessionPolicy::Single => SessionPolicy::Multi,
                };
            }
        },
        16 => {
            let code = rig.code(Peer(script.choose_index(count)?));
            let msgid = script.choose(&["", r#","msgid":"m""#])?;
            rig.say(peer, format!(r#"{{"to":"{code}","msg":"x"{msgid}}}"#));
        }
        17 => {
            let uid = script.choose(&USERS)?;
            let token = rig.token_with(uid, &["message/send"]);
            let path = script.choose(&["connet", "token/renew"])?;
            let body = script.choose(&["null", r#"{"device":"desk"}"#, r#"{"device":"a b"}"#])?;
            rig.say(
                peer,
                format!(r#"{{"path":"{path}","token":"{token}","body":{body}}}"#),
            );
        }
        _ => {
            let most = script.int_in_range(0..=200u64)?;
            rig.takes = (most > 0).then_some((Chance(most), most));
        }
    }
    Ok(())
}

fn come(rig: &mut Rig, script: &mut Unstructured<'_>) -> Result<()> {
    match script.int_in_range(0..=8u8)? {
        0 | 1 => {
            let token = rig.token(script.choose(&USERS)?);
            rig.connect(&format!("/websocket?token={token}"));
        }
        2 => {
            rig.connect("/websocket");
        }
        3 => {
            rig.connect("/echo");
        }
        4 => {
            rig.knock(Newcomer::Surplus);
        }
        5 => {
            rig.knock(Newcomer::Admitted);
        }
        6 => {
            let token = rig.token(script.choose(&USERS)?);
            let says = script.choose(&[
                "device=desk",
                "device=phone&os=ios",
                "os=ios&app=chat",
                "ack=1",
                "cursor=e1:1&device=desk",
                "cursor=e2:1",
            ])?;
            rig.connect(&format!("/websocket?{says}&token={token}"));
        }
        7 => {
            rig.connect("/websocket?os=ios&device=phone");
        }
        _ => {
            let token = rig.token_with(script.choose(&USERS)?, &["message/send"]);
            rig.connect(&format!("/websocket?token={token}"));
        }
    }
    Ok(())
}

fn piece<'a>(script: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = script.int_in_range(0..=300usize)?.min(script.len());
    script.bytes(length)
}
