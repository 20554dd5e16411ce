use super::{
    super::fake::{Fake, Reply, did_document, name_server},
    *,
};

const ALICE: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
const BOB: &str = "did:plc:z72i7hdynmk6r22z27h6tvur";

/// What comes of looking up alice.test: in these TXT records, on this web server, with documents that claim `claimed`.
async fn find(records: &[&str], web: Reply, claimed: &'static str) -> Result<Account, HandleError> {
    let records: Vec<_> = records
        .iter()
        .map(|text| ("_atproto.alice.test", *text))
        .collect();
    let dns = name_server(&records).await;
    let web = Fake::always(web).await;
    let plc =
        Fake::start(move |path| Reply::json(&did_document(path.trim_start_matches('/'), claimed)))
            .await;
    let host_map = format!("https://alice.test={}", web.origin);
    let outbound = Arc::new(Outbound::new(host_map.parse().unwrap()).unwrap());
    let dids = DidResolver::new(Arc::clone(&outbound), plc.origin.clone(), Loopback::Refused);
    let handles = HandleResolver::new(outbound, Some(dns)).unwrap();
    handles.account(&"alice.test".parse().unwrap(), &dids).await
}

async fn found(records: &[&str], web: Reply) -> Result<String, HandleError> {
    let account = find(records, web, "alice.test").await?;
    assert_eq!(account.document.did(), &account.did);
    Ok(account.did.to_string())
}

fn nothing() -> Reply {
    Reply::with("404 Not Found", "")
}

fn text(did: &str) -> Reply {
    Reply::ok("text/plain", did)
}

fn record(did: &str) -> String {
    format!("did={did}")
}

#[tokio::test]
async fn a_handle_is_found_by_dns_or_by_its_web_server_or_by_both() {
    let dns = record(ALICE);
    assert_eq!(found(&[&dns], nothing()).await.unwrap(), ALICE);
    assert_eq!(found(&[], text(ALICE)).await.unwrap(), ALICE);
    assert_eq!(found(&[&dns], text(ALICE)).await.unwrap(), ALICE);
    assert_eq!(
        found(&[], text(&format!("\n {ALICE}\r\n"))).await.unwrap(),
        ALICE
    );
}

#[tokio::test]
async fn a_record_in_pieces_is_put_together_and_others_are_passed_over() {
    let pieces = format!("did=did:plc|{}", ALICE.strip_prefix("did:plc").unwrap());
    let records = ["v=spf1 -all", "did=nonsense", &pieces, &record(ALICE)];
    assert_eq!(found(&records, nothing()).await.unwrap(), ALICE);
}

#[tokio::test]
async fn two_answers_that_disagree_are_none() {
    let outcome = found(&[&record(ALICE)], text(BOB)).await;
    let Err(HandleError::Disagree { dns, web, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((dns.as_str(), web.as_str()), (ALICE, BOB));
    let outcome = found(&[&record(ALICE), &record(BOB)], text(ALICE)).await;
    assert!(
        matches!(outcome, Err(HandleError::Several(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_handle_that_its_account_does_not_claim_is_refused() {
    let outcome = find(&[&record(ALICE)], nothing(), "mallory.test").await;
    assert!(
        matches!(outcome, Err(HandleError::NotClaimed { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_handle_without_an_answer_is_told_with_both_reasons() {
    let outcome = found(&[], nothing()).await;
    let Err(error @ HandleError::Unknown { .. }) = outcome else {
        panic!("{outcome:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains("no TXT record with a DID") && text.contains("status 404"),
        "{text}"
    );
}

#[tokio::test]
async fn what_is_no_did_at_the_web_server_is_no_answer() {
    let long = format!("{ALICE}{}", " ".repeat(TEXT_BYTES_MAX));
    let two = format!("{ALICE}\n{BOB}");
    for body in ["", "<html></html>", "did:key:abc", &long, &two] {
        let outcome = found(&[], text(body)).await;
        assert!(
            matches!(outcome, Err(HandleError::Unknown { .. })),
            "{outcome:?}"
        );
    }
    let head = format!("302 Found\r\nLocation: https://bob.test/\r\nX: {ALICE}");
    let outcome = found(&[], Reply::with(&head, ALICE)).await;
    assert!(
        matches!(outcome, Err(HandleError::Unknown { .. })),
        "{outcome:?}"
    );
}
