//! The shape of the source, proven on its text: floors, dead files, where `unsafe` may stand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by floor, lowest first. Those of one floor are siblings: they do not see each other.
const FLOORS: [&[&str]; 12] = [
    &["parts", "sys"],
    &["protocol"],
    &["inbox"],
    &["session", "hub"],
    &["command", "stats"],
    &["mailbox"],
    &["reactor", "control", "store"],
    &["cluster"],
    &["config"],
    &["log", "cgroup"],
    &["server", "doctor"],
    &["main"],
];
/// From this floor on there may be sockets, threads and clocks.
const MAILBOX: usize = 5;
/// Who may use `sys`, whatever the floor.
const USERS_OF_SYS: [&str; 5] = ["mailbox", "reactor", "server", "config", "doctor"];
/// What the pure core knows nothing of.
const IMPURE: [&str; 8] = [
    "mio::",
    "std::net",
    "std::thread",
    "std::fs",
    "Instant",
    "SystemTime",
    "tracing::",
    "println!",
];
/// An address is text until somebody connects to it.
const PURE: &str = "std::net::IpAddr";
const LINES_MAX: usize = 600;

struct Source {
    path: PathBuf,
    /// The top-level module that it belongs to.
    module: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let bare = |line| match str::find(line, "//") {
            // Not in the middle of a URL.
            Some(at) if !line[..at].ends_with(':') => &line[..at],
            _ => line,
        };
        self.text
            .lines()
            .map(bare)
            .enumerate()
            .map(|(at, line)| (at + 1, line))
    }

    fn floor(&self) -> Option<usize> {
        floor_of(&self.module)
    }
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_under(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_under(&root(), &mut paths);
    assert!(paths.len() > 30, "the source is not where it was");
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let first = path.strip_prefix(root()).unwrap().iter().next().unwrap();
        let module = first.to_str().unwrap().trim_end_matches(".rs").to_owned();
        Source { path, module, text }
    };
    paths.into_iter().map(read).collect()
}

