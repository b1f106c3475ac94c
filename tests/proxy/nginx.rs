//! A real nginx for one test, with the configuration that is shipped: only addresses, names and
//! paths in it are others.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::server::free_port;
use crate::support::eventually;
use crate::support::setup::Folder;
use crate::support::talk::tools;

const SHIPPED: &str = include_str!("../../sysctl/nginx.conf");
const READ_TIMEOUT: &str = "proxy_read_timeout 150s;";

/// The local addresses from which it goes to the nodes.
pub const LOCAL: [&str; 4] = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"];

/// The two addresses on which it serves, known before it runs.
#[derive(Clone, Copy)]
pub struct Doors {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
}

impl Doors {
    pub fn new() -> Doors {
        let door = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Doors {
            plain: door(),
            tls: door(),
        }
    }
}

pub struct Nginx {
    child: Child,
    /// The certificate that it has signed itself.
    pub certificate: PathBuf,
    folder: Folder,
}

impl Nginx {
    /// In front of two nodes. `read_timeout_secs` in place of what the configuration has.
    pub fn start(doors: Doors, nodes: [SocketAddr; 2], read_timeout_secs: Option<u32>) -> Nginx {
        let folder = Folder::new();
        let certificate = certify(&folder);
        let path = |name: &str| folder.path(name).display().to_string();
        let log = path("error.log");
        // What is not there to be replaced is a configuration that is tested no more.
        let mut text = SHIPPED.to_owned();
        let mut put = |what: &str, with: &str| {
            assert!(text.contains(what), "no {what} in sysctl/nginx.conf");
            text = text.replace(what, with);
        };
        // As an ordinary user it is nobody else anyway.
        put("user www-data;", "user root;");
        put("/run/nginx.pid", &path("nginx.pid"));
        put("/var/log/nginx/error.log", &log);
        put("/var/log/nginx/access.log", &path("access.log"));
        put("/etc/nginx/throng.pem", &certificate.display().to_string());
        put("/etc/nginx/throng.key", &path("throng.key"));
        put("listen 80 ", &format!("listen {} ", doors.plain));
        put("listen 443 ", &format!("listen {} ", doors.tls));
        for (place, node) in ["192.0.2.11:8888", "192.0.2.12:8888"].iter().zip(nodes) {
            put(place, &node.to_string());
        }
        for (n, local) in LOCAL.iter().enumerate() {
            put(&format!(" 192.0.2.{};", n + 2), &format!(" {local};"));
        }
        if let Some(secs) = read_timeout_secs {
            put(READ_TIMEOUT, &format!("proxy_read_timeout {secs}s;"));
        }
        // Where it would keep bodies, by default a folder of the system.
        let kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let kept = kept.map(|of| format!("{of}_temp_path {};", path(of)));
        put("http {", &format!("http {{ {}", kept.concat()));
        let config = folder.path("nginx.conf");
        fs::write(&config, text).unwrap();
        let mut nginx = Nginx {
            child: run(&config, &log),
            certificate,
            folder,
        };
        for door in [doors.plain, doors.tls] {
            eventually("nginx listens", || {
                let ended = nginx.child.try_wait().unwrap();
                assert!(ended.is_none(), "it has ended: {}", nginx.errors());
                TcpStream::connect(door).is_ok()
            });
        }
        nginx
    }

    /// What it has written to its log of errors.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.folder.path("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed would leave its workers behind.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

fn run(config: &Path, log: &str) -> Child {
    let unpacked = tools().join("nginx/usr/sbin/nginx");
    let program = [Path::new("/usr/sbin/nginx"), &unpacked]
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or(Path::new("nginx"));
    Command::new(program)
        .arg("-c")
        .arg(config)
        .args(["-e", log, "-g", "daemon off;"])
        .stdin(Stdio::null())
        .spawn()
        .expect("nginx: scripts/test-tools.sh gets it")
}

/// A certificate for 127.0.0.1 that vouches for itself, beside its key.
fn certify(folder: &Folder) -> PathBuf {
    let certificate = folder.path("throng.pem");
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-noenc", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", "/CN=127.0.0.1", "-addext"])
        .arg("subjectAltName=IP:127.0.0.1")
        .arg("-keyout")
        .arg(folder.path("throng.key"))
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl: scripts/test-tools.sh installs it");
    assert!(output.status.success(), "{output:?}");
    certificate
}
