//! `throng-loadtest`: holds, broadcasts to, or lets talk a crowd of WebSocket clients, perhaps
//! while somebody restarts their nodes, and says what happened to them; and judges what was
//! written down of it.

use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

mod args;
mod report;
mod scenarios;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_json = cli.what.is_json();
    match scenarios::run(cli.what) {
        Ok(report) => {
            if is_json {
                println!("{}", report.json());
            } else {
                print!("{}", report.text);
            }
            if report.is_complete {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("throng-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
