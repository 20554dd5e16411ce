//! Which one is meant: ids on the command line.

use anyhow::{Result, bail};

use super::outside::identifier;

/// Fewest characters that an id may be shortened to.
const PREFIX_CHARS_MIN: usize = 4;

/// One of many by its id, or all of them.
#[derive(clap::Args)]
pub(super) struct OneOrAll {
    /// Its id, or the beginning of it: 4 characters or more
    // ids may begin with a hyphen
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        allow_hyphen_values = true
    )]
    pub(super) id: Option<String>,
    /// All that there are
    #[arg(long)]
    pub(super) all: bool,
}

/// What is looked for, in words, and where the owner finds the ids.
pub(super) struct Wanted {
    pub(super) what: &'static str,
    pub(super) shown_by: &'static str,
}

/// The one with this id, or the only one whose id begins so.
pub(super) fn choose<'a, T>(
    given: &str,
    among: &'a [T],
    id: impl Fn(&T) -> &str,
    wanted: &Wanted,
) -> Result<&'a T> {
    let Wanted { what, shown_by } = wanted;
    if let Some(exact) = among.iter().find(|one| id(one) == given) {
        return Ok(exact);
    }
    if given.chars().count() < PREFIX_CHARS_MIN {
        bail!("give at least {PREFIX_CHARS_MIN} characters of the id; {shown_by}");
    }
    let found: Vec<&T> = among
        .iter()
        .filter(|one| id(one).starts_with(given))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => bail!("there is no {what} {}; {shown_by}", identifier(given)),
        several => {
            let ids: Vec<_> = several.iter().map(|one| identifier(id(one))).collect();
            bail!(
                "{} may be any of these, give more of the id: {}",
                identifier(given),
                ids.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(given: &str) -> Result<&'static str, String> {
        const IDS: [&str; 4] = ["abcdefgh", "abcdefxy", "abcdef", "-abc-def"];
        let wanted = Wanted {
            what: "thing",
            shown_by: "`things` shows them",
        };
        choose(given, &IDS, |id| id, &wanted)
            .copied()
            .map_err(|problem| problem.to_string())
    }

    #[test]
    fn an_id_may_be_shortened_as_long_as_it_is_one() {
        assert_eq!(chosen("abcdefg"), Ok("abcdefgh"));
        assert_eq!(chosen("-abc"), Ok("-abc-def"));
        assert_eq!(chosen("abcdef"), Ok("abcdef"), "the whole id of one");
        assert!(
            chosen("abcde")
                .unwrap_err()
                .contains("abcdefgh, abcdefxy, abcdef")
        );
        assert!(chosen("abc").unwrap_err().contains("at least 4"));
        assert!(
            chosen("abcdefghi")
                .unwrap_err()
                .contains("no thing abcdefghi; `things`")
        );
    }
}
