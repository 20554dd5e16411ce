//! The owner of the server under test, at its command line: who approves a device.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::attack;
use crate::device::{Address, Device};
use crate::http::{self, Answer, Connection};
use crate::server::Server;

/// The server keeps no more requests than this.
const WAITING_MAX: usize = 8;

/// Has a device ask, and lets it in.
pub(crate) async fn approve(server: &Server, device: &Device) -> Result<()> {
    server.cli(&["devices", "open"]).await?;
    let nonce = nonce(server).await?;
    let asked = ask(server, device, &nonce, 0, Ipv4Addr::LOCALHOST).await?;
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

/// Approves many devices, and has each log in: their tokens, in their order.
///
/// # Errors
/// If one is not let in.
pub(crate) async fn let_in(server: &Server, devices: &[Device]) -> Result<Vec<String>> {
    server.cli(&["devices", "open"]).await?;
    for (turn, some) in devices.chunks(WAITING_MAX).enumerate() {
        let nonce = nonce(server).await?;
        // from everywhere: one address has only so many tries
        let from = attack::source(turn);
        let asking = some
            .iter()
            .map(|device| ask(server, device, &nonce, 0, from));
        let asked = try_join_all(asking).await?;
        for answer in asked {
            ensure!(
                answer.status == 403,
                "a device that is to wait was answered {}: {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        let pending: Value =
            serde_json::from_str(&server.cli(&["devices", "pending", "--json"]).await?)?;
        let rows = pending.as_array().context("no list of pending requests")?;
        for id in rows.iter().filter_map(|row| row.get("id")?.as_str()) {
            server.cli(&["devices", "approve", id]).await?;
        }
    }
    server.cli(&["devices", "close"]).await?;
    let nonce = nonce(server).await?;
    let mut tokens = Vec::new();
    for device in devices {
        let answer = ask(server, device, &nonce, 1, Ipv4Addr::LOCALHOST).await?;
        let body: Value = serde_json::from_slice(&answer.body)?;
        let token = body.get("token").and_then(Value::as_str);
        tokens.push(
            token
                .context("an approved device gets no token")?
                .to_owned(),
        );
    }
    Ok(tokens)
}

async fn ask(
    server: &Server,
    device: &Device,
    nonce: &str,
    number: usize,
    from: Ipv4Addr,
) -> Result<Answer> {
    let url = server.authenticate_url()?;
    let address = Address { url: &url, nonce };
    let login = device.login(&device.proof(&address, number));
    Connection::open(server.address()?, from)
        .await?
        .ask(&login)
        .await
}

/// A nonce that is good now.
pub(crate) async fn nonce(server: &Server) -> Result<String> {
    let get_server = http::request("GET", "/xrpc/xyz.groundmist.sync.getServer", &[], "");
    let mut connection = Connection::open(server.address()?, Ipv4Addr::LOCALHOST).await?;
    let answer = connection.ask(&get_server).await?;
    answer.nonce.context("the server gives no nonce")
}
