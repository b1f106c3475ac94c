//! Every way to a Redis, and a user who may do no more than is needed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use throng::inbox::Accepted;
use throng::inbox::service::{Outcome, Request};
use throng::store::redis::{Address, Redis};

use crate::server::{PREFIX, Server, free_port};
use crate::world::{RULES, World, place};

/// It takes a message there.
fn works(server: &Server, address: &Address) {
    let mut world = World::new(server, PREFIX, RULES);
    world.redis = Redis::open(address.clone(), PREFIX, place(0)).unwrap();
    let chat = world.chat("alice", "bob", None, "hi");
    let outcomes = world.ask_redis(&[Request::Accept(Box::new(chat))]).outcomes;
    assert!(
        matches!(outcomes[..], [Some(Outcome::Accepted(_))]),
        "{outcomes:?}"
    );
}

#[test]
fn a_socket_of_the_file_system_leads_to_it() {
    let server = Server::start();
    let socket = server.socket();
    let url = format!(
        "redis+unix://{}?user=throng&pass=change-this",
        socket.display()
    );
    works(&server, &Address::parse(&url).unwrap());
}

#[test]
fn the_name_of_an_authority_is_enough_for_tls() {
    let certificates = Server::start();
    let dir = certificates.dir.clone();
    make_certificates(&dir);
    let port = free_port().to_string();
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let server = Server::with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://throng:change-this@localhost:{port}");
    let address = Address::parse(&url).unwrap();
    let authority = std::fs::read(dir.join("ca.pem")).unwrap();
    works(&server, &address.clone().trusting(authority));
    let Err(error) = Redis::open(address, PREFIX, place(0)) else {
        panic!("whose certificate is that?");
    };
    assert!(error.to_string().contains("rediss://localhost"), "{error}");
}

fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    for words in [
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    ] {
        let mut command = Command::new("openssl");
        command.args(words.split_whitespace()).current_dir(dir);
        let made = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(made.expect("openssl").success(), "openssl {words}");
    }
}

struct Sentinel(Child);

impl Sentinel {
    /// Looks at `server` and whoever follows it. Returns its port.
    fn over(server: &Server) -> (Sentinel, u16) {
        let port = free_port();
        let file = server.dir.join("sentinel.conf");
        let monitor = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n",
            server.port
        );
        std::fs::write(&file, monitor).unwrap();
        let mut command = Command::new("redis-server");
        command
            .arg(&file)
            .arg("--sentinel")
            .current_dir(&server.dir);
        let started = command.stdout(Stdio::null()).spawn().unwrap();
        (Sentinel(started), port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn sentinels_say_where_the_master_is() {
    let server = Server::start();
    let (_sentinel, port) = Sentinel::over(&server);
    // The first one is gone.
    let gone = free_port();
    let url = |name: &str| {
        format!("redis+sentinel://throng:change-this@127.0.0.1:{gone},127.0.0.1:{port}/{name}")
    };
    let address = Address::parse(&url("main")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = Redis::open(address.clone(), PREFIX, place(0)) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    works(&server, &address);
    let Err(error) = Redis::open(Address::parse(&url("other")).unwrap(), PREFIX, place(0)) else {
        panic!("there is no such master");
    };
    assert!(error.to_string().contains("no master"), "{error}");
}

#[test]
fn after_a_failover_the_new_master_goes_on_under_another_epoch() {
    let mut master = Server::start();
    let port = master.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    replica.until("master_link_status:up");
    let (_sentinel, port) = Sentinel::over(&master);
    let url = format!("redis+sentinel://throng:change-this@127.0.0.1:{port}/main");
    let address = Address::parse(&url).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut world = World::new(&master, PREFIX, RULES);
    world.redis = loop {
        match Redis::open(address.clone(), PREFIX, place(0)) {
            Ok(redis) => break redis,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let chat = world.chat("alice", "bob", Some("m1"), "hi");
    let requests = [
        Request::Accept(Box::new(chat)),
        Request::Look {
            uid: "bob".to_owned(),
            after: 0,
            limit: 9,
        },
    ];
    let outcomes = world.ask_redis(&requests).outcomes;
    let [
        Some(Outcome::Accepted(Accepted::New(id))),
        Some(Outcome::Page(before)),
    ] = &outcomes[..]
    else {
        panic!("{outcomes:?}");
    };
    master.command(&["WAIT", "1", "0"]);
    master.kill();
    let after = loop {
        assert!(Instant::now() < deadline, "the sentinels name no other");
        std::thread::sleep(Duration::from_millis(100));
        world.rest();
        let outcomes = world.carry_out(&requests).outcomes;
        if let [Some(Outcome::Accepted(accepted)), Some(Outcome::Page(page))] = &outcomes[..] {
            assert_eq!(accepted, &Accepted::Again(*id), "the replica had it");
            break page.clone();
        }
    };
    assert_eq!((before.head_seq, after.head_seq), (1, 1));
    assert_ne!(before.epoch, after.epoch, "it may have lost something");
}

#[test]
fn the_user_may_do_no_more_than_is_needed() {
    let server = Server::start();
    let client = redis::Client::open(server.url()).unwrap();
    let mut user = client.get_connection().unwrap();
    for words in [
        "KEYS *",
        "FLUSHALL",
        "CONFIG GET save",
        "ACL LIST",
        "SCRIPT FLUSH",
        "EVAL return{} 0",
        "GET other:key",
        "SET other:key 1",
        "PUBLISH other:channel hello",
        "SUBSCRIBE other:channel",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
    ] {
        let mut all = words.split(' ');
        let mut command = redis::cmd(all.next().unwrap());
        command.arg(all.collect::<Vec<_>>());
        let error = command.exec(&mut user).unwrap_err();
        assert_eq!(error.code(), Some("NOPERM"), "{words}: {error}");
    }
}
