//! Sessions of one node under any sequence of events. Whatever happens: no panic, every peer
//! reads well-formed frames and nothing behind a close, nobody is woken without progress, the
//! roster holds who is online and nobody else, and how bytes are cut changes nothing.

#![no_main]

#[path = "../../tests/rig/mod.rs"]
mod rig;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use rig::feed::{Chance, Feed};
use rig::wire::{Frame, Heard};
use rig::{Peer, Rig};
use throng::session::Newcomer;

const STEPS_MAX: usize = 96;
const PEERS_MAX: usize = 24;
const USERS: [&str; 3] = ["rose", "bob", "eve"];
const WORDS: [&str; 16] = [
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
];

fuzz_target!(|data: &[u8]| {
    let whole = run(Rig::new(), data);
    let mut rig = Rig::new();
    rig.feed = Feed::split(data.len() as u64);
    assert_eq!(whole, run(rig, data), "the pieces matter");
});

/// Plays the script and returns what each peer heard.
fn run(mut rig: Rig, data: &[u8]) -> Vec<Vec<Heard>> {
    let mut heard: Vec<Vec<Heard>> = Vec::new();
    let mut script = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if script.is_empty() || step(&mut rig, &mut script).is_err() {
            break;
        }
        listen(&mut rig, &mut heard);
        let online = rig.peers().filter(|&peer| rig.is_online(peer)).count();
        assert_eq!(rig.counts().1, online, "the roster holds who is online");
    }
    rig.takes = None;
    for peer in rig.peers() {
        rig.hang_up(peer);
        assert!(rig.is_gone(peer));
    }
    assert_eq!(rig.counts(), (0, 0), "nobody is left behind");
    listen(&mut rig, &mut heard);
    heard
}

fn listen(rig: &mut Rig, heard: &mut Vec<Vec<Heard>>) {
    heard.resize(rig.peers().count(), Vec::new());
    for peer in rig.peers() {
        heard[peer.0].extend(rig.heard(peer));
    }
}

fn step(rig: &mut Rig, script: &mut Unstructured<'_>) -> Result<()> {
    let count = rig.peers().count();
    let choice = script.int_in_range(0..=15u8)?;
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
        14 => match script.int_in_range(0..=3u8)? {
            0 => rig.dismiss(peer, 1012),
            1 => rig.desk.is_draining ^= true,
            2 => rig.desk.courier.is_jammed ^= true,
            _ => rig.step_wall_secs(script.int_in_range(-4000..=4000)?),
        },
        _ => {
            let most = script.int_in_range(0..=200u64)?;
            rig.takes = (most > 0).then_some((Chance(most), most));
        }
    }
    Ok(())
}

fn come(rig: &mut Rig, script: &mut Unstructured<'_>) -> Result<()> {
    match script.int_in_range(0..=5u8)? {
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
        _ => {
            rig.knock(Newcomer::Admitted);
        }
    }
    Ok(())
}

fn piece<'a>(script: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let length = script.int_in_range(0..=300usize)?.min(script.len());
    script.bytes(length)
}
