//! Takes each setting from the strongest source that has it, and keeps account of what was taken and what was wrong.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{
    Row, RowValue, SettingsFlags,
    config_file::{ConfigFile, GroupTable, Located, TomlKey, TomlValue},
    dotenv::{Assigned, Dotenv},
    environment::Environment,
    problem::{Fault, SettingsProblem, Source, quoted},
    table::{Field, GROUPS, Kind},
};

/// All sources, opened.
pub(super) struct Reader<'a> {
    flags: &'a SettingsFlags,
    environment: &'a Environment,
    dotenv: Dotenv,
    config: ConfigFile,
    /// The file that `config` was read from.
    pub(super) config_path: Option<PathBuf>,
    pub(super) rows: Vec<Row>,
    pub(super) problems: Vec<SettingsProblem>,
}

/// A value as it was written, and where.
struct Given {
    /// The name of the setting there.
    key: String,
    source: Source,
    line: Option<usize>,
    value: GivenValue,
}

enum GivenValue {
    /// From a source that knows nothing but text.
    Untyped(OsString),
    Toml(TomlValue),
}

impl<'a> Reader<'a> {
    /// Reads `.env` and `config.toml` in `directory`.
    pub(super) fn open(
        flags: &'a SettingsFlags,
        environment: &'a Environment,
        directory: &Path,
    ) -> Self {
        let mut reader = Self::without_files(flags, environment);
        reader.open_dotenv(directory);
        reader.open_config(directory);
        reader
    }

