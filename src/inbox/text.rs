//! Rows as lines of text (JSON), and back: nothing is lost on the way.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::RowName;
use super::records::{Entry, Group, GroupEntry, Head, Held, Pair, Scheduled, Seen, decode, encode};
use super::rows::Broken;

#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(flatten)]
    name: &'a RowName,
    record: &'a T,
}

/// One row, without a line's end.
pub fn to_line(key: &[u8], value: &[u8]) -> Result<String, Broken> {
    let name = name_of(key)?;
    match &name {
        RowName::Head { .. } => line::<Head>(&name, value),
        RowName::Entry { .. } => line::<Entry>(&name, value),
        RowName::Seen { .. } => line::<Seen>(&name, value),
        RowName::Pair { .. } => line::<Pair>(&name, value),
        RowName::Held { .. } => line::<Held>(&name, value),
        RowName::Group { .. } => line::<Group>(&name, value),
        RowName::GroupLog { .. } => line::<GroupEntry>(&name, value),
        RowName::Delay { .. } => line::<Scheduled>(&name, value),
        RowName::DelayId { .. } => line::<u64>(&name, value),
        RowName::Member { .. } | RowName::Work { .. } => {
            nothing(value)?;
            write(&name, &())
        }
    }
}

/// The key and the value of a row. The error says what is wrong with the line.
pub fn from_line(line: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut fields: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| error.to_string())?;
    let record = fields.remove("record").ok_or("it has no record")?;
    let name: RowName =
        serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
    let value = match &name {
        RowName::Head { .. } => bytes::<Head>(record)?,
        RowName::Entry { .. } => bytes::<Entry>(record)?,
        RowName::Seen { .. } => bytes::<Seen>(record)?,
        RowName::Pair { .. } => bytes::<Pair>(record)?,
        RowName::Held { .. } => bytes::<Held>(record)?,
        RowName::Group { .. } => bytes::<Group>(record)?,
        RowName::GroupLog { .. } => bytes::<GroupEntry>(record)?,
        RowName::Delay { .. } => bytes::<Scheduled>(record)?,
        RowName::DelayId { .. } => bytes::<u64>(record)?,
        RowName::Member { .. } | RowName::Work { .. } if record.is_null() => Vec::new(),
        RowName::Member { .. } | RowName::Work { .. } => {
            return Err("the record of such a row is null".to_owned());
        }
    };
    let key = name.key();
    // An id with a zero byte would be another name when it is read.
    if RowName::parse(&key).as_ref() != Some(&name) {
        return Err("an id holds a zero byte".to_owned());
    }
    Ok((key, value))
}

pub(super) fn name_of(key: &[u8]) -> Result<RowName, Broken> {
    RowName::parse(key)
        .ok_or_else(|| Broken::row("name", format!("no row is called {}", key.escape_ascii())))
}

/// A record that is written as it was read.
pub(super) fn exact<T: Serialize + DeserializeOwned>(value: &[u8]) -> Result<T, Broken> {
    let record: T = decode("record", value)?;
    if encode(&record) != value {
        return Err(Broken::row("record", "there is more than that in the row"));
    }
    Ok(record)
}

pub(super) fn nothing(value: &[u8]) -> Result<(), Broken> {
    if value.is_empty() {
        return Ok(());
    }
    Err(Broken::row("record", "the row should be empty"))
}

fn line<T: Serialize + DeserializeOwned>(name: &RowName, value: &[u8]) -> Result<String, Broken> {
    write(name, &exact::<T>(value)?)
}

fn write<T: Serialize>(name: &RowName, record: &T) -> Result<String, Broken> {
    serde_json::to_string(&Line { name, record }).map_err(|error| Broken::row("record", error))
}

