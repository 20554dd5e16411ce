//! What the project's pages name exists: paths, links, and the tests that `SECURITY.md` calls to witness.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The pages in the root whose links are followed, besides those in `docs`.
const PAGES: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below a folder whose names end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    // a folder that cannot be read has no files, which the tests notice
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// What stands between backticks, blocks of code excepted.
fn code_spans(page: &str) -> Vec<&str> {
    let mut in_fence = false;
    let mut was_blank_or_code = true;
    let prose = page.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_fence ^= fence;
        // an indented line within a paragraph is a part of it
        let code = fence || in_fence || (was_blank_or_code && line.starts_with("    "));
        was_blank_or_code = code || line.is_empty();
        !code
    });
    prose
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// Whether a piece of code is meant as a path in the repository.
fn is_path(code: &str) -> bool {
    let chars = |char: char| char.is_ascii_alphanumeric() || "/._-".contains(char);
    let file = [".rs", ".md", ".toml", ".js"]
        .iter()
        .any(|ending| code.ends_with(ending));
    code.chars().all(chars) && !code.starts_with('/') && (code.contains('/') || file)
}

/// The targets of a page's links to other files, without their fragments.
fn links(page: &str) -> Vec<&str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .filter_map(|target| target.split('#').next())
        .collect()
}

#[test]
fn every_path_in_the_architecture_exists() {
    let page = page("ARCHITECTURE.md");
    let paths: Vec<_> = code_spans(&page)
        .into_iter()
        .filter(|code| is_path(code))
        .collect();
    assert!(paths.len() > 30, "only these look like paths: {paths:?}");
    let missing: Vec<_> = paths
        .iter()
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what does not exist: {missing:?}"
    );
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages: Vec<_> = PAGES.iter().map(|name| root().join(name)).collect();
    pages.extend(files(&root().join("docs"), ".md"));
    let (mut followed, mut broken) = (0, vec![]);
    for path in pages {
        let text = page(&path);
        for link in links(&text) {
            followed += 1;
            if !path.parent().unwrap().join(link).exists() {
                broken.push(format!("{} -> {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these lead nowhere: {broken:#?}");
    assert!(followed > 15, "only {followed} links were found");
}

#[test]
fn every_test_that_the_pages_on_security_name_exists() {
    let all = |folders: &[&str], ending| -> String {
        let found = folders
            .iter()
            .map(|folder| files(&root().join(folder), ending));
        found.flatten().map(page).collect()
    };
    let sources = all(&["crates"], ".rs");
    let cases = all(
        &[
            "conformance/tests",
            "conformance/pds/tests",
            "conformance/proxies",
        ],
        ".js",
    );
    for name in ["SECURITY.md", "docs/threats.md"] {
        let text = page(name);
        let (tests, others): (Vec<_>, Vec<_>) = code_spans(&text)
            .into_iter()
            .partition(|code| is_test_name(code));
        assert!(tests.len() > 15, "only these look like tests: {tests:?}");
        let missing: Vec<_> = tests
            .iter()
            .filter(|test| !sources.contains(&format!("fn {test}(")))
            .collect();
        assert!(
            missing.is_empty(),
            "{name} names tests that do not exist: {missing:#?}"
        );
        let quoted = others
            .iter()
            .filter_map(|code| code.strip_prefix('"')?.strip_suffix('"'));
        for case in quoted {
            assert!(
                cases.contains(case),
                "{name}: no conformance case is called {case:?}"
            );
        }
    }
}

#[test]
fn every_close_that_the_server_tells_a_socket_stands_on_the_page_of_the_protocol() {
    let protocol = page("docs/protocol.md");
    let sources =
        ["socket.rs", "group.rs"].map(|name| page(format!("crates/server/src/sync/{name}")));
    let mut closes = 0;
    // (1001, "why")
    for rest in sources
        .iter()
        .flat_map(|source| source.split("(10").skip(1))
    {
        let Some((digits, rest)) = rest.split_once(", \"") else {
            continue;
        };
        let Some((why, _)) = rest.split_once("\")") else {
            continue;
        };
        if digits.len() == 2
            && digits.bytes().all(|digit| digit.is_ascii_digit())
            && !why.contains('"')
        {
            closes += 1;
            let row = format!("\n| 10{digits} | {why} |");
            assert!(protocol.contains(&row), "there is no row {row}");
        }
    }
    assert!(closes >= 6, "only {closes} were found");
}

#[test]
fn every_bug_that_the_simulator_plants_stands_on_the_page_of_proof_with_its_seed() {
    let (source, page) = (page("crates/sim/src/planted.rs"), page("docs/proof.md"));
    let mut bugs = 0;
    for bug in source.split("\n    planted(\n").skip(1) {
        // its name, itself, its seed
        let fields: Vec<_> = bug
            .lines()
            .map(|line| line.trim().trim_matches(&['"', ','][..]))
            .take(3)
            .collect();
        let [name, _, seed] = fields[..] else {
            panic!("{bug}")
        };
        let is_its_row = |row: &str| {
            row.starts_with(&format!("| `{name}` |")) && row.ends_with(&format!("| {seed} |"))
        };
        assert!(page.lines().any(is_its_row), "{name}, found at seed {seed}");
        bugs += 1;
    }
    assert!(bugs > 10, "{bugs}");
}

/// By default systemd stops a service of which the kernel has ended any process for want of memory: and the worker is the
/// first that it ends, so that the server goes on.
#[test]
fn the_unit_does_not_stop_the_server_for_a_worker_that_was_ended_for_want_of_memory() {
    let unit = page("deploy/groundmist-sync.service");
    assert!(unit.lines().any(|line| line == "OOMPolicy=continue"));
}

/// Whether a piece of code is the name of a test: they are sentences.
fn is_test_name(code: &str) -> bool {
    code.matches('_').count() >= 3
        && code
            .chars()
            .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
}
