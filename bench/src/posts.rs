//! Pushes to a server that takes them as bare HTTP posts.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem;

const PATIENCE: Duration = Duration::from_secs(60);

/// What one post may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// A JSON array of all that is pushed together.
    All,
    One,
}

pub struct Posts {
    pub address: SocketAddr,
    pub path: &'static str,
    pub load: Load,
}

impl Posts {
    /// Pushes these JSON texts, over one connection of their own. Returns when all are answered.
    pub fn push(&self, bodies: &[String]) -> io::Result<()> {
        let bodies = match self.load {
            Load::All => vec![format!("[{}]", bodies.join(","))],
            Load::One => bodies.to_vec(),
        };
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(self.requests(&bodies).as_bytes())?;
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers)?;
        if memmem::find_iter(&answers, b"HTTP/1.1 2").count() == bodies.len() {
            return Ok(());
        }
        let answers = String::from_utf8_lossy(&answers).into_owned();
        Err(io::Error::new(io::ErrorKind::InvalidData, answers))
    }

    /// The last one asks the server to close the connection.
    fn requests(&self, bodies: &[String]) -> String {
        let mut left = bodies.len();
        let request = |body: &String| {
            left -= 1;
            let then = if left > 0 { "keep-alive" } else { "close" };
            format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
                 Connection: {then}\r\nContent-Length: {}\r\n\r\n{body}",
                self.path,
                self.address,
                body.len()
            )
        };
        bodies.iter().map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_push_is_one_post_or_several_and_all_must_be_answered_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answers in [
                "HTTP/1.1 201 Created\r\n\r\n",
                "HTTP/1.1 202 Accepted\r\n\r\n",
            ] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                while !request.contains("close") || !request.ends_with(['2', ']']) {
                    let mut piece = [0; 1000];
                    let length = stream.read(&mut piece).unwrap();
                    request += std::str::from_utf8(&piece[..length]).unwrap();
                }
                stream.write_all(answers.as_bytes()).unwrap();
                asked.push(request);
            }
            asked
        });
        let posts = |load| Posts {
            address,
            path: "/push",
            load,
        };
        let bodies = ["1".to_owned(), "2".to_owned()];
        posts(Load::All).push(&bodies).unwrap();
        let error = posts(Load::One).push(&bodies).unwrap_err();
        assert!(error.to_string().contains("202 Accepted"), "{error}");
        let asked = server.join().unwrap();
        assert!(
            asked[0].starts_with("POST /push HTTP/1.1\r\n") && asked[0].ends_with("\r\n\r\n[1,2]")
        );
        assert_eq!(asked[1].matches("POST /push").count(), 2);
    }
}
