//! PROTOCOL.md as data: its sections, the rows of its tables, its examples.

use serde_json::Value;

const PROTOCOL: &str = include_str!("../../../PROTOCOL.md");

/// A section by its number, with its heading.
pub fn section(number: usize) -> &'static str {
    let heading = format!("\n## {number}. ");
    let start = PROTOCOL.find(&heading).expect("a section") + 1;
    let rest = &PROTOCOL[start..];
    let end = rest.find("\n## ").map_or(rest.len(), |end| end + 1);
    &rest[..end]
}

/// The rows of all tables, without their heads, as cells.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        match line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) {
            None => is_within = false,
            Some(row) if row.trim_start().starts_with("---") => is_within = true,
            Some(row) if is_within => rows.push(row.split('|').map(str::trim).collect()),
            Some(_) => {}
        }
    }
    rows
}

/// What stands between single backticks.
pub fn codes(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What a section shows, in its order.
#[derive(Debug)]
pub enum Shown<'a> {
    /// Lines that are indented by four.
    Block(Vec<&'a str>),
    /// A JSON object within a sentence or a cell.
    Object(Value),
}

pub fn shown(text: &str) -> Vec<Shown<'_>> {
    assert!(!text.contains("```"), "examples are indented");
    let mut all: Vec<Shown<'_>> = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        match (line.strip_prefix("    "), all.last_mut()) {
            (Some(line), Some(Shown::Block(block))) if is_within => block.push(line),
            (Some(line), _) => all.push(Shown::Block(vec![line])),
            (None, _) => {
                let objects = codes(line)
                    .into_iter()
                    .filter_map(|code| serde_json::from_str(code).ok())
                    .filter(Value::is_object);
                all.extend(objects.map(Shown::Object));
            }
        }
        is_within = line.starts_with("    ");
    }
    all
}

/// Something that one user's client sends or gets.
#[derive(Debug)]
pub struct Step {
    pub user: String,
    pub is_sent: bool,
    pub message: Value,
}

/// A block of `user > {…}` and `user < {…}`; what follows a line further in belongs to it.
pub fn steps(block: &[&str]) -> Vec<Step> {
    let mut texts: Vec<(String, bool, String)> = Vec::new();
    for line in block {
        let mut words = line.splitn(3, ' ');
        let (user, sign) = (words.next().unwrap(), words.next());
        match (user, sign, texts.last_mut()) {
            ("", _, Some((_, _, text))) => text.push_str(line.trim_start()),
            (user, Some(sign @ (">" | "<")), _) if !user.is_empty() => {
                let text = words.next().expect(line).to_owned();
                texts.push((user.to_owned(), sign == ">", text));
            }
            _ => panic!("an example says who sends or gets it: {line}"),
        }
    }
    let step = |(user, is_sent, text): (String, bool, String)| Step {
        user,
        is_sent,
        message: serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
    };
    texts.into_iter().map(step).collect()
}

/// A call of `curl`, and what is answered.
#[derive(Debug)]
pub struct Call {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub body: String,
    pub answer: String,
}

impl Call {
    pub fn read(block: &[&str]) -> Call {
        let line = block[0];
        let rest = line.strip_prefix("curl -s ").expect(line);
        let (method, rest) = match rest.strip_prefix("-X ") {
            Some(rest) => rest.split_once(' ').expect(line),
            None => ("", rest),
        };
        let target = rest.trim_start_matches('"').strip_prefix("$B");
        let target = target.and_then(|target| target.split([' ', '"']).next());
        let body = rest.split_once(" -H \"$J\" -d '").map_or("", |(_, body)| {
            body.strip_suffix('\'').expect("the end of a body")
        });
        let method = match (method, body) {
            ("", "") => "GET",
            ("", _) => "POST",
            (method, _) => method,
        };
        Call {
            method: method.to_owned(),
            target: target.expect(line).to_owned(),
            body: body.to_owned(),
            answer: block[1..].concat(),
        }
    }

    pub fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.target == path
    }
}

/// What a row of the HTTP section promises to take.
#[derive(Debug)]
pub struct Entry {
    pub method: String,
    path: String,
    /// The name of the parameter, where there is one.
    query: Option<String>,
}

impl Entry {
    /// Those of a cell such as `` GET `/a/{id}`, `?user=UID`, also `/b` ``: the path alone, with
    /// each query, and other paths.
    pub fn all(cell: &str) -> Vec<Entry> {
        let method = cell.split(' ').next().unwrap();
        let mut path = "";
        let mut entries = Vec::new();
        for code in codes(cell) {
            let (before, query) = code.split_once('?').unwrap_or((code, ""));
            path = if before.is_empty() { path } else { before };
            let name = query.split('=').next().filter(|name| !name.is_empty());
            entries.push(Entry {
                method: method.to_owned(),
                path: path.to_owned(),
                query: name.map(str::to_owned),
            });
        }
        entries
    }

    pub fn is_shown_by(&self, call: &Call) -> bool {
        let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
        let name = query.split('=').next().filter(|name| !name.is_empty());
        let (ours, theirs) = (self.path.split('/'), path.split('/'));
        call.method == self.method
            && name == self.query.as_deref()
            && ours.clone().count() == theirs.clone().count()
            && ours.zip(theirs).all(|(ours, theirs)| {
                ours == theirs || (ours.starts_with('{') && !theirs.is_empty())
            })
    }
}
