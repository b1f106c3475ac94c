//! Ways in and out: listen queues, connection tracking, ports, a proxy in front.

use super::Case;
use super::finding::{Finding, Mend, Status};

impl Case<'_> {
    pub fn network(&self) -> Vec<Finding> {
        let all = [self.somaxconn(), self.syn_backlog(), self.conntrack()];
        let rest = [self.ports(), self.reserved_ports(), Some(self.proxy())];
        all.into_iter().chain(rest).flatten().collect()
    }

    fn somaxconn(&self) -> Option<Finding> {
        let now = self.host.somaxconn?;
        let needed = u64::from(self.config.backlog);
        let finding = Finding::new("net.core.somaxconn", now, format!("{needed} (backlog)"))
            .because(
                "The kernel cuts the listen queue of each reactor to this. Clients that come \
                back all at once and find it full try again after seconds.",
            )
            .unless(
                now >= needed,
                Status::Warn,
                [Mend::sysctl("net.core.somaxconn", needed)],
            );
        Some(finding)
    }

    fn syn_backlog(&self) -> Option<Finding> {
        let now = self.host.syn_backlog?;
        let has_cookies = self.host.syn_cookies? > 0;
        let needed = u64::from(self.config.backlog);
        let cell = if has_cookies {
            "any: SYN cookies are on".to_owned()
        } else {
            needed.to_string()
        };
        let finding = Finding::new("net.ipv4.tcp_max_syn_backlog", now, cell)
            .because("With SYN cookies off, newcomers beyond it are dropped in a storm.")
            .unless(
                has_cookies || now >= needed,
                Status::Warn,
                [
                    Mend::sysctl("net.ipv4.tcp_syncookies", 1),
                    Mend::sysctl("net.ipv4.tcp_max_syn_backlog", needed),
                ],
            );
        Some(finding)
    }

    fn conntrack(&self) -> Option<Finding> {
        let (count, max) = self.host.tracked?;
        let needed = count + self.connections + self.connections / 5;
        let is_good = count == 0 || self.args.untracked || max >= needed;
        let cell = match (count, self.args.untracked) {
            (0, _) => "any: nothing is tracked".to_owned(),
            (_, true) => "any: the port is untracked".to_owned(),
            _ => needed.to_string(),
        };
        let key = "net.netfilter.nf_conntrack_max";
        let finding = Finding::new(key, format!("{max}, {count} in use"), cell)
            .because(
                "A firewall remembers each connection; a full table drops packets. Better than a \
                larger table is not to track the node's port: sysctl/README.md has the rules.",
            )
            .unless(
                is_good,
                Status::Fail,
                [
                    Mend::sysctl(key, needed.next_power_of_two()),
                    Mend::once("notrack rules by nft, then: throng doctor --untracked"),
                ],
            );
        Some(finding)
    }

    fn ports(&self) -> Option<Finding> {
        let (low, high) = self.host.port_range?;
        let ports = u64::from(high.saturating_sub(low)) + 1;
        // One address that connects to one port of one node has no more.
        let addresses = self.connections.div_ceil(ports);
        let cell = if self.args.with_clients {
            format!("{addresses} source addresses")
        } else if self.args.proxy_idle_secs.is_some() {
            format!("{addresses} addresses at the proxy")
        } else {
            "any: clients need ports".to_owned()
        };
        let now = format!("{low} to {high}: {ports}");
        let finding = Finding::new("net.ipv4.ip_local_port_range", now, cell)
            .because("An address has so many connections to one port of another, and no more.");
        Some(finding)
    }

    fn reserved_ports(&self) -> Option<Finding> {
        let (low, high) = self.host.port_range?;
        let own = [self.config.listen.port(), self.config.api.port()];
        let within = |port: &u16| (low..=high).contains(port);
        let in_danger: Vec<u16> = own.into_iter().filter(within).collect();
        let reserved = &self.host.reserved_ports;
        let is_reserved = |port: &u16| {
            let mut ranges = reserved.iter();
            ranges.any(|(low, high)| (low..=high).contains(&port))
        };
        let cell = match in_danger.as_slice() {
            [] => "none".to_owned(),
            ports => joined(ports.iter().map(u16::to_string)),
        };
        let missing = in_danger.iter().filter(|port| !is_reserved(port));
        let missing: Vec<String> = missing.map(u16::to_string).collect();
        // The setting replaces the list: what is there already stays.
        let kept = reserved.iter().map(|(low, high)| {
            if low == high {
                low.to_string()
            } else {
                format!("{low}-{high}")
            }
        });
        let now = joined(kept.clone());
        let key = "net.ipv4.ip_local_reserved_ports";
        let mend = Mend::sysctl(key, joined(kept.chain(missing.iter().cloned())));
        let now = if now.is_empty() { "none" } else { &now };
        let finding = Finding::new(key, now, cell)
            .because(
                "A port within the range may be given to an outgoing connection, and the node \
                that comes back finds it taken.",
            )
            .unless(missing.is_empty(), Status::Warn, [mend]);
        Some(finding)
    }

    fn proxy(&self) -> Finding {
        let ping = self.config.limits.ping_secs;
        // Each connection pings at a time of its own, up to a quarter later.
        let latest = ping.saturating_add(ping / 4);
        let now = match ping {
            0 => "no pings".to_owned(),
            _ => format!("a ping within {latest} s of silence"),
        };
        let Some(idle) = self.args.proxy_idle_secs else {
            return Finding::new("ping_secs", now, "below a proxy's idle time")
                .because("Ask with --proxy-idle-secs where a proxy or balancer stands in front.");
        };
        let good = (idle / 4 * 3).max(1);
        let mend = Mend::key(self.config_file(), "ping_secs", good);
        Finding::new("ping_secs", now, format!("within {idle} s: the proxy's"))
            .because(
                "A proxy drops a connection that is silent for its idle time (nginx: \
                proxy_read_timeout), so every quiet client would connect anew again and again.",
            )
            .unless(ping > 0 && latest < idle, Status::Warn, [mend])
    }
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(",")
}
