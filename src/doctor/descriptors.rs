//! Descriptors and open files: of a reactor's table, of the process, of the host.

use super::Case;
use super::finding::{Finding, Mend, Status};
use crate::config::{DESCRIPTORS_KEPT, Room};
use crate::parts::key::Key;

/// Open files that the node and its host may come to need beside connections.
const FILES_SPARED: u64 = 1000;

impl Case<'_> {
    pub fn descriptors(&self) -> Vec<Finding> {
        let cap = self.config.max_connections.map(|cap| self.cap(cap));
        let all = [cap, Some(self.nofile()), self.nr_open()];
        let rest = [Some(self.file_max()), self.watches()];
        all.into_iter().chain(rest).flatten().collect()
    }

    fn cap(&self, cap: usize) -> Finding {
        let file = self.config_file();
        let mend = Mend::key(file, "max_connections", self.connections);
        Finding::new("max_connections", cap, self.connections)
            .because("The node turns away whoever comes beyond it.")
            .unless(cap as u64 >= self.connections, Status::Fail, [mend])
    }

    fn nofile(&self) -> Finding {
        let Room {
            reactors, nofile, ..
        } = self.room;
        let needed = self.table_needed();
        let soft = self.host.nofile.0;
        // The node raises the soft limit at its start.
        let soft = if soft < nofile {
            format!(" (soft {soft})")
        } else {
            String::new()
        };
        let tables = match self.host.answers.way_to_private_tables {
            Some(way) => format!(" x {reactors} ({way})"),
            None => " for all reactors".to_owned(),
        };
        // A cap that does not fit is refused at the start, so it is judged as well.
        let fits = self.demand() <= self.room.fits() as u64;
        let has_chosen = self.config.max_connections.is_some();
        let (status, why) = if fits && has_chosen {
            let why = "All fit, but the kernel spreads newcomers by chance: a reactor that gets \
                more than its share is full before the others, and lets its clients wait.";
            (Status::Warn, why)
        } else {
            let why = "A connection is a descriptor. The hard limit counts for each table, a \
                reactor has a table of its own where the host allows it, and keeps 256 of it.";
            (Status::Fail, why)
        };
        Finding::new(
            "nofile",
            format!("{}{soft}{tables}", number(nofile)),
            format!("{needed} in each"),
        )
        .because(why)
        .unless(self.has_room(), status, self.more_descriptors(needed))
    }

    /// Connections that the node must be able to hold.
    fn demand(&self) -> u64 {
        let cap = self.config.max_connections.unwrap_or(0) as u64;
        self.connections.max(cap)
    }

    fn has_room(&self) -> bool {
        self.room.usual() as u64 >= self.demand()
    }

    /// Descriptors in each table, so that the demand is what a node takes by itself.
    fn table_needed(&self) -> u64 {
        let fits = self.demand().div_ceil(19) * 20;
        fits.div_ceil(self.room.tables() as u64) + DESCRIPTORS_KEPT
    }

    /// The ways to more descriptors than there are.
    fn more_descriptors(&self, needed: u64) -> Vec<Mend> {
        let mut ways = Vec::new();
        if self.host.may_raise_nofile && needed <= Key::SLOTS_MAX as u64 + DESCRIPTORS_KEPT {
            let value = self.nofile_wanted(needed);
            // It lasts for the shell and what it starts.
            let command = format!("prlimit --pid $$ --nofile={value}:{value}");
            ways.push(Mend::service(command, "LimitNOFILE", value));
        }
        if let Some(reactors) = self.reactors_needed() {
            ways.push(Mend::key(self.config_file(), "reactors", reactors));
        }
        if self.host.is_container {
            let value = self.nofile_wanted(needed);
            let command = format!("docker run --ulimit nofile={value}:{value} ...");
            ways.push(Mend::once(command));
        }
        if ways.is_empty() {
            ways.push(Mend::once(
                "ask whoever starts this process for a higher hard limit, or use several nodes",
            ));
        }
        ways
    }

    /// A round number, and no higher than is allowed if that is enough.
    fn nofile_wanted(&self, needed: u64) -> u64 {
        let round = needed.next_power_of_two();
        match self.host.nr_open {
            Some(allowed) if allowed >= needed => round.min(allowed),
            _ => round,
        }
    }

    /// Reactors that would do with the limit as it is.
    fn reactors_needed(&self) -> Option<usize> {
        let holds = |reactors: &usize| {
            let room = Room {
                reactors: *reactors,
                ..self.room
            };
            room.usual() as u64 >= self.demand()
        };
        let more = self.room.reactors + 1..=Key::REACTORS_MAX;
        self.room
            .has_private_tables
            .then(|| more.into_iter().find(holds))?
    }

    fn nr_open(&self) -> Option<Finding> {
        let now = self.host.nr_open?;
        let needed = self.table_needed();
        let is_good = now >= needed || self.has_room();
        let mut mends = vec![Mend::sysctl("fs.nr_open", self.nofile_wanted(needed))];
        let reactors = self.reactors_needed();
        mends.extend(reactors.map(|count| Mend::key(self.config_file(), "reactors", count)));
        let finding = Finding::new("fs.nr_open", now, format!("{needed} to raise nofile"))
            .because("Nobody may have a higher limit of descriptors than this.")
            .unless(is_good, Status::Fail, mends);
        Some(finding)
    }

    fn file_max(&self) -> Finding {
        let open = self.host.files_open;
        let needed = self.ends() + open + FILES_SPARED;
        let now = self.host.file_max;
        let mend = Mend::sysctl("fs.file-max", needed.next_power_of_two());
        Finding::new("fs.file-max", format!("{now}, {open} open"), needed)
            .because(
                "Open files of the whole host. Beyond it nobody but root opens anything \
                (ENFILE). In a container it is the host's.",
            )
            .unless(now >= needed, Status::Fail, [mend])
    }

    fn watches(&self) -> Option<Finding> {
        let now = self.host.epoll_watches_max?;
        let needed = self.ends() + FILES_SPARED;
        let mend = Mend::sysctl("fs.epoll.max_user_watches", needed.next_power_of_two());
        let finding = Finding::new("fs.epoll.max_user_watches", now, needed)
            .because("Each connection is watched by its reactor; all of a user's watches count.")
            .unless(now >= needed, Status::Fail, [mend]);
        Some(finding)
    }
}

fn number(limit: u64) -> String {
    match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    }
}
