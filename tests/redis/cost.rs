//! What a message costs Redis: run by hand, because it proves nothing.
//! `cargo test --test redis -- --ignored --nocapture cost`

use throng::inbox::Reach;
use throng::inbox::service::Request;

use crate::server::{PREFIX, Server};
use crate::world::{RULES, World};

const USERS: usize = 500;
const ROUNDS: usize = 40;

/// Microseconds in Redis for each call of a script since it was last asked.
fn micros(server: &Server) -> f64 {
    let mut info = redis::cmd("INFO");
    let all: String = info.arg("commandstats").query(&mut server.admin()).unwrap();
    let line = all
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"));
    let word = line
        .and_then(|line| line.split("usec_per_call=").nth(1))
        .unwrap();
    let micros = word.split(',').next().unwrap().parse().unwrap();
    server.command(&["CONFIG", "RESETSTAT"]);
    micros
}

fn user(n: usize) -> String {
    format!("user{n:05}")
}

#[test]
#[ignore = "it measures"]
fn what_a_chat_costs() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    for n in 0..USERS {
        world.begin_session(&user(n), "phone", 0);
    }
    println!("attach: {:.1} us", micros(&server));
    let (mut accept, mut acknowledge) = (f64::MAX, f64::MAX);
    for round in 0..ROUNDS {
        let chats = (0..USERS).map(|n| {
            let (from, to) = (user((n + round + 1) % USERS), user(n));
            let msgid = format!("m{round}");
            world.chat(
                &from,
                &to,
                Some(&msgid),
                "how are you today, and what about dinner?",
            )
        });
        let chats: Vec<_> = chats.collect();
        let ids: Vec<_> = chats
            .iter()
            .map(|chat| (chat.to.clone(), chat.entry.id))
            .collect();
        let requests = chats
            .into_iter()
            .map(|chat| Request::Accept(Box::new(chat)));
        world.ask_redis(&requests.collect::<Vec<_>>());
        accept = accept.min(micros(&server));
        let requests = ids.into_iter().map(|(uid, id)| Request::Acknowledge {
            uid,
            device: "phone".to_owned(),
            reach: Reach::Messages(vec![id]),
        });
        world.ask_redis(&requests.collect::<Vec<_>>());
        acknowledge = acknowledge.min(micros(&server));
    }
    println!(
        "accept: {accept:.1} us, acknowledge: {acknowledge:.1} us, in the best of {ROUNDS} rounds"
    );
}
