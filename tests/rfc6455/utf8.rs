//! Text is UTF-8, wherever it is cut, and what is not is found at its very byte.

use super::rig::Rig;
use super::rig::feed::Chance;
use super::rig::wire::{Frame, Heard, TEXT};
use super::{closed, echo, heard, text};

#[test]
fn good_text_passes_however_it_is_cut() {
    let texts = [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
        "\u{fffe}\u{1fffe}\u{d7ff}\u{e000}\u{fffd}",
        "🎈".repeat(100).as_str(),
    ]
    .map(str::to_owned);
    for good in texts {
        echo("one frame", &[Frame::text(good.clone())], &[text(&good)]);
        let bytes = good.as_bytes();
        for cut in 0..=bytes.len().min(30) {
            let (head, tail) = bytes.split_at(cut);
            let say = [Frame::text(head).begun(), Frame::more(tail)];
            echo("cut within characters", &say, &[text(&good)]);
        }
        let mut pieces: Vec<Frame> = bytes.iter().map(|b| Frame::more([*b]).begun()).collect();
        pieces[0].first = TEXT;
        pieces.push(Frame::more(""));
        echo("a byte a fragment", &pieces, &[text(&good)]);
    }
}

/// Bytes that are no UTF-8, and the place of the first that shows it.
const BAD_TEXTS: [(&[u8], usize); 14] = [
    (b"\x80", 0),
    (b"\xbf\xbf", 0),
    (b"ab\xff", 2),
    (b"\xfe\xfe\xff\xff", 0),
    (b"\xc0\xaf", 0),
    (b"\xc1\xbf", 0),
    (b"\xe0\x9f\xbf", 1),
    (b"\xf0\x80\x80\xaf", 1),
    (b"\xf0\x8f\xbf\xbf", 1),
    (b"\xed\xa0\x80", 1),
    (b"\xce\xba\xed\xbf\xbf", 3),
    (b"\xf4\x90\x80\x80", 1),
    (b"\xf8\x88\x80\x80\x80", 0),
    (
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
        12,
    ),
];

#[test]
fn bad_text_ends_the_connection() {
    for (bad, at) in BAD_TEXTS {
        echo("one frame", &[Frame::text(bad)], &[closed(1007)]);
        for cut in 0..=bad.len() {
            let (head, tail) = bad.split_at(cut);
            let say = [
                Frame::text(head).begun(),
                Frame::ping(""),
                Frame::more(tail),
            ];
            let mut hear = vec![closed(1007)];
            if cut <= at {
                hear.insert(0, Heard::Pong(Vec::new()));
            }
            echo("cut", &say, &hear);
        }
        let binary = Heard::Binary(bad.to_vec());
        echo("as binary", &[Frame::binary(bad)], &[binary]);
    }
}

#[test]
fn bad_text_is_found_at_its_very_byte() {
    for (bad, at) in BAD_TEXTS {
        let mut rig = Rig::new();
        let peer = rig.echo();
        // Four bytes of header and four of mask, and more text than ever arrives.
        let long = [bad, &[b'x'; 200]].concat();
        let bytes = Frame::text(long).encode(&mut Chance(3));
        rig.say_bytes(peer, &bytes[..8 + at]);
        assert_eq!(rig.heard(peer), [], "{bad:x?} up to the byte before");
        rig.say_bytes(peer, &bytes[8 + at..8 + at + 1]);
        assert_eq!(heard(&mut rig, peer), [closed(1007)], "{bad:x?}");
    }
}

#[test]
fn a_character_that_the_message_cuts_off_is_bad() {
    for end in ["\u{e9}", "\u{20ac}", "\u{10ffff}"] {
        let bytes = end.as_bytes();
        for length in 1..bytes.len() {
            let say = [Frame::text(&bytes[..length])];
            echo("one frame", &say, &[closed(1007)]);
            let say = [Frame::text(&bytes[..length]).begun(), Frame::more("")];
            echo("fragments", &say, &[closed(1007)]);
        }
    }
}
