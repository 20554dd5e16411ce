//! `config.toml`: which of its values belong to which setting, and which to none.

use std::{collections::BTreeMap, fmt};

use toml::de::{DeInteger, DeTable, DeValue};

use super::{
    problem::{Fault, SettingsProblem, Source, nearest, quoted},
    table::{self, GROUPS, SECTIONS},
};

/// What a TOML file says.
#[derive(Default)]
pub(super) struct ConfigFile {
    values: BTreeMap<String, Located>,
    /// The tables of single groups, in the order of their names.
    pub(super) groups: Vec<GroupTable>,
    /// What is wrong with the file whatever its values are.
    pub(super) problems: Vec<SettingsProblem>,
}

/// A value and its line, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Located {
    pub(super) value: TomlValue,
    pub(super) line: usize,
}

/// A value, as far as settings have such.
#[derive(Debug, Clone)]
pub(super) enum TomlValue {
    Text(String),
    /// In decimal.
    Integer(String),
    /// A type that no setting has.
    Other(&'static str),
}

/// The table of one group.
#[derive(Debug)]
pub(super) struct GroupTable {
    /// As it is written in the file, which may not be a group at all.
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) announce: Option<Located>,
}

impl ConfigFile {
    /// Reads a file. If it is not TOML, that is all that is said about it.
    pub(super) fn parse(text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines(text);
        let mut file = Self::default();
        if errors.is_empty() {
            file.take_top(table.get_ref(), lines);
        }
        file.problems
            .extend(errors.iter().map(|error| malformed(error, lines)));
        file
    }

    pub(super) fn value(&self, key: &str) -> Option<&Located> {
        self.values.get(key)
    }

    fn take_top(&mut self, top: &DeTable<'_>, lines: Lines<'_>) {
        for (key, value) in top {
            let name = key.get_ref().as_ref();
            let line = lines.number(key.span().start);
            let section = SECTIONS.iter().find(|section| section.name == Some(name));
            match (section, value.get_ref()) {
                (Some(_), DeValue::Table(groups)) if name == GROUPS => {
                    self.take_groups(groups, lines)
                }
                (Some(_), DeValue::Table(section)) => self.take_section(name, section, lines),
                (Some(_), other) => self.wrong_type(name.to_owned(), other, line),
                (None, value) => self.take(None, name, value, line),
            }
        }
    }

    fn take_section(&mut self, section: &str, table: &DeTable<'_>, lines: Lines<'_>) {
        for (key, value) in table {
            let line = lines.number(key.span().start);
            self.take(Some(section), key.get_ref(), value.get_ref(), line);
        }
    }

    fn take(&mut self, section: Option<&str>, name: &str, value: &DeValue<'_>, line: usize) {
        let bare = TomlKey(name);
        let key = match section {
            Some(section) => format!("{section}.{bare}"),
            None => bare.to_string(),
        };
        if table::fields().any(|field| field.key == key) {
            self.values.insert(
                key,
                Located {
                    value: TomlValue::of(value),
                    line,
                },
            );
        } else {
            let nearest = nearest(&key);
            self.problems
                .push(problem(key, line, Fault::Unknown { nearest }));
        }
    }

    fn take_groups(&mut self, groups: &DeTable<'_>, lines: Lines<'_>) {
        for (key, value) in groups {
            let name = key.get_ref().as_ref();
            let line = lines.number(key.span().start);
            match value.get_ref().as_table() {
                Some(table) => self.take_group(name, line, table, lines),
                None => {
                    self.wrong_type(format!("{GROUPS}.{}", TomlKey(name)), value.get_ref(), line)
                }
            }
        }
    }

    fn take_group(&mut self, name: &str, line: usize, table: &DeTable<'_>, lines: Lines<'_>) {
        let path = format!("{GROUPS}.{}", TomlKey(name));
        if table.values().any(|value| value.get_ref().is_table()) {
            // A name without quotes makes a table of each of its parts.
            let value = Some("a table of tables".to_owned());
            let allowed =
                "the group's whole name in quotes, as in [groups.\"xyz.groundmist.library\"]"
                    .to_owned();
            self.problems
                .push(problem(path, line, Fault::Value { value, allowed }));
            return;
        }
        let mut group = GroupTable {
            name: name.to_owned(),
            line,
            announce: None,
        };
        for (key, value) in table {
            let line = lines.number(key.span().start);
            if key.get_ref() == "announce" {
                group.announce = Some(Located {
                    value: TomlValue::of(value.get_ref()),
                    line,
                });
            } else {
                let path = format!("{path}.{}", TomlKey(key.get_ref()));
                let nearest = Some("announce".to_owned());
                self.problems
                    .push(problem(path, line, Fault::Unknown { nearest }));
            }
        }
        self.groups.push(group);
    }

    fn wrong_type(&mut self, key: String, value: &DeValue<'_>, line: usize) {
        let value = Some(match TomlValue::of(value) {
            // it may be the password that belongs into the table
            TomlValue::Text(_) => "a text".to_owned(),
            other @ (TomlValue::Integer(_) | TomlValue::Other(_)) => other.to_string(),
        });
        let allowed = "a table".to_owned();
        self.problems
            .push(problem(key, line, Fault::Value { value, allowed }));
    }
}

fn problem(key: String, line: usize, fault: Fault) -> SettingsProblem {
    SettingsProblem {
        key,
        source: Source::ConfigFile,
        line: Some(line),
        fault,
    }
}

/// The parser's error without the text that it is about: that may be the secret key.
fn malformed(error: &toml::de::Error, lines: Lines<'_>) -> SettingsProblem {
    SettingsProblem {
        key: "config.toml".to_owned(),
        source: Source::ConfigFile,
        line: error.span().map(|span| lines.number(span.start)),
        fault: Fault::Malformed {
            expected: format!("not TOML: {}", error.message()),
        },
    }
}

impl TomlValue {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.clone().into_owned()),
            DeValue::Integer(integer) => whole(integer),
            DeValue::Float(_) => Self::Other("a number with a fraction"),
            DeValue::Boolean(true) => Self::Other("true"),
            DeValue::Boolean(false) => Self::Other("false"),
            DeValue::Datetime(_) => Self::Other("a date or time"),
            DeValue::Array(_) => Self::Other("an array"),
            DeValue::Table(_) => Self::Other("a table"),
        }
    }
}

/// What is no number after all, as the parser takes control characters behind digits, or a very long one, is not repeated.
fn whole(integer: &DeInteger<'_>) -> TomlValue {
    i128::from_str_radix(integer.as_str(), integer.radix()).map_or(
        TomlValue::Other("a whole number that cannot be read"),
        |number| TomlValue::Integer(number.to_string()),
    )
}

impl fmt::Display for TomlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Integer(digits) => f.write_str(digits),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// A key as TOML writes it: in quotes unless it can do without.
pub(super) struct TomlKey<'a>(pub(super) &'a str);

impl fmt::Display for TomlKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !self.0.is_empty() && self.0.bytes().all(is_bare) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

/// Finds the line of a place in a text.
#[derive(Clone, Copy)]
struct Lines<'text>(&'text str);

impl Lines<'_> {
    /// The number of the line that this byte is in, counted from 1.
    fn number(self, offset: usize) -> usize {
        1 + self
            .0
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    }
}