    /// Flags and environment, no files yet.
    pub(super) fn without_files(flags: &'a SettingsFlags, environment: &'a Environment) -> Self {
        Self {
            flags,
            environment,
            dotenv: Dotenv::default(),
            config: ConfigFile::default(),
            config_path: None,
            rows: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn open_dotenv(&mut self, directory: &Path) {
        let Some(text) = self.read_file(
            ".env",
            Source::Dotenv,
            &directory.join(".env"),
            Absence::Fine,
        ) else {
            return;
        };
        self.take_dotenv(&text);
    }

    pub(super) fn take_dotenv(&mut self, text: &str) {
        self.dotenv = Dotenv::parse(text);
        let expected =
            "expected NAME=value, a comment or nothing; a quote that is opened must be closed";
        self.problems
            .extend(self.dotenv.malformed.iter().map(|line| SettingsProblem {
                key: ".env".to_owned(),
                source: Source::Dotenv,
                line: Some(*line),
                fault: Fault::Malformed {
                    expected: expected.to_owned(),
                },
            }));
    }

    fn open_config(&mut self, directory: &Path) {
        let (text, path) = match &self.flags.config {
            Some(path) => {
                let path = directory.join(path);
                (
                    self.read_file("--config", Source::Flag, &path, Absence::Problem),
                    path,
                )
            }
            None => {
                let path = directory.join("config.toml");
                (
                    self.read_file("config.toml", Source::ConfigFile, &path, Absence::Fine),
                    path,
                )
            }
        };
        if let Some(text) = text {
            self.take_config(&text, path);
        }
    }

    pub(super) fn take_config(&mut self, text: &str, path: PathBuf) {
        self.config = ConfigFile::parse(text);
        self.config_path = Some(path);
        self.problems.append(&mut self.config.problems);
    }

    fn read_file(
        &mut self,
        key: &str,
        source: Source,
        path: &Path,
        absence: Absence,
    ) -> Option<String> {
        match fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && absence == Absence::Fine => {
                None
            }
            Err(error) => {
                let fault = Fault::Unreadable {
                    path: path.to_owned(),
                    error,
                };
                self.problems.push(SettingsProblem {
                    key: key.to_owned(),
                    source,
                    line: None,
                    fault,
                });
                None
            }
        }
    }

    /// A setting that is read from a text by `parse`, which says `None` if the text is not allowed.
    pub(super) fn text<T>(
        &mut self,
        field: &'static Field,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        self.os_text(field, |text| text.to_str().and_then(&parse))
    }

    /// A setting that need not be Unicode.
    pub(super) fn os_text<T>(
        &mut self,
        field: &'static Field,
        parse: impl Fn(&OsStr) -> Option<T>,
    ) -> Option<T> {
        let Some(given) = self.given(field) else {
            let value = field
                .default
                .map_or(RowValue::Unset, |text| RowValue::Text(text.to_owned()));
            self.push_row(field.key, value, Source::Default);
            return field.default.and_then(|text| parse(text.as_ref()));
        };
        self.take_text(field, given, parse)
    }

    fn take_text<T>(
        &mut self,
        field: &'static Field,
        given: Given,
        parse: impl Fn(&OsStr) -> Option<T>,
    ) -> Option<T> {
        let text = given.value.as_text();
        match text.and_then(parse) {
            Some(value) => {
                let shown = text.unwrap_or_default().to_string_lossy().into_owned();
                let key = if given.source == Source::ConfigFile {
                    given.key
                } else {
                    field.key.to_owned()
                };
                self.push_row(key, RowValue::Text(shown), given.source);
                Some(value)
            }
            None => {
                let value = Some(given.value.to_string());
                self.refuse(given, value, field.allowed());
                None
            }
        }
    }

    /// A whole number within the range that the table gives it.
    pub(super) fn number<T: TryFrom<u64>>(&mut self, field: &'static Field) -> Option<T> {
        let (min, max) = match field.kind {
            Kind::Number { min, max } => (min, max),
            Kind::Text(_) | Kind::Secret(_) | Kind::Choice(_) => (0, u64::MAX),
        };
        let in_range = |text: &str| {
            text.parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
        };
        let given = self.given(field);
        let number: Option<u64> = match &given {
            None => field.default.and_then(in_range),
            Some(given) => given.value.as_digits().and_then(in_range),
        };
        let Some(converted) = number.and_then(|number| T::try_from(number).ok()) else {
            if let Some(given) = given {
                let value = Some(given.value.to_string());
                self.refuse(given, value, field.allowed());
            }
            return None;
        };
        let source = given.map_or(Source::Default, |given| given.source);
        self.push_row(
            field.key,
            number.map_or(RowValue::Unset, RowValue::Number),
            source,
        );
        Some(converted)
    }

    /// A setting that is never shown: `parse` says what is wrong with a text without repeating it. `unset` is what is
    /// shown when nobody has set it.
    pub(super) fn secret<T, E: fmt::Display>(
        &mut self,
        field: &'static Field,
        unset: RowValue,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(given) = self.given(field) else {
            self.push_row(field.key, unset, Source::Default);
            return None;
        };
        let wrong = match given.value.as_text().and_then(OsStr::to_str).map(parse) {
            Some(Ok(value)) => {
                self.push_row(field.key, RowValue::Text("set".to_owned()), given.source);
                return Some(value);
            }
            Some(Err(error)) => error.to_string(),
            None => "it is not a text".to_owned(),
        };
        self.refuse(given, None, format!("{} ({wrong})", field.allowed()));
        None
    }

    /// The tables of single groups.
    pub(super) fn groups(&mut self) -> Vec<GroupTable> {
        std::mem::take(&mut self.config.groups)
    }

    /// A setting of one group, if it is set.
    pub(super) fn group_text<T>(
        &mut self,
        field: &'static Field,
        group: &str,
        located: Located,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let name = field.key.rsplit('.').next().unwrap_or_default();
        let key = format!("{GROUPS}.{}.{name}", TomlKey(group));
        let given = Given::in_file(key, &located);
        if given.value.is_empty() {
            return None;
        }
        self.take_text(field, given, |text| text.to_str().and_then(&parse))
    }

    /// Notes that a setting is not allowed, if somebody has set it, and what would be.
    pub(super) fn refuse_if_given(&mut self, field: &'static Field, allowed: &str) {
        if let Some(given) = self.given(field) {
            let value = Some(given.value.to_string());
            self.refuse(given, value, allowed.to_owned());
        }
    }

    /// Notes that the name of a group's table is not allowed.
    pub(super) fn refuse_group(&mut self, table: &GroupTable, allowed: String) {
        let key = format!("{GROUPS}.{}", TomlKey(&table.name));
        let fault = Fault::Value {
            value: Some(quoted(&table.name)),
            allowed,
        };
        self.problems.push(SettingsProblem {
            key,
            source: Source::ConfigFile,
            line: Some(table.line),
            fault,
        });
    }

    fn refuse(&mut self, given: Given, value: Option<String>, allowed: String) {
        let Given {
            key, source, line, ..
        } = given;
        self.problems.push(SettingsProblem {
            key,
            source,
            line,
            fault: Fault::Value { value, allowed },
        });
    }

    fn push_row(&mut self, key: impl Into<String>, value: RowValue, source: Source) {
        self.rows.push(Row {
            key: key.into(),
            value,
            source,
        });
    }

    /// What the strongest source says; an empty text is nothing, except as a flag.
    fn given(&self, field: &Field) -> Option<Given> {
        let flag = || {
            let name = field.flag?;
            let value = self.flags.value(name)?;
            Some(Given {
                key: name.to_owned(),
                source: Source::Flag,
                line: None,
                value: GivenValue::Untyped(value),
            })
        };
        let variable = || {
            let name = field.variable?;
            let value = GivenValue::Untyped(self.environment.value(name)?.to_owned());
            let source = Source::Environment;
            Some(Given {
                key: name.to_owned(),
                source,
                line: None,
                value,
            })
            .filter(|given| !given.value.is_empty())
        };
        let dotenv = || {
            let name = field.variable?;
            let Assigned { value, line } = self.dotenv.value(name)?;
            let value = GivenValue::Untyped(value.into());
            let source = Source::Dotenv;
            Some(Given {
                key: name.to_owned(),
                source,
                line: Some(*line),
                value,
            })
            .filter(|given| !given.value.is_empty())
        };
        let config = || {
            let located = self.config.value(field.key)?;
            Some(Given::in_file(field.key.to_owned(), located))
                .filter(|given| !given.value.is_empty())
        };
        flag().or_else(variable).or_else(dotenv).or_else(config)
    }
}

/// Whether a file may be missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    Fine,
    Problem,
}

impl Given {
    fn in_file(key: String, located: &Located) -> Self {
        let value = GivenValue::Toml(located.value.clone());
        Self {
            key,
            source: Source::ConfigFile,
            line: Some(located.line),
            value,
        }
    }
}

impl GivenValue {
    fn is_empty(&self) -> bool {
        self.as_text().is_some_and(OsStr::is_empty)
    }

    fn as_text(&self) -> Option<&OsStr> {
        match self {
            Self::Untyped(text) => Some(text),
            Self::Toml(TomlValue::Text(text)) => Some(text.as_ref()),
            Self::Toml(TomlValue::Integer(_) | TomlValue::Other(_)) => None,
        }
    }

    fn as_digits(&self) -> Option<&str> {
        match self {
            Self::Untyped(text) => text.to_str(),
            Self::Toml(TomlValue::Integer(digits)) => Some(digits),
            Self::Toml(TomlValue::Text(_) | TomlValue::Other(_)) => None,
        }
    }
}

impl fmt::Display for GivenValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untyped(text) => f.write_str(&quoted(&text.to_string_lossy())),
            Self::Toml(value) => value.fmt(f),
        }
    }
}