fn bytes<T: Serialize + DeserializeOwned>(record: Value) -> Result<Vec<u8>, String> {
    let record: T = serde_json::from_value(record).map_err(|error| error.to_string())?;
    Ok(encode(&record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::records::{Author, Device, EntryBody, Origin, Text};
    use crate::protocol::envelope::MessageId;

    const ID: MessageId = MessageId([7; 16]);

    fn entry(body: EntryBody) -> Entry {
        Entry {
            id: ID,
            at_ms: u64::MAX,
            from: "system".to_owned(),
            request_id: None,
            is_http: true,
            body,
        }
    }

    fn bodies() -> [EntryBody; 4] {
        let text = Text {
            message: "\"a\\u0000b \u{fffd}é\"".to_owned(),
            file_type: "0".to_owned(),
        };
        let from = Author {
            name: "Alice \u{7f}".to_owned(),
            is_online: true,
        };
        [
            EntryBody::Raw {
                msg: "{\"n\": 1.000,  \"n\":2}".to_owned(),
            },
            EntryBody::Chat {
                from: from.clone(),
                text: text.clone(),
            },
            EntryBody::GroupChat {
                from,
                group: "team".to_owned(),
                text,
            },
            EntryBody::Delivered {
                msgid: Some("m\n1".to_owned()),
                message: ID,
                to: "bob".to_owned(),
            },
        ]
    }

    /// One row of each kind, and all forms of an entry.
    fn rows() -> Vec<(RowName, Vec<u8>)> {
        let (user, sender, group) = ("bob".to_owned(), "alice".to_owned(), "team".to_owned());
        let mut head = Head::new(0xdead_beef);
        head.devices.push(Device {
            name: "phone".to_owned(),
            low: 3,
            above: vec![5, 6],
            offered: 9,
            resync: true,
            told: Some(8),
        });
        head.forgotten.push("old".to_owned());
        let held = Held {
            seq: 4,
            sender: sender.clone(),
            msgid: None,
            owes_notice: true,
        };
        let logged = GroupEntry {
            entry: entry(bodies()[2].clone()),
            sender: sender.clone(),
            origin: Some(Origin {
                device: "phone".to_owned(),
                connection: u64::MAX - 1,
            }),
        };
        let scheduled = Scheduled {
            to: user.clone(),
            sender: sender.clone(),
            msgid: Some("m1".to_owned()),
            due_ms: 1_700_000_000_000,
            entry: Some(entry(bodies()[0].clone())),
        };
        let mut rows = vec![
            (RowName::Head { user: user.clone() }, encode(&head)),
            (
                RowName::Seen {
                    user: user.clone(),
                    sender: sender.clone(),
                    msgid: "m\u{1}".to_owned(),
                },
                encode(&Seen {
                    id: ID,
                    hash: [9; 16],
                }),
            ),
            (
                RowName::Pair {
                    user: user.clone(),
                    sender,
                },
                encode(&Pair {
                    count: 7,
                    oldest: Some(ID),
                }),
            ),
            (
                RowName::Held {
                    user: user.clone(),
                    message_id: ID,
                },
                encode(&held),
            ),
            (
                RowName::Group {
                    group: group.clone(),
                },
                encode(&Group {
                    members: vec![user.clone()],
                    seq: 2,
                }),
            ),
            (
                RowName::Member {
                    user: user.clone(),
                    group: group.clone(),
                },
                Vec::new(),
            ),
            (
                RowName::GroupLog {
                    group: group.clone(),
                    number: 2,
                },
                encode(&logged),
            ),
            (RowName::Work { group, number: 2 }, Vec::new()),
            (
                RowName::Delay {
                    due_ms: 5,
                    message_id: ID,
                },
                encode(&scheduled),
            ),
            (RowName::DelayId { message_id: ID }, encode(&5_u64)),
        ];
        for (seq, body) in (1..).zip(bodies()) {
            let user = user.clone();
            rows.push((RowName::Entry { user, seq }, encode(&entry(body))));
        }
        rows
    }

    #[test]
    fn every_row_becomes_a_line_and_is_the_same_row_again() {
        for (name, value) in rows() {
            let line = to_line(&name.key(), &value).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(from_line(&line).unwrap(), (name.key(), value), "{line}");
        }
    }

    #[test]
    fn a_line_reads_as_the_records_are_written_down() {
        let (name, value) = &rows()[3];
        assert_eq!(
            to_line(&name.key(), value).unwrap(),
            "{\"kind\":\"held\",\"user\":\"bob\",\"messageId\":\"07070707070707070707070707070707\",\
             \"record\":{\"seq\":4,\"sender\":\"alice\",\"msgid\":null,\"owesNotice\":true}}"
        );
    }

    #[test]
    fn a_row_that_is_not_understood_is_no_line() {
        let (name, value) = &rows()[0];
        let longer = [&value[..], b"x"].concat();
        let other = [&[99], &value[1..]].concat();
        for value in [&longer[..], &other, &value[..9], b""] {
            assert!(to_line(&name.key(), value).is_err(), "{value:?}");
        }
        assert!(to_line(b"?what", value).is_err());
        assert!(to_line(b"mbob\0team\0", b"x").is_err());
    }

    #[test]
    fn a_line_that_is_not_understood_is_no_row() {
        let good =
            r#"{"kind":"pair","user":"bob","sender":"alice","record":{"count":3,"oldest":null}}"#;
        assert!(from_line(good).is_ok());
        for bad in [
            "",
            "[]",
            r#"{"kind":"pair","user":"bob","sender":"alice"}"#,
            r#"{"kind":"pair","user":"bob","record":{"count":3}}"#,
            r#"{"kind":"pear","user":"bob","sender":"alice","record":{"count":3}}"#,
            r#"{"kind":"pair","user":"bob","sender":"alice","record":{"count":-3}}"#,
            r#"{"kind":"pair","user":"bob","sender":"alice","more":1,"record":{"count":3}}"#,
            r#"{"kind":"pair","user":"bob","sender":"al\u0000ice","record":{"count":3}}"#,
            r#"{"kind":"delayId","messageId":"07","record":3}"#,
            r#"{"kind":"work","group":"team","number":1,"record":3}"#,
            r#"{"kind":"group","group":"team","record":{"members":[],"seq":1,"owner":"x"}}"#,
        ] {
            assert!(from_line(bad).is_err(), "{bad}");
        }
    }
}
