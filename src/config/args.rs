//! The command line: what other programs and people type.
//!
//! Every value is taken as text and proven together with the file and the environment, so that
//! one run names all problems.

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};

use super::room::CONNECTIONS_MAX;

/// A WebSocket gateway.
///
/// Every option is also a key of the configuration file (throng.toml is its manual) and an
/// environment variable THRONG_ + upper case. Flags win over the environment, and that over the
/// file. Secrets are never arguments: THRONG_TOKEN_SECRET and THRONG_API_KEY, or files.
#[derive(Parser, Debug)]
#[command(name = "throng", version, args_conflicts_with_subcommands = true)]
#[command(args_override_self = true)]
pub struct Cli {
    #[command(flatten)]
    pub serve: ServeArgs,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs the node; `throng` alone does the same
    Serve(Box<ServeArgs>),
    /// Prints one token and nothing else
    Token(TokenArgs),
    /// Checks, exports or imports what a node keeps on disk, while it does not run
    #[command(subcommand)]
    Store(StoreCommand),
    /// Says what to change on this host so that it holds a number of connections
    ///
    /// It takes the options of `serve`, reads the same configuration and environment, and judges
    /// the node that they would start. It changes nothing. Exit status: 0 ready, also with
    /// warnings, 1 something must be changed, 2 bad arguments or configuration.
    Doctor(Box<DoctorArgs>),
}

#[derive(Args, Clone, Debug, Default)]
#[command(args_override_self = true)]
pub struct ServeArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Where clients connect [default: 0.0.0.0:8888; with --auth none 127.0.0.1:8888]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the HTTP API listens [default: 127.0.0.1:8084]
    #[arg(long, value_name = "ADDR:PORT")]
    api: Option<String>,
    /// Check the configuration and exit: 0 good, 2 bad
    #[arg(long)]
    pub check: bool,
    /// How clients prove who they are: hmac (signed tokens), jwt (tokens of an identity provider)
    /// or none [default: hmac]
    #[arg(long, value_name = "MODE")]
    auth: Option<String>,
    /// Where messages are kept: disk, memory or redis [default: disk; with --redis redis]
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Where the node keeps its files [default: ./throng-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the Redis is that makes this node the member of a cluster (redis://, rediss://,
    /// redis+unix://, redis+sentinel://) [default: none]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The node's name for others [default: the local address and the API port]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// Where the outside world reaches this node's WebSocket endpoint (ws:// or wss://)
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Connections at most [default: what the descriptor limit allows]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_connections: Option<String>,
    /// Threads that hold connections [default: one for each core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    reactors: Option<String>,
    /// Time for a new connection to say who it is [default: 60]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    auth_timeout_secs: Option<String>,
    /// A connection silent for so long gets a ping, 0: never [default: 60]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ping_secs: Option<String>,
    /// A connection silent for so long is closed, 0: never [default: 210]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    idle_secs: Option<String>,
    /// Time to let all clients go at the end [default: 25]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    drain_secs: Option<String>,
    /// Path of a WebSocket echo endpoint for tests, needs no token [default: none]
    #[arg(long, value_name = "PATH")]
    echo_path: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(args_override_self = true, mut_arg("check", |check| check.hide(true)))]
pub struct DoctorArgs {
    /// How many connections it shall hold [default: what the node would take]
    #[arg(long, value_name = "N", value_parser = connections())]
    pub connections: Option<u64>,
    /// The clients are on this host too, as in a load test: count their ends
    #[arg(long)]
    pub with_clients: bool,
    /// A proxy or balancer stands in front, and drops what is silent for so long (nginx: 60)
    #[arg(long, value_name = "N")]
    pub proxy_idle_secs: Option<u32>,
    /// The firewall does not track the node's port (notrack): leave conntrack alone
    #[arg(long)]
    pub untracked: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub serve: ServeArgs,
}

fn connections() -> impl TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=CONNECTIONS_MAX as u64)
}

#[derive(Args, Clone, Debug, Default)]
#[command(args_override_self = true)]
pub struct TokenArgs {
    /// The user's id: 1 to 64 of [A-Za-z0-9_.@-]
    #[arg(long, value_name = "ID")]
    pub user: String,
    /// The user's display name, at most 64 bytes [default: the id]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub name: String,
    /// How long the token is good, in seconds
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30 * 24 * 3600,
        allow_negative_numbers = true
    )]
    pub ttl_secs: u64,
    /// A permission that the token grants; may be repeated
    #[arg(long = "perm", value_name = "P")]
    pub perms: Vec<String>,
    /// Where the node keeps its secret [default: ./throng-data]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<String>,
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

#[derive(Subcommand, Clone, Debug)]
pub enum StoreCommand {
    /// Reads everything and reports what is wrong, with the names of the rows: 0 nothing, 1 something
    Check(StoreArgs),
    /// Writes everything as lines of JSON
    Export {
        #[command(flatten)]
        args: StoreArgs,
        /// A new file [default: standard output]
        file: Option<PathBuf>,
    },
    /// Reads what was exported into a store that is empty or not there, all of it or nothing
    Import {
        #[command(flatten)]
        args: StoreArgs,
        /// The node has run since the export: tell all devices that they may have missed something
        #[arg(long)]
        new_epoch: bool,
        /// What was exported [default: standard input]
        file: Option<PathBuf>,
    },
}

