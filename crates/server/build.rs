//! Embeds the try-it page, if it has been built: `make page`. A build without it works, and says what it lacks.

use std::{env, fmt::Write, fs, io, path::Path};

const PAGE: &str = "../../clients/try-it/dist";

fn main() -> io::Result<()> {
    let root = env::var("CARGO_MANIFEST_DIR").map_err(io::Error::other)?;
    let page = Path::new(&root).join(PAGE);
    println!("cargo::rerun-if-changed={}", page.display());
    let mut files = vec![];
    if page.is_dir() {
        for entry in fs::read_dir(&page)? {
            let path = entry?.path();
            println!("cargo::rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
    files.sort();
    let mut table = String::from("pub(super) const FILES: &[(&str, &[u8])] = &[\n");
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(
            table,
            "    ({name:?}, include_bytes!({:?})),",
            path.display().to_string()
        )
        .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&out).join("try_it_files.rs"), table)
}
