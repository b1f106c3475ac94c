//! Three layers become one: file, environment, flags. A later one wins, key by key.
//!
//! Owns: what each key was set to, and by whom. Each entry is tried alone, so that every
//! mistyped or unknown key is reported, and not only the first.
//! Invariants: the value of a secret never reaches a message.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::keys::{File, LimitKeys, wanted};

const PREFIX: &str = "THRONG_";
const SECRETS: [&str; 5] = [
    "api_key",
    "token_secret",
    "jwt_key",
    "redis",
    "redis_password",
];

/// Who set a key; the later wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    Default,
    File,
    Environment,
    Flags,
}

/// All layers, merged.
pub struct Layers {
    pub file: File,
    /// The configuration file's folder: its relative paths begin here.
    pub folder: PathBuf,
    pub problems: Vec<String>,
    pub warnings: Vec<String>,
    merged: Table,
    origins: HashMap<String, Layer>,
}

/// A key, perhaps in a table, and what it may be taken for: the first that has its type.
struct Entry {
    layer: Layer,
    table: Option<String>,
    key: String,
    candidates: Vec<Value>,
}

impl Layers {
    /// Reads `config` if given, or what THRONG_CONFIG names, and puts everything together.
    pub fn read(
        config: Option<&str>,
        environment: &[(String, String)],
        flags: Vec<(&'static str, String)>,
    ) -> Layers {
        let mut layers = Layers::nothing();
        let named = environment.iter().find(|(name, _)| name == "THRONG_CONFIG");
        if let Some(path) = config.or(named.map(|(_, path)| path.as_str())) {
            layers.read_file(Path::new(path));
        }
        layers.end(environment, flags)
    }

    /// The same for a file's text, as if the file lay where we were started.
    pub fn of_text(text: &str, environment: &[(String, String)]) -> Layers {
        let mut layers = Layers::nothing();
        layers.read_text(text, "throng.toml");
        layers.end(environment, Vec::new())
    }

    fn nothing() -> Layers {
        Layers {
            file: File::default(),
            folder: PathBuf::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            merged: Table::new(),
            origins: HashMap::new(),
        }
    }

    /// Puts what is above the file on top of it.
    fn end(
        mut self,
        environment: &[(String, String)],
        flags: Vec<(&'static str, String)>,
    ) -> Layers {
        for (name, text) in environment {
            self.read_variable(name, text);
        }
        for (key, text) in flags {
            self.add(Entry::from_text(Layer::Flags, None, key, &text));
        }
        // Each entry was tried, so all of them together are good.
        match std::mem::take(&mut self.merged).try_into() {
            Ok(file) => self.file = file,
            Err(error) => self.problems.push(error.message().to_owned()),
        }
        self
    }

    /// Who set `key`.
    pub fn origin(&self, key: &str) -> Layer {
        self.origins.get(key).copied().unwrap_or(Layer::Default)
    }

    /// `key` as whoever set it knows it.
    pub fn name(&self, key: &str) -> String {
        spelled(self.origin(key), key)
    }

    fn read_file(&mut self, path: &Path) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let path = path.display();
                return self
                    .problems
                    .push(format!("cannot read the configuration {path}: {error}"));
            }
        };
        self.folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.read_text(&text, &path.display().to_string());
    }

    fn read_text(&mut self, text: &str, path: &str) {
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                // Only the line's number: the line itself may hold a secret.
                let before = error.span().map_or("", |span| &text[..span.start]);
                let line = before.matches('\n').count() + 1;
                let message = error.message();
                return self
                    .problems
                    .push(format!("{path}, line {line}: not TOML: {message}"));
            }
        };
        for (key, value) in table {
            match value {
                Value::Table(inner) if key == "limits" => {
                    for (inner_key, value) in inner {
                        self.add(Entry::from_file(Some(key.clone()), inner_key, value));
                    }
                }
                value => self.add(Entry::from_file(None, key, value)),
            }
        }
    }

    fn read_variable(&mut self, name: &str, text: &str) {
        let Some(key) = name.strip_prefix(PREFIX) else {
            return;
        };
        let key = key.to_lowercase();
        let (table, key) = match key.split_once("__") {
            Some((table, key)) => (Some(table.to_owned()), key),
            None => (None, key.as_str()),
        };
        if name == "THRONG_CONFIG" {
            return;
        }
        // Other programs (service links of a container host) may set such names as well.
        if type_of(table.as_deref(), key).is_none() {
            let warning = format!("{name} is no setting of this version and does nothing");
            return self.warnings.push(warning);
        }
        self.add(Entry::from_text(Layer::Environment, table, key, text));
    }

    fn add(&mut self, entry: Entry) {
        let Entry {
            layer,
            table,
            key,
            candidates,
        } = entry;
        let full = table
            .iter()
            .chain([&key])
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".");
        let name = spelled(layer, &full);
        let Some(type_name) = type_of(table.as_deref(), &key) else {
            return self.problems.push(unknown(&name, table.as_deref(), &key));
        };
        let shown = match candidates.first() {
            Some(value) if !SECRETS.contains(&key.as_str()) => format!(" = {value}"),
            _ => String::new(),
        };
        let fits = |value: &Value| {
            nest(table.as_deref(), &key, value)
                .try_into::<File>()
                .is_ok()
        };
        let Some(value) = candidates.into_iter().find(fits) else {
            let wanted = wanted(type_name);
            return self.problems.push(format!("{name}{shown} is not {wanted}"));
        };
        match &table {
            Some(table) => {
                let inner = self
                    .merged
                    .entry(table.clone())
                    .or_insert(Value::Table(Table::new()));
                if let Value::Table(inner) = inner {
                    inner.insert(key, value);
                }
            }
            None => {
                self.merged.insert(key, value);
            }
        }
        self.origins.insert(full, layer);
    }
}

