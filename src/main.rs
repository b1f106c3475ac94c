//! Arguments, configuration, run, exit code: 0 done, 1 failed at run time (or a host that is not
//! ready), 2 bad configuration or arguments.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use throng::config::{
    AuthMode, Cli, Command, Config, ConfigErrors, DoctorArgs, Environment, SECRET_FILE, ServeArgs,
    StoreArgs, StoreCommand, TokenArgs, TokenConfig, data_dir, load_secret,
};
use throng::control::tokens;
use throng::doctor::{self, Answers, Host};
use throng::session::auth::TokenKeys;
use throng::store::tool::{self, ToolError};

#[global_allocator]
static ALLOCATOR: jemallocator::Jemalloc = jemallocator::Jemalloc;

/// What ends the process badly: a sentence for the operator and an exit status.
struct Failure {
    status: u8,
    sentence: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(&cli.serve).map(|()| ExitCode::SUCCESS),
        Some(Command::Serve(args)) => serve(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Token(args)) => token(args).map(|()| ExitCode::SUCCESS),
        Some(Command::Store(command)) => store(&command).map(|()| ExitCode::SUCCESS),
        Some(Command::Doctor(args)) => examine(&args),
    };
    match result {
        Ok(status) => status,
        Err(Failure { status, sentence }) => {
            eprintln!("throng: {sentence}");
            ExitCode::from(status)
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let load = || Config::load(args, &Environment::of_process());
    let config = load()?;
    if args.check {
        for warning in &config.warnings {
            eprintln!("throng: {warning}");
        }
        return print("the configuration is good");
    }
    let log = throng::log::start(config.log_level, config.log_format);
    throng::server::run(config, log, &load).map_err(|error| Failure {
        status: error.exit_code(),
        sentence: error.to_string(),
    })
}

/// Prints one token and nothing else.
fn token(args: TokenArgs) -> Result<(), Failure> {
    let config = TokenConfig::load(&args, &Environment::of_process())?;
    match config.auth {
        AuthMode::Hmac => {}
        AuthMode::Jwt => return Err(Failure::bad(tokens::NOT_OURS)),
        AuthMode::None => {
            let sentence = "with auth = \"none\" tokens mean nothing: clients name themselves";
            return Err(Failure::bad(sentence));
        }
    }
    let secret = match config.token_secret {
        Some(secret) => secret,
        None => load_secret(&config.data_dir)
            .map_err(Failure::at_run_time)?
            .ok_or_else(|| {
                let path = config.data_dir.join(SECRET_FILE);
                Failure::bad(format!(
                    "there is no token secret in {}: start the node once with this data \
                     directory, or name the node's own with --data-dir or --config",
                    path.display()
                ))
            })?,
    };
    let keys = TokenKeys::parse(&secret).map_err(Failure::at_run_time)?;
    let order = tokens::Order {
        user_id: args.user,
        user_name: Some(args.name),
        ttl_secs: Some(args.ttl_secs),
        perms: Some(args.perms),
    };
    let token = tokens::make(&keys, &order, throng::control::now_ms()).map_err(Failure::bad)?;
    print(&token.text)
}

/// Works on the store of a node that does not run.
fn store(command: &StoreCommand) -> Result<(), Failure> {
    let dir_of = |args: &StoreArgs| data_dir(args, &Environment::of_process());
    let (mut out, mut says) = (std::io::stdout().lock(), std::io::stderr().lock());
    match command {
        StoreCommand::Check(args) => tool::check(&dir_of(args)?, &mut out)?,
        StoreCommand::Export { args, file } => {
            tool::export(&dir_of(args)?, file.as_deref(), &mut out, &mut says)?;
        }
        StoreCommand::Import {
            args,
            new_epoch,
            file,
        } => {
            let mut input = std::io::stdin().lock();
            let dir = dir_of(args)?;
            let rows = tool::import(&dir, file.as_deref(), &mut input, *new_epoch)?;
            writeln!(says, "throng: {rows} rows were imported").map_err(Failure::at_run_time)?;
        }
    }
    Ok(())
}

/// Says whether this host holds what is wanted, and what to change if not.
fn examine(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let config = Config::load_for_any_host(&args.serve, &Environment::of_process())?;
    for warning in &config.warnings {
        eprintln!("throng: {warning}");
    }
    let host = Host::read(Path::new("/"), Answers::of_this_host()).map_err(Failure::bad)?;
    let report = doctor::examine(&host, &config, args);
    if args.json {
        print(&serde_json::to_string(&report).map_err(Failure::at_run_time)?)?;
    } else {
        print(report.to_string().trim_end())?;
    }
    Ok(ExitCode::from(u8::from(!report.is_ready())))
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::at_run_time)
}

impl Failure {
    fn bad(sentence: impl ToString) -> Failure {
        let sentence = sentence.to_string();
        Failure {
            status: 2,
            sentence,
        }
    }

    fn at_run_time(error: impl ToString) -> Failure {
        let sentence = error.to_string();
        Failure {
            status: 1,
            sentence,
        }
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Failure {
        Failure::at_run_time(error)
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Failure {
        Failure::bad(errors)
    }
}
