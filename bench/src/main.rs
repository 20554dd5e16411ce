//! The benchmark of groundmist-sync: a black box. It starts the server as a user would, speaks to it as a stock
//! automerge-repo client would, and prints what it measured as a table. `README.md` says what each figure means.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum as _};

use report::Outcome;
use scenarios::{Bench, Measures, Scale, Scenario};
use server::Target;

mod attack;
mod bulk;
mod client;
mod device;
mod figures;
mod held;
mod history;
mod http;
mod owner;
mod people;
mod process;
mod report;
mod scenarios;
mod server;
mod sync;
mod trend;
mod wire;

const EXIT_USAGE: u8 = 64;

/// Measure groundmist-sync, and print a table
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Only this scenario; may be given several times [default: all but `soak`]
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
    /// A tenth of the work: to see that it runs, not to compare
    #[arg(long)]
    quick: bool,
    /// How long `soak` takes
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    minutes: u32,
    /// A line of JSON for each scenario and server, instead of a table
    #[arg(long)]
    json: bool,
    /// Measure this server too, each scenario right after ours
    #[arg(long, value_name = "NAME")]
    peer: Option<Peer>,
    /// The server to measure [default: target/release/groundmist-sync]
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Be the server of the `echo` scenario
    #[arg(long, hide = true)]
    echo_server: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Peer {
    /// The stock server of automerge-repo 2.5.6, on Node
    Node,
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(problem) => {
            let code = if problem.use_stderr() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::SUCCESS
            };
            return problem.print().map_or(ExitCode::FAILURE, |()| code);
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: the generator may use one core, and the server has the others.
#[tokio::main(flavor = "current_thread")]
async fn run(options: Options) -> Result<ExitCode> {
    if options.list {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    allow_many_sockets()?;
    if options.echo_server {
        scenarios::ceilings::echo_server().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let targets = targets(&options);
    for target in &targets {
        if let Err(missing) = target.ready().await {
            eprintln!("bench: {missing:#}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    }
    let outcomes = measure(&options, &targets).await;
    if !options.json {
        println!("{}.\n\n{}", report::machine(), report::table(&outcomes));
    }
    let failed = outcomes.iter().any(|outcome| outcome.figures.is_err());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn list() {
    for scenario in Scenario::value_variants() {
        println!("{:14} {}", scenario.name(), scenario.summary());
    }
}

async fn measure(options: &Options, targets: &[Target]) -> Vec<Outcome> {
    let scale = if options.quick {
        Scale::Quick
    } else {
        Scale::Full
    };
    let all_but_long = Scenario::value_variants().iter().copied();
    let chosen = if options.scenarios.is_empty() {
        all_but_long
            .filter(|scenario| !scenario.is_long())
            .collect()
    } else {
        options.scenarios.clone()
    };
    let mut outcomes = Vec::new();
    for scenario in &chosen {
        let bare = [Target::Echo];
        for target in match scenario.measures() {
            Measures::Servers => targets,
            Measures::Ours => targets.split_at(1).0,
            Measures::Machine => &bare,
        } {
            eprintln!("{} on {}", scenario.name(), target.name());
            let bench = Bench {
                target: target.clone(),
                scale,
                minutes: options.minutes,
                scratch: workspace().join("target/bench-cache"),
            };
            let figures = scenario.run(&bench).await.map(|figures| figures.0);
            let outcome = Outcome {
                scenario: scenario.name(),
                target: target.name(),
                figures,
            };
            if options.json {
                println!("{}", outcome.to_json());
            }
            outcomes.push(outcome);
        }
    }
    outcomes
}

fn targets(options: &Options) -> Vec<Target> {
    let built = || workspace().join("target/release/groundmist-sync");
    let mut targets = vec![Target::Groundmist(
        options.server.clone().unwrap_or_else(built),
    )];
    if let Some(Peer::Node) = options.peer {
        targets.push(Target::Node(workspace().join("bench/peers/node")));
    }
    targets
}

fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// `idle5k` needs more file descriptors than most shells allow; the server inherits the limit.
fn allow_many_sockets() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
