//! `sim`: worlds made of a seed, for as long as you like.

use std::{
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use simulator::{Plan, Report, planted, run, run_twice};

/// How long each world of `--seconds` lasts, in steps.
const STEPS: u64 = 20_000;
/// One world in so many is run twice.
const TWICE_EVERY: u64 = 8;

/// Runs engines, stores and clients in a world that a seed decides, and checks every step.
#[derive(Parser)]
#[command(name = "sim", version)]
struct Options {
    /// Run this seed's world, twice, and print what it did
    #[arg(long, conflicts_with_all = ["seconds", "planted", "planted_list"])]
    seed: Option<u64>,
    /// How long a world lasts, in steps
    #[arg(long, default_value_t = STEPS, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Print every event of the world of --seed as it happens
    #[arg(long, requires = "seed")]
    aloud: bool,
    /// Run one fresh seed after the other for this long
    #[arg(long, conflicts_with_all = ["planted", "planted_list"])]
    seconds: Option<u64>,
    /// Begin with this seed
    #[arg(long, requires = "seconds")]
    from_seed: Option<u64>,
    /// Plant a bug, and succeed only if a checker finds it; "all" plants each
    #[arg(long, value_name = "NAME", conflicts_with = "planted_list")]
    planted: Option<String>,
    /// List the bugs that can be planted, and a seed at which each is found
    #[arg(long)]
    planted_list: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match (options.seed, options.seconds, &options.planted) {
        (Some(seed), _, _) => one(seed, &options),
        (_, Some(seconds), _) => fresh(seconds, &options),
        (_, _, Some(name)) => hunt(name),
        _ if options.planted_list => list(),
        _ => {
            eprintln!("sim: nothing to do; try --seed 7 or --seconds 60, and --help");
            ExitCode::from(64)
        }
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let plan = Plan::new(seed, options.steps);
    let report = if options.aloud {
        run(plan, true)
    } else {
        run_twice(plan)
    };
    println!("{plan:?}");
    println!("{:?}", report.counts);
    let [syncs, refused, lost, torn] = report.disk;
    println!("disk: {syncs} fsyncs, {refused} operations refused, {lost} writes lost, {torn} torn");
    println!("trace {:016x}", report.trace);
    let is_well = say(seed, &report);
    println!(
        "seeds 1 steps {} violations {}",
        report.steps,
        u8::from(!is_well)
    );
    code(is_well)
}

fn fresh(seconds: u64, options: &Options) -> ExitCode {
    let end = Instant::now() + Duration::from_secs(seconds);
    let first = options.from_seed.unwrap_or_else(fresh_seed);
    println!("from seed {first}");
    let (mut seeds, mut steps, mut bad) = (0, 0, vec![]);
    for seed in first.. {
        if Instant::now() >= end && seeds > 0 {
            break;
        }
        let plan = Plan::new(seed, options.steps);
        let report = if seed.is_multiple_of(TWICE_EVERY) {
            run_twice(plan)
        } else {
            run(plan, false)
        };
        seeds += 1;
        steps += report.steps;
        if !say(seed, &report) {
            bad.push(seed);
        }
    }
    if !bad.is_empty() {
        // once more at the end, where whoever keeps little of a log still finds them
        println!("violations at seeds {bad:?}");
    }
    println!("seeds {seeds} steps {steps} violations {}", bad.len());
    code(bad.is_empty())
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs() * 1_000)
}

/// Says what was wrong; whether nothing was.
fn say(seed: u64, report: &Report) -> bool {
    let Some(violation) = &report.violation else {
        return true;
    };
    println!();
    report.last.iter().for_each(|event| println!("{event}"));
    println!(
        "VIOLATION at seed {seed}, step {}: {violation}",
        report.steps
    );
    println!(
        "again: cargo run --release -p sim -- --seed {seed} --steps {}",
        report.steps
    );
    false
}

fn hunt(name: &str) -> ExitCode {
    let hunted: Vec<_> = match planted::find(name) {
        Some(planted) => vec![planted],
        None if name == "all" => planted::ALL.to_vec(),
        None => {
            eprintln!("sim: no bug is called {name}; --planted-list lists them");
            return ExitCode::from(64);
        }
    };
    let mut all_found = true;
    for planted in hunted {
        match planted.hunt() {
            Some((seed, report)) => {
                let violation = report.violation.map(|violation| violation.to_string());
                let found = violation.unwrap_or_default();
                println!(
                    "{}: found at seed {seed}, step {}: {found}",
                    planted.name, report.steps
                );
            }
            None => {
                all_found = false;
                println!("{}: NOT FOUND", planted.name);
            }
        }
    }
    code(all_found)
}

fn list() -> ExitCode {
    for planted in planted::ALL {
        println!(
            "{:36} seed {:3}  {:?}",
            planted.name, planted.seed, planted.by
        );
    }
    ExitCode::SUCCESS
}

fn code(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
