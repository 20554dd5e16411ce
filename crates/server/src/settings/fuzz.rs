//! What the fuzzer gives the reader of the settings, and what must hold of all that it takes and of all that it refuses.
//!
//! An input is the text of `config.toml`; behind a line `=== .env` that of `.env`, behind `=== environment` the
//! variables of the process, one a line, in any bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what must hold may panic"
)]

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use engine::Announce;

use super::{
    Environment, Fault, Kind, Row, RowValue, Settings, SettingsFlags, SettingsProblem,
    SettingsProblems, Source, config_file::GroupTable, reader::Reader, table,
};
use crate::group::Group;

/// Stands in secrets, and is never to be seen in anything that is printed.
const SECRET: &str = "5ecr3t";
/// Most characters of a problem: what is repeated of a value is cut, but the keys of a TOML file are not.
const PROBLEM_CHARS_MAX: usize = 2_000;

/// The texts of an input.
struct Sources<'a> {
    config: &'a str,
    dotenv: Option<&'a str>,
    environment: Environment,
}

/// What is accepted can be written down and is accepted again, and the same; of what is refused is said where it is, on
/// one line, and no secret.
pub(crate) fn config(data: &[u8]) {
    let Some(sources) = Sources::parse(data) else {
        return;
    };
    match sources.load() {
        Ok(settings) => {
            keeps_secrets(&sources, &format!("{settings:?} {:?}", sources.environment));
            comes_again(&settings);
        }
        Err(SettingsProblems(problems)) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| sources.check(problem));
            let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
            keeps_secrets(&sources, &shown.join("\n"));
        }
    }
}

impl<'a> Sources<'a> {
    /// The files are read as text, and refused as a whole if they are none.
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (files, environment) = cut(data, b"=== environment\n");
        let (config, dotenv) = cut(files, b"=== .env\n");
        let variables = environment.unwrap_or_default().split(|byte| *byte == b'\n');
        Some(Self {
            config: std::str::from_utf8(config).ok()?,
            dotenv: dotenv.map(std::str::from_utf8).transpose().ok()?,
            environment: variables.filter_map(variable).collect(),
        })
    }

    fn load(&self) -> Result<Settings, SettingsProblems> {
        let flags = SettingsFlags::default();
        let mut reader = Reader::without_files(&flags, &self.environment);
        if let Some(dotenv) = self.dotenv {
            reader.take_dotenv(dotenv);
        }
        reader.take_config(self.config, "config.toml".into());
        Settings::of_sources(reader, Path::new(""))
    }

    fn check(&self, problem: &SettingsProblem) {
        let shown = problem.to_string();
        assert!(!problem.key.is_empty() && !shown.is_empty());
        assert!(!shown.contains(char::is_control), "{shown:?}");
        let chars = shown.chars().count();
        assert!(
            chars <= PROBLEM_CHARS_MAX + problem.key.chars().count(),
            "{chars}"
        );
        let text = match problem.source {
            Source::ConfigFile => self.config,
            Source::Dotenv => self.dotenv.unwrap_or_default(),
            Source::Environment => return assert_eq!(problem.line, None),
            Source::Flag | Source::Default => panic!("nobody has set it"),
        };
        let lines = 1 + text.matches('\n').count();
        match problem.line {
            Some(line) => assert!((1..=lines).contains(&line), "{shown}"),
            // that it is nested too deeply the parser says of the whole file
            None => assert!(matches!(problem.fault, Fault::Malformed { .. }), "{shown}"),
        }
    }
}

fn cut<'a>(data: &'a [u8], line: &[u8]) -> (&'a [u8], Option<&'a [u8]>) {
    match data.windows(line.len()).position(|window| window == line) {
        Some(at) => (&data[..at], Some(&data[at + line.len()..])),
        None => (data, None),
    }
}

/// A variable that is a setting, as the environment has it: without zero bytes.
fn variable(line: &[u8]) -> Option<(String, OsString)> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    let name = std::str::from_utf8(&line[..at]).ok()?;
    let is_setting = table::fields().any(|field| field.variable == Some(name));
    let value = &line[at + 1..];
    (is_setting && !value.contains(&0))
        .then(|| (name.to_owned(), OsStr::from_bytes(value).to_owned()))
}

