//! What small servers in tests read from their clients.

use std::io::Read;
use std::net::TcpStream;

pub fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

pub fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut length = usize::from(head[1] & 0x7f);
    if length == 126 {
        let mut more = [0; 2];
        stream.read_exact(&mut more).ok()?;
        length = usize::from(u16::from_be_bytes(more));
    }
    let mut key = [0; 4];
    stream.read_exact(&mut key).ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    for (at, byte) in body.iter_mut().enumerate() {
        *byte ^= key[at % 4];
    }
    Some((head[0] & 15, body))
}