impl Entry {
    fn from_file(table: Option<String>, key: String, value: Value) -> Entry {
        Entry {
            layer: Layer::File,
            table,
            key,
            candidates: vec![value],
        }
    }

    /// Text is a text, or else what it would be in a file, or else a list with commas.
    fn from_text(layer: Layer, table: Option<String>, key: &str, text: &str) -> Entry {
        let mut candidates = vec![Value::String(text.to_owned())];
        if let Ok(mut parsed) = format!("v = {text}").parse::<Table>() {
            candidates.extend(parsed.remove("v"));
        }
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        candidates.push(Value::Array(
            items.map(|item| Value::String(item.to_owned())).collect(),
        ));
        Entry {
            layer,
            table,
            key: key.to_owned(),
            candidates,
        }
    }
}

/// The type of a key, if there is such a key.
fn type_of(table: Option<&str>, key: &str) -> Option<&'static str> {
    let keys = match table {
        None => File::KEYS,
        Some("limits") => LimitKeys::KEYS,
        Some(_) => return None,
    };
    keys.iter()
        .find(|(name, _)| *name == key)
        .map(|(_, type_name)| *type_name)
}

fn unknown(name: &str, table: Option<&str>, key: &str) -> String {
    let hint = match table {
        Some(_) if type_of(None, key).is_some() => "it belongs above the first [table]",
        None if type_of(Some("limits"), key).is_some() => "it belongs into the table [limits]",
        _ => "throng.toml lists all keys",
    };
    format!("unknown key {name}: it would have no effect; {hint}")
}

fn nest(table: Option<&str>, key: &str, value: &Value) -> Table {
    let inner = Table::from_iter([(key.to_owned(), value.clone())]);
    match table {
        Some(table) => Table::from_iter([(table.to_owned(), Value::Table(inner))]),
        None => inner,
    }
}

fn spelled(layer: Layer, key: &str) -> String {
    match layer {
        Layer::Default | Layer::File => key.to_owned(),
        Layer::Environment => format!("{PREFIX}{}", key.to_uppercase().replace('.', "__")),
        Layer::Flags => format!("--{}", key.replace('_', "-")),
    }
}
