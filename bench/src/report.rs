//! The results as a markdown table or as lines of JSON, with the machine they come from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use crate::figures::{Figure, Unit};

/// One scenario on one server: its figures, or why it has none.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static str,
    pub(crate) target: &'static str,
    pub(crate) figures: Result<Vec<Figure>, anyhow::Error>,
}

impl Outcome {
    /// A line of JSON, printed as soon as it is known.
    pub(crate) fn to_json(&self) -> String {
        match &self.figures {
            Ok(figures) => {
                let figures: Vec<_> = figures
                    .iter()
                    .map(|figure| json!({"name": figure.name, "value": figure.value, "unit": figure.unit.name()}))
                    .collect();
                json!({"scenario": self.scenario, "server": self.target, "figures": figures}).to_string()
            }
            Err(error) => {
                json!({"scenario": self.scenario, "server": self.target, "error": format!("{error:#}")}).to_string()
            }
        }
    }

    fn value(&self, name: &str) -> Option<&Figure> {
        self.figures
            .as_ref()
            .ok()?
            .iter()
            .find(|figure| figure.name == name)
    }
}

/// The table: a row for each figure, a column for each server, and their ratio if there are two.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut targets: Vec<&str> = Vec::new();
    outcomes.iter().for_each(|outcome| {
        if outcome.target != "bare" && !targets.contains(&outcome.target) {
            targets.push(outcome.target);
        }
    });
    if targets.is_empty() {
        targets.push("bare");
    }
    let mut text = header(&targets);
    let mut done = BTreeSet::new();
    for outcome in outcomes {
        if done.insert(outcome.scenario) {
            let same: Vec<_> = outcomes
                .iter()
                .filter(|other| other.scenario == outcome.scenario)
                .collect();
            rows(&mut text, &targets, &same);
        }
    }
    text
}

fn header(targets: &[&str]) -> String {
    let mut titles = vec!["scenario", "figure"];
    titles.extend(targets);
    if targets.len() == 2 {
        titles.push("ratio");
    }
    let rule: Vec<_> = titles
        .iter()
        .enumerate()
        .map(|(at, _)| if at < 2 { "---" } else { "---:" })
        .collect();
    format!("| {} |\n| {} |\n", titles.join(" | "), rule.join(" | "))
}

fn rows(text: &mut String, targets: &[&str], outcomes: &[&Outcome]) {
    let mut names: Vec<&str> = Vec::new();
    for figure in outcomes
        .iter()
        .filter_map(|outcome| outcome.figures.as_ref().ok())
        .flatten()
    {
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    for outcome in outcomes {
        if let Err(error) = &outcome.figures {
            let reason = format!("{error:#}").replace('|', "/");
            line(
                text,
                &format!(
                    "| {} | failed on {}: {reason} |",
                    outcome.scenario, outcome.target
                ),
            );
        }
    }
    for name in names {
        let found: Vec<_> = targets
            .iter()
            .map(|target| cell(outcomes, target, name))
            .collect();
        let mut cells: Vec<String> = found
            .iter()
            .map(|figure| figure.map_or(String::new(), printed))
            .collect();
        if let [ours, theirs] = found.as_slice() {
            cells.push(ratio(*ours, *theirs));
        }
        let scenario = outcomes.first().map_or("", |outcome| outcome.scenario);
        line(
            text,
            &format!("| {scenario} | {name} | {} |", cells.join(" | ")),
        );
    }
}

/// The ceilings belong to the machine and stand in the first column.
fn cell<'a>(outcomes: &[&'a Outcome], target: &str, name: &str) -> Option<&'a Figure> {
    outcomes
        .iter()
        .find(|outcome| outcome.target == target || outcome.target == "bare")?
        .value(name)
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes every line");
}

fn printed(figure: &Figure) -> String {
    let digits = match figure.value {
        value if value >= 100.0 || figure.unit == Unit::Count => 0,
        value if value >= 10.0 => 1,
        value if value >= 0.1 => 2,
        _ => 3,
    };
    format!("{:.digits$} {}", figure.value, figure.unit.name())
        .trim_end()
        .to_owned()
}

fn ratio(ours: Option<&Figure>, theirs: Option<&Figure>) -> String {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return String::new();
    };
    if ours.value == 0.0 || theirs.value == 0.0 || ours.unit == Unit::Count {
        return String::new();
    }
    let (more, less) = if ours.value > theirs.value {
        (ours, theirs)
    } else {
        (theirs, ours)
    };
    let sign = if ours.value > theirs.value { "x" } else { "1/" };
    let times = more.value / less.value;
    let digits = usize::from(times < 10.0);
    if sign == "x" {
        format!("{times:.digits$} x")
    } else {
        format!("1/{times:.digits$}")
    }
}

/// The machine, for the line above the table.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({}), {} of memory, Linux {}",
        after(&read("/proc/cpuinfo"), "model name"),
        after(&read("/proc/meminfo"), "MemTotal"),
        kernel.trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(target: &'static str, value: f64) -> Outcome {
        let figure = Figure {
            name: "documents".to_owned(),
            value,
            unit: Unit::PerSecond,
        };
        Outcome {
            scenario: "push",
            target,
            figures: Ok(vec![figure]),
        }
    }

    #[test]
    fn two_servers_stand_side_by_side_with_their_ratio() {
        let text = table(&[
            outcome("groundmist-sync", 4000.0),
            outcome("node 2.5.6", 100.0),
        ]);
        assert!(
            text.contains("| push | documents | 4000 /s | 100 /s | 40 x |"),
            "{text}"
        );
    }

    #[test]
    fn one_server_has_no_ratio() {
        let text = table(&[outcome("groundmist-sync", 4.5)]);
        assert!(text.ends_with("| push | documents | 4.50 /s |\n"), "{text}");
    }

    #[test]
    fn a_failure_is_a_row_of_its_own() {
        let failed = Outcome {
            figures: Err(anyhow::anyhow!("closed")),
            ..outcome("node 2.5.6", 0.0)
        };
        let text = table(&[outcome("groundmist-sync", 4.5), failed]);
        assert!(
            text.contains("| push | failed on node 2.5.6: closed |"),
            "{text}"
        );
        assert!(
            text.contains("| push | documents | 4.50 /s |  |  |"),
            "{text}"
        );
    }
}
