//! The file `.env`: assignments, one a line.
//!
//! ```text
//! # a comment
//! PORT=3031              # another
//! export DATA_DIR='/srv/ground mist'
//! GROUNDMIST_SYNC_LOG="debug"
//! ```
//!
//! What stands between single quotes is taken as it is; between double quotes `\n`, `\"`, `\\` and `\$` stand for what
//! they do in a shell; both kinds may go over several lines, because other programs' values in the same file do. Nothing
//! is substituted for `$NAME`: then a value would depend on the environment that it was written down to be independent
//! of. Of two assignments to one name the later counts.

use std::collections::BTreeMap;

/// What a `.env` file says.
#[derive(Default)]
pub(super) struct Dotenv {
    values: BTreeMap<String, Assigned>,
    /// Numbers of lines that are no assignments, ascending.
    pub(super) malformed: Vec<usize>,
}

/// A value and the line on which its assignment begins, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) value: String,
    pub(super) line: usize,
}

impl Dotenv {
    pub(super) fn parse(text: &str) -> Self {
        let mut dotenv = Self::default();
        let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut line = 1;
        while !rest.is_empty() {
            let (parsed, after) = statement(rest);
            match parsed {
                Statement::Nothing => {}
                Statement::Assignment { name, value } => {
                    dotenv
                        .values
                        .insert(name.to_owned(), Assigned { value, line });
                }
                Statement::Malformed => dotenv.malformed.push(line),
            }
            let before = rest.bytes().take(rest.len() - after.len());
            line += before.filter(|byte| *byte == b'\n').count();
            rest = after;
        }
        dotenv
    }

    pub(super) fn value(&self, name: &str) -> Option<&Assigned> {
        self.values.get(name)
    }
}

enum Statement<'text> {
    Nothing,
    Assignment { name: &'text str, value: String },
    Malformed,
}

/// The first statement, and the text after it.
fn statement(text: &str) -> (Statement<'_>, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return (Statement::Nothing, after);
    }
    match assignment(text) {
        Some((name, value, after)) => (Statement::Assignment { name, value }, after),
        None => (Statement::Malformed, after),
    }
}

/// Name, value, and the text after the last line of the value.
fn assignment(text: &str) -> Option<(&str, String, &str)> {
    let (name, text) = text.split_once('=')?;
    let name = name.trim();
    let name = name.strip_prefix("export ").unwrap_or(name).trim_start();
    let is_part = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.' | '-');
    if name.is_empty() || !name.chars().all(is_part) {
        return None;
    }
    let text = text.trim_start_matches([' ', '\t']);
    let (value, text) = match text.chars().next() {
        Some('\'') => text
            .get(1..)?
            .split_once('\'')
            .map(|(value, after)| (value.to_owned(), after))?,
        Some('"') => double_quoted(text.get(1..)?)?,
        _ => {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            return Some((name, without_comment(line).to_owned(), after));
        }
    };
    let (remainder, after) = text.split_once('\n').unwrap_or((text, ""));
    without_comment(remainder)
        .is_empty()
        .then_some((name, value, after))
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                char @ ('"' | '\\' | '$') => value.push(char),
                char => value.extend(['\\', char]),
            },
            char => value.push(char),
        }
    }
}

/// The line without a comment, which begins the line or follows a space.
fn without_comment(line: &str) -> &str {
    let mut after_space = true;
    for (at, char) in line.char_indices() {
        if char == '#' && after_space {
            return line.get(..at).unwrap_or_default().trim();
        }
        after_space = char.is_whitespace();
    }
    line.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str, name: &str) -> Option<String> {
        Dotenv::parse(text)
            .value(name)
            .map(|assigned| assigned.value.clone())
    }

    #[test]
    fn values_are_read_bare_and_quoted() {
        for (text, expected) in [
            ("A=b", "b"),
            ("A = b c \r\n", "b c"),
            ("export A=b", "b"),
            ("\u{feff}A=b", "b"),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A=# comment", ""),
            ("A=", ""),
            ("A=YQ==", "YQ=="),
            ("A='b # \\n $C' # comment", "b # \\n $C"),
            ("A=\"b # \\\"c\\\" \\$D \\\\ \\x\"", "b # \"c\" $D \\ \\x"),
            ("A=$HOME", "$HOME"),
            ("A=\"1\n2\\n3\"", "1\n2\n3"),
            ("A=1\nA=2", "2"),
        ] {
            assert_eq!(value(text, "A").as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_across_values_of_several_lines() {
        let dotenv = Dotenv::parse("# one\n\nA='\n\n'\nB=2\nnonsense\nC=3\n");
        let lines = ["A", "B", "C"].map(|name| dotenv.value(name).map(|assigned| assigned.line));
        assert_eq!(lines, [Some(3), Some(6), Some(8)]);
        assert_eq!(dotenv.malformed, [7]);
    }

    #[test]
    fn a_line_that_is_no_assignment_spoils_no_other() {
        for bad in [
            "nonsense",
            "A B=1",
            "=1",
            "A='1",
            "A=\"1",
            "A=\"1\" 2",
            "Ä=1",
            "export A B=1",
        ] {
            let dotenv = Dotenv::parse(&format!("{bad}\nB=2\n"));
            assert_eq!(dotenv.malformed, [1], "{bad}");
            assert_eq!(dotenv.value("A"), None, "{bad}");
            assert!(dotenv.value("B").is_some(), "{bad}");
        }
    }
}