#[derive(Args, Clone, Debug, Default)]
#[command(args_override_self = true)]
pub struct StoreArgs {
    /// Where the node keeps its files [default: ./throng-data]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<String>,
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

impl StoreArgs {
    /// The same choices as `serve` would be given them.
    pub(super) fn as_serve(&self) -> ServeArgs {
        ServeArgs {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            ..ServeArgs::default()
        }
    }
}

impl ServeArgs {
    /// What was given: file key and text.
    pub(super) fn given(&self) -> Vec<(&'static str, String)> {
        [
            ("listen", &self.listen),
            ("api", &self.api),
            ("auth", &self.auth),
            ("store", &self.store),
            ("data_dir", &self.data_dir),
            ("redis", &self.redis),
            ("advertise", &self.advertise),
            ("public_url", &self.public_url),
            ("max_connections", &self.max_connections),
            ("reactors", &self.reactors),
            ("auth_timeout_secs", &self.auth_timeout_secs),
            ("ping_secs", &self.ping_secs),
            ("idle_secs", &self.idle_secs),
            ("drain_secs", &self.drain_secs),
            ("echo_path", &self.echo_path),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.clone()?)))
        .collect()
    }
}

impl TokenArgs {
    /// The same choices as `serve` would be given them.
    pub(super) fn as_serve(&self) -> ServeArgs {
        ServeArgs {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            ..ServeArgs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn serve_is_the_default_and_may_be_said() {
        assert_eq!(
            parse("throng --listen a:1").unwrap().serve.given()[0].1,
            "a:1"
        );
        let Some(Command::Serve(args)) =
            parse("throng serve --listen a:1 --check").unwrap().command
        else {
            panic!("not serve");
        };
        assert!(args.check);
        assert_eq!(args.given(), [("listen", "a:1".to_owned())]);
    }

    #[test]
    fn of_a_repeated_flag_the_last_wins_and_permissions_add_up() {
        for line in [
            "throng --listen a --listen b",
            "throng serve --listen a --listen b",
        ] {
            let cli = parse(line).unwrap();
            let args = match cli.command {
                Some(Command::Serve(args)) => *args,
                _ => cli.serve,
            };
            assert_eq!(args.given()[0].1, "b");
        }
        let cli = parse("throng token --user a --user b --perm x --perm y").unwrap();
        let Some(Command::Token(args)) = cli.command else {
            panic!("not token")
        };
        assert_eq!(
            (args.user.as_str(), args.perms),
            ("b", vec!["x".to_owned(), "y".to_owned()])
        );
        assert_eq!(args.ttl_secs, 2_592_000);
    }

    #[test]
    fn argument_errors_have_status_2_and_help_0() {
        for bad in [
            "throng --nope",
            "throng token",
            "throng token --user a --ttl-secs x",
            "throng store",
            "throng store mend",
            "throng store check --data-dir a --config b",
            "throng doctor --connections 0",
            "throng doctor --connections 99999999999",
            "throng doctor --proxy-idle-secs soon",
            "throng x",
        ] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
        for good in [
            "throng --help",
            "throng --version",
            "throng serve --help",
            "throng store --help",
            "throng store import --help",
            "throng doctor --help",
            "throng help",
        ] {
            assert_eq!(parse(good).unwrap_err().exit_code(), 0, "{good}");
        }
    }

    #[test]
    fn a_number_below_zero_is_a_value_and_no_option() {
        let cli = parse("throng --drain-secs -1 --ping-secs -5").unwrap();
        let given = cli.serve.given();
        assert_eq!(given[0], ("ping_secs", "-5".to_owned()));
        assert_eq!(given[1], ("drain_secs", "-1".to_owned()));
        let error = parse("throng token --user a --ttl-secs -1").unwrap_err();
        assert!(
            error.to_string().contains("'-1' for '--ttl-secs"),
            "{error}"
        );
    }

    #[test]
    fn the_doctor_takes_the_options_of_the_node() {
        let line = "throng doctor --connections 9 --reactors 3 --ping-secs 5 --json";
        let Some(Command::Doctor(args)) = parse(line).unwrap().command else {
            panic!("not doctor");
        };
        assert_eq!((args.connections, args.json), (Some(9), true));
        let given = args.serve.given().into_iter();
        let given: Vec<_> = given.map(|(key, text)| format!("{key} {text}")).collect();
        assert_eq!(given, ["reactors 3", "ping_secs 5"]);
    }

    #[test]
    fn help_names_what_each_command_takes() {
        for line in ["throng --help", "throng serve --help"] {
            let help = parse(line).unwrap_err().to_string();
            assert!(help.contains("--echo-path") && help.contains("--redis"));
            assert!(help.contains("--check"));
        }
        let help = parse("throng doctor --help").unwrap_err().to_string();
        assert!(help.contains("--with-clients") && help.contains("--reactors"));
        assert!(!help.contains("--check"), "{help}");
    }
}