/// The modules of this crate that a line names.
fn named(line: &str) -> Vec<&str> {
    let paths = ["crate::", "throng::"].map(|root| line.split(root).skip(1));
    paths
        .into_iter()
        .flatten()
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            &rest[..end.unwrap_or(rest.len())]
        })
        .collect()
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn a_file_imports_lower_floors_only() {
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let Some(floor) = source.floor() else {
            problems.push(format!("{} stands on no floor", source.module));
            continue;
        };
        for (line, code) in source.code() {
            let at = format!("{}:{line}", source.path.display());
            for name in named(code) {
                let is_allowed = match floor_of(name) {
                    _ if name == source.module => true,
                    _ if name == "sys" => USERS_OF_SYS.contains(&source.module.as_str()),
                    Some(below) => below < floor,
                    None => false,
                };
                if !is_allowed {
                    problems.push(format!("{at}: {} imports {name:?}", source.module));
                }
            }
            if code.contains("super::super") {
                problems.push(format!(
                    "{at}: a path that climbs two floors hides where to"
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn the_pure_core_knows_no_socket_thread_clock_or_log() {
    let mut problems = Vec::new();
    let core = |source: &&Source| source.floor().is_some_and(|floor| floor < MAILBOX);
    for source in sources().iter().filter(core) {
        if source.module == "sys" {
            continue;
        }
        for (line, code) in source.code() {
            let code = code.replace(PURE, "");
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                problems.push(format!("{}:{line}: {word}", source.path.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn unsafe_lives_in_sys_alone_and_says_why_it_is_sound() {
    let mut problems = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (line, code) in source.code() {
            let is_unsafe = code.contains("unsafe {") || code.contains("unsafe fn");
            let has_reason = lines[..line]
                .iter()
                .rev()
                .take(8)
                .any(|near| near.contains("// SAFETY:"));
            if is_unsafe && !(source.module == "sys" && has_reason) {
                problems.push(format!("{}:{line}: {code}", source.path.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn no_file_is_longer_than_a_reader_bears() {
    let lines = |source: &Source| source.text.lines().count();
    let long = |source: &&Source| lines(source) > LINES_MAX;
    let all = sources();
    let problems: Vec<String> = all
        .iter()
        .filter(long)
        .map(|source| format!("{} has {} lines", source.path.display(), lines(source)))
        .collect();
    report(&problems);
}

#[test]
fn every_file_says_what_it_is_and_belongs_to_the_crate() {
    let mut reached = BTreeSet::new();
    for top in ["lib.rs", "main.rs"] {
        reach(root().join(top), &mut reached);
    }
    let mut problems = Vec::new();
    for source in sources() {
        if !reached.contains(&source.path) {
            problems.push(format!("{} is in no module", source.path.display()));
        }
        if !source.text.starts_with("//! ") {
            problems.push(format!("{} does not say what it is", source.path.display()));
        }
    }
    report(&problems);
}

/// Follows `mod name;` from a file to the files below it.
fn reach(file: PathBuf, reached: &mut BTreeSet<PathBuf>) {
    let text = fs::read_to_string(&file).unwrap();
    let is_top = ["lib.rs", "main.rs", "mod.rs"]
        .iter()
        .any(|name| file.ends_with(name));
    let dir = if is_top {
        file.parent().unwrap().to_owned()
    } else {
        file.with_extension("")
    };
    reached.insert(file);
    let declared = text.lines().filter_map(|line| {
        let (before, name) = line.trim().strip_suffix(';')?.split_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then_some(name)
    });
    for name in declared {
        let candidates = [
            dir.join(format!("{name}.rs")),
            dir.join(name).join("mod.rs"),
        ];
        let found = candidates.into_iter().find(|path| path.exists());
        reach(
            found.unwrap_or_else(|| panic!("mod {name} has no file")),
            reached,
        );
    }
}

/// The file of a module of the sources or the tests, as text; a path of none is no module.
fn module(path: &[&str]) -> Option<String> {
    let [inner @ .., last] = path else {
        return None;
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = ["tests", "src"].iter().find_map(|root| {
        let file = path.iter().fold(top.join(root), |dir, name| dir.join(name));
        let read = |file: PathBuf| fs::read_to_string(file).ok();
        read(file.with_extension("rs")).or_else(|| read(file.join("mod.rs")))
    });
    // A module of tests may stand in the file that it tests.
    text.or_else(|| module(inner).filter(|text| text.contains(&format!("mod {last} {{"))))
}

fn has_test(path: &[&str]) -> bool {
    let Some((name, parent)) = path.split_last() else {
        return false;
    };
    module(parent).is_some_and(|text| text.contains(&format!("fn {name}()")))
}

#[test]
fn whatever_is_said_to_be_proven_is_proven_by_a_test_that_there_is() {
    let map = include_str!("README.md");
    let mut problems = Vec::new();
    let mut is_within = false;
    let mut count = 0;
    for line in map.lines() {
        is_within = line.starts_with('|') && (is_within || line.ends_with("| proven by |"));
        let Some((promise, proofs)) = line.trim_matches('|').rsplit_once('|') else {
            continue;
        };
        if !is_within || ["---", "proven by"].contains(&proofs.trim()) {
            continue;
        }
        // Names without a path are of the module that was named last.
        let mut last: Vec<&str> = Vec::new();
        for proof in proofs.split('`').skip(1).step_by(2) {
            if proof.starts_with("make ") {
                continue;
            }
            let path = proof.trim_end_matches("::").trim_end_matches(".rs");
            let path: Vec<&str> = path.split("::").collect();
            if module(&path).is_some() {
                last = path;
            } else if has_test(&path) {
                last = path[..path.len() - 1].to_vec();
            } else if !has_test(&[&last[..], &path[..]].concat()) {
                problems.push(format!("{proof}: {}", promise.trim()));
            }
            count += 1;
        }
        if last.is_empty() {
            problems.push(format!("nothing proves: {}", promise.trim()));
        }
    }
    assert!(count > 100, "the tables are not where they were");
    report(&problems);
}

#[test]
fn every_path_of_the_api_stands_in_the_protocol() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let protocol = fs::read_to_string(root.join("PROTOCOL.md")).unwrap();
    let router = fs::read_to_string(root.join("src/control/mod.rs")).unwrap();
    let start = router.find("Router::new()").expect("the router");
    let routes = router[start..].split(".fallback(").next().unwrap();
    let strings = routes.split('"').skip(1).step_by(2);
    let paths: Vec<&str> = strings.filter(|text| text.starts_with('/')).collect();
    assert!(paths.len() > 15, "{paths:?}");
    let is_said = |path: &str| {
        let mut rows = protocol.lines().filter(|line| line.starts_with("| "));
        rows.any(|row| row.contains(&format!("`{path}`")))
    };
    let problems: Vec<String> = paths
        .iter()
        .filter(|path| !is_said(path))
        .map(|path| format!("{path} has no row"))
        .collect();
    report(&problems);
}

#[test]
fn the_rights_in_redis_are_documented_as_they_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rights = fs::read_to_string(root.join("src/store/redis/throng.acl")).unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    assert!(readme.contains(rights.trim()), "{rights}");
}