/// Writes accepted settings as a TOML file, which must be accepted too and say the same.
fn comes_again(settings: &Settings) {
    let given = |row: &&Row| row.source != Source::Default && !is_secret(&row.key);
    let rows: Vec<_> = settings.describe().iter().filter(given).collect();
    // a path need not be text, and is then shown as well as it can be
    if rows
        .iter()
        .any(|row| row.value.to_string().contains('\u{fffd}'))
    {
        return;
    }
    let lines = rows.iter().map(|row| match &row.value {
        RowValue::Number(number) => format!("{} = {number}\n", row.key),
        other @ (RowValue::Unset | RowValue::Text(_)) => {
            format!("{} = {}\n", row.key, toml_text(&other.to_string()))
        }
    });
    let written: String = lines.collect();
    let environment = Environment::default();
    let again = Sources {
        config: &written,
        dotenv: None,
        environment,
    }
    .load();
    let again = again.unwrap_or_else(|problems| panic!("{problems}\n{written}"));
    let given_again: Vec<_> = again.describe().iter().filter(given).collect();
    let said = |rows: &[&Row]| -> Vec<_> {
        let said = rows.iter().map(|row| (row.key.clone(), row.value.clone()));
        said.collect()
    };
    assert_eq!(said(&given_again), said(&rows));
    assert_eq!(
        (
            again.port,
            &again.public_url,
            &again.trusted_proxies,
            announced(&again),
            &again.test
        ),
        (
            settings.port,
            &settings.public_url,
            &settings.trusted_proxies,
            announced(settings),
            &settings.test
        )
    );
}

/// What is announced, and where: a group that is named and announces nothing is like one that is not named.
fn announced(settings: &Settings) -> Vec<(&Group, Announce)> {
    let groups = settings.announce.iter();
    let groups = groups.map(|(group, announce)| (group, *announce));
    groups
        .filter(|(_, announce)| *announce != Announce::None)
        .collect()
}

/// A TOML string. Source: TOML 1.0, "String", basic strings.
fn toml_text(text: &str) -> String {
    let mut written = String::from('"');
    for char in text.chars() {
        match char {
            '"' | '\\' => written.extend(['\\', char]),
            char if char.is_ascii_control() => {
                written.push_str(&format!("\\u{:04x}", u32::from(char)))
            }
            char => written.push(char),
        }
    }
    written + "\""
}

fn is_secret(key: &str) -> bool {
    table::fields().any(|field| field.key == key && matches!(field.kind, Kind::Secret(_)))
}

/// A secret is not printed, wherever it stands and whatever is wrong with it or around it. What is given as a name, or
/// for a setting that is none, is shown, as it should be.
fn keeps_secrets(sources: &Sources<'_>, printed: &str) {
    if printed.contains(SECRET) {
        assert!(sources.shows_secret(), "{printed}");
    }
}

impl Sources<'_> {
    /// Whether the text of secrets stands anywhere but in values of secret or unknown settings.
    fn shows_secret(&self) -> bool {
        let flags = SettingsFlags::default();
        let mut reader = Reader::without_files(&flags, &self.environment);
        reader.take_dotenv(self.dotenv.unwrap_or_default());
        reader.take_config(self.config, "config.toml".into());
        let mut is_shown = reader
            .problems
            .iter()
            .any(|problem| problem.key.contains(SECRET));
        let open = table::fields().filter(|field| !matches!(field.kind, Kind::Secret(_)));
        for field in open {
            // as `Debug` writes it too, where a byte that is no text ends in a digit
            let shows = |text: &OsStr| {
                let shown = format!("{text:?} {}", text.to_string_lossy());
                Some(shown.contains(SECRET))
            };
            is_shown |= reader.os_text(field, shows).unwrap_or(false);
        }
        let of_group = |table: GroupTable| {
            let announce = table.announce.map(|located| located.value.to_string());
            table.name.contains(SECRET) || announce.is_some_and(|text| text.contains(SECRET))
        };
        is_shown || reader.groups().into_iter().any(of_group)
    }
}
