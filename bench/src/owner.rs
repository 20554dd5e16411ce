//! The owner of the server under test, at its command line: who approves a device.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::device::{Address, Device};
use crate::http::{self, Answer, Connection};
use crate::server::Server;

/// Has a device ask, and lets it in.
pub(crate) async fn approve(server: &Server, device: &Device) -> Result<()> {
    server.cli(&["devices", "open"]).await?;
    let nonce = nonce(server).await?;
    let url = server.authenticate_url()?;
    let address = Address {
        url: &url,
        nonce: &nonce,
    };
    let asked = once(server, &device.login(&device.proof(&address, 0))).await?;
    ensure!(
        asked.status == 403,
        "a device that is to ask was answered {}: {}",
        asked.status,
        String::from_utf8_lossy(&asked.body)
    );
    let pending: Value =
        serde_json::from_str(&server.cli(&["devices", "pending", "--json"]).await?)?;
    let rows = pending.as_array().context("no list of pending requests")?;
    let id = rows.iter().find_map(|row| {
        let is_its = row.get("fingerprint")?.as_str()? == device.fingerprint();
        row.get("id")?.as_str().filter(|_| is_its)
    });
    let id = id.context("the device's request is not there")?;
    server.cli(&["devices", "approve", id]).await?;
    server.cli(&["devices", "close"]).await?;
    Ok(())
}

/// A nonce that is good now.
pub(crate) async fn nonce(server: &Server) -> Result<String> {
    let get_server = http::request("GET", "/xrpc/xyz.groundmist.sync.getServer", &[], "");
    let answer = once(server, &get_server).await?;
    answer.nonce.context("the server gives no nonce")
}

async fn once(server: &Server, request: &[u8]) -> Result<Answer> {
    let mut connection = Connection::open(server.address()?, Ipv4Addr::LOCALHOST).await?;
    connection.ask(request).await
}
