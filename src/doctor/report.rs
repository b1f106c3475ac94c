//! What was found, as text for people or as JSON for programs.

use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};

use super::finding::{Finding, Status};

/// Lines are no longer than this, if words allow it.
const COLUMNS: usize = 100;
const NAME_COLUMNS: usize = 32;
const NOW_COLUMNS: usize = 32;
const INDENT: &str = "              ";

pub struct Report {
    pub connections: u64,
    pub reactors: usize,
    /// Settings of the host are out of reach from here.
    pub container: bool,
    pub findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Json<'a> {
    connections: u64,
    reactors: usize,
    container: bool,
    ready: bool,
    findings: &'a [Finding],
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Report {
            connections,
            reactors,
            container,
            ref findings,
        } = *self;
        #[rustfmt::skip]
        let json = Json { connections, reactors, container, ready: self.is_ready(), findings };
        json.serialize(serializer)
    }
}

impl Report {
    /// Nothing stands in the way of the wanted number.
    pub fn is_ready(&self) -> bool {
        self.count(Status::Fail) == 0
    }

    fn count(&self, status: Status) -> usize {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.status == status).count()
    }
}

/// What is good is a row of a table; what is not is explained below.
impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.reactors == 1 { "" } else { "s" };
        let (connections, reactors) = (self.connections, self.reactors);
        writeln!(f, "{connections} connections, {reactors} reactor{plural}\n")?;
        row(f, "", "", "now", "needed")?;
        for finding in &self.findings {
            let status = match finding.status {
                Status::Ok => "ok",
                Status::Warn => "warn",
                Status::Fail => "FAIL",
            };
            row(f, status, finding.name, &finding.now, &finding.needed)?;
        }
        let troubles = self.findings.iter();
        for finding in troubles.filter(|finding| finding.status != Status::Ok) {
            explain(f, finding)?;
        }
        writeln!(f)?;
        self.verdict(f)
    }
}

impl Report {
    fn verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let connections = self.connections;
        let (fails, warnings) = (self.count(Status::Fail), self.count(Status::Warn));
        if self.container && fails + warnings > 0 {
            writeln!(
                f,
                "This is a container: net.* is set by docker run --sysctl, fs.* and kernel.* on its host."
            )?;
        }
        match fails {
            0 => write!(f, "This host is ready for {connections} connections.")?,
            1 => write!(
                f,
                "1 thing to change before this host holds {connections} connections."
            )?,
            _ => write!(
                f,
                "{fails} things to change before this host holds {connections} connections."
            )?,
        }
        match warnings {
            0 => writeln!(f),
            1 => writeln!(f, " 1 warning."),
            _ => writeln!(f, " {warnings} warnings."),
        }
    }
}

fn row(f: &mut Formatter<'_>, status: &str, name: &str, now: &str, needed: &str) -> fmt::Result {
    let line = format!("{status:4}  {name:NAME_COLUMNS$}  {now:NOW_COLUMNS$}  {needed}");
    writeln!(f, "{}", line.trim_end())
}

fn explain(f: &mut Formatter<'_>, finding: &Finding) -> fmt::Result {
    writeln!(f, "\n{}", finding.name)?;
    paragraph(f, "why", finding.why)?;
    let mut label = "mend";
    for mend in &finding.mend {
        labelled(f, label, &mend.command)?;
        if let Some(lasts) = &mend.lasts {
            labelled(f, "to last", &format!("in {}:", lasts.file))?;
            for line in lasts.lines.lines() {
                writeln!(f, "{INDENT}  {line}")?;
            }
        }
        label = "or";
    }
    Ok(())
}

fn labelled(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let width = INDENT.len() - 6;
    writeln!(f, "      {label:width$}{text}")
}

/// Words, wrapped.
fn paragraph(f: &mut Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let mut label = label;
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && INDENT.len() + line.len() + 1 + word.len() > COLUMNS {
            labelled(f, label, &line)?;
            label = "";
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    labelled(f, label, &line)
}
