//! The pages that are part of the binary.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

include!(concat!(env!("OUT_DIR"), "/try_it_files.rs"));

/// What a browser sees at `/`.
pub(super) const GREETING_PAGE: &str = concat!(
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">",
    "<meta name=\"viewport\" content=\"width=device-width\"><title>Groundmist sync</title>",
    "<style>body{font:1.1rem/1.6 system-ui;max-width:34rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}",
    "</style><h1>👍 Groundmist personal sync server is running</h1>",
    "<p>Apps that its owner has let in keep their documents in step through it. ",
    "There is nothing to see here for a browser.</p></html>\n",
);

/// Only what the page brings along runs on it, and it talks to this server alone.
const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What `/try/` says when the page was not there at build time.
const LACKS_PAGE: &str = "This build of groundmist-sync lacks the try-it page. To have it, run `make page` (it needs Node \
                          and npm) and build again. Sync works without it.\n";

pub(super) async fn named_file(Path(name): Path<String>) -> Response {
    file(&name)
}

/// A file of the try-it page.
pub(super) fn file(name: &str) -> Response {
    if FILES.is_empty() {
        return (StatusCode::NOT_FOUND, LACKS_PAGE).into_response();
    }
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
        return (StatusCode::NOT_FOUND, "not found\n").into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, content_type(name)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // the binary may be another one tomorrow
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, *bytes).into_response()
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
