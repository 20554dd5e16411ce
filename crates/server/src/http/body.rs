//! Bodies of requests: bounded in length and in time.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use tokio::time::timeout;

/// How long a body may take to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// A body of at most so many bytes; nothing if it is longer, or does not come in time.
pub(super) async fn read(body: Body, bytes_max: usize) -> Option<Bytes> {
    timeout(BODY_TIME_MAX, to_bytes(body, bytes_max))
        .await
        .ok()?
        .ok()
}
