//! Texts that come from outside, and the owner's terminal, which must not obey them.
//!
//! Names of apps and devices are their own claims. One that holds an escape sequence could rewrite the lines around it,
//! one that turns the direction of writing could make one address look like another, just where the owner decides.

use std::fmt::Write as _;

/// Longest name that is shown, in characters; what is behind that is cut off, visibly.
const NAME_CHARS_MAX: usize = 60;
/// Longest identifier that is shown, in characters: no address of an app that anybody can compare is longer.
const IDENTIFIER_CHARS_MAX: usize = 1_000;
/// How many characters of a fingerprint stand together.
const FINGERPRINT_CHARS: usize = 4;

/// A name that somebody gave themselves, in quotes: nothing in it is obeyed by a terminal, and it does not end before
/// its second quote.
pub(super) fn name(text: &str) -> String {
    let is_harmless = |char| is_harmless(char) && !matches!(char, '"' | '\\');
    format!("\"{}\"", shown(text, NAME_CHARS_MAX, is_harmless))
}

/// A name behind something else, if there is one.
pub(super) fn called(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(" {}", name(text)),
    }
}

/// An address, an origin, an id: only visible ASCII stays as it is, so that no two look the same.
pub(super) fn identifier(text: &str) -> String {
    shown(text, IDENTIFIER_CHARS_MAX, |char| char.is_ascii_graphic())
}

/// Words of the audit, which may repeat what somebody else said.
pub(super) fn words(text: &str) -> String {
    shown(text, IDENTIFIER_CHARS_MAX, is_harmless)
}

/// The thumbprint of a key, in pieces that can be compared by eye.
pub(super) fn fingerprint(thumbprint: &str) -> String {
    let chars: Vec<char> = identifier(thumbprint).chars().collect();
    let pieces: Vec<String> = chars
        .chunks(FINGERPRINT_CHARS)
        .map(|piece| piece.iter().collect())
        .collect();
    pieces.join(" ")
}

/// A text in JSON whose strings hold nothing that a terminal obeys; what they stand for is the same.
pub(super) fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_harmless(char) || char == '\n' {
            out.push(char);
            continue;
        }
        // outside of strings JSON is ASCII, so this is within one
        for unit in char.encode_utf16(&mut [0; 2]) {
            escape(&mut out, format_args!("\\u{unit:04x}"));
        }
    }
    out
}

/// Whether a terminal shows this as a sign or a blank, where it stands, and does nothing else.
fn is_harmless(char: char) -> bool {
    // as Unicode has them: what is not seen, what turns the direction of writing, and blanks of other widths
    let invisible = matches!(
        u32::from(char),
        0xAD | 0x34F | 0x61C | 0x115F | 0x1160 | 0x17B4 | 0x17B5 | 0x180B..=0x180F | 0x200B..=0x200F
            | 0x202A..=0x202E | 0x2060..=0x206F | 0x2800 | 0x3164 | 0xFEFF | 0xFFA0
            | 0xFFF0..=0xFFFB | 0x1_BCA0..=0x1_BCA3 | 0x1_D173..=0x1_D17A | 0xE_0000..=0xE_0FFF
    );
    char == ' ' || !(char.is_control() || char.is_whitespace() || invisible)
}

fn shown(text: &str, chars_max: usize, is_harmless: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    for char in chars.by_ref().take(chars_max) {
        if is_harmless(char) {
            out.push(char);
        } else {
            escape(&mut out, format_args!("{}", char.escape_unicode()));
        }
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

#[expect(clippy::expect_used, reason = "a String takes whatever is written")]
fn escape(out: &mut String, escaped: std::fmt::Arguments<'_>) {
    out.write_fmt(escaped)
        .expect("a String takes whatever is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a terminal may obey, and what cannot be seen.
    const HOSTILE: [char; 16] = [
        '\0',
        '\u{7}',
        '\u{8}',
        '\t',
        '\n',
        '\r',
        '\u{1b}',
        '\u{7f}',
        '\u{85}',
        '\u{9b}',
        '\u{a0}',
        '\u{200b}',
        '\u{202e}',
        '\u{2028}',
        '\u{2066}',
        '\u{e0041}',
    ];

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        for char in HOSTILE {
            let text = format!("a{char}b");
            for shown in [name(&text), identifier(&text), words(&text)] {
                assert!(!shown.contains(char), "{shown:?}");
                assert!(shown.contains("\\u{"), "{shown:?}");
            }
        }
        let all: String = (0..=0x10_FFFF).filter_map(char::from_u32).collect();
        for shown in [
            json(&all),
            all.chars().map(|char| name(&char.to_string())).collect(),
        ] {
            assert!(shown.chars().all(|char| char == '\n' || is_harmless(char)));
        }
        assert_eq!(name("\u{1b}[2Jgone"), "\"\\u{1b}[2Jgone\"");
    }

    #[test]
    fn a_name_keeps_its_letters_and_stays_within_its_quotes() {
        assert_eq!(name("Zoë's 本 👍"), "\"Zoë's 本 👍\"");
        assert_eq!(name("x\" y"), "\"x\\u{22} y\"");
        assert_eq!(name("\\u{1b}"), "\"\\u{5c}u{1b}\"");
    }

    #[test]
    fn letters_that_look_like_others_show_in_an_identifier() {
        assert_eq!(
            identifier("https://аpp.example"),
            "https://\\u{430}pp.example"
        );
        assert_eq!(identifier("https://app.example"), "https://app.example");
    }

    #[test]
    fn long_names_are_cut_and_that_is_seen() {
        assert_eq!(name(&"a".repeat(60)).chars().count(), 62);
        let cut = name(&"ä".repeat(100_000));
        assert!(cut.ends_with("ä…\"") && cut.chars().count() == 63);
    }

    #[test]
    fn what_json_stands_for_stays_the_same() {
        let text: String = HOSTILE.iter().chain(&['é', '👍', '"', '\\']).collect();
        let written = json(&serde_json::to_string(&text).unwrap());
        assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
    }

    #[test]
    fn a_fingerprint_is_shown_in_fours() {
        assert_eq!(fingerprint("abcdefghij"), "abcd efgh ij");
    }
}
