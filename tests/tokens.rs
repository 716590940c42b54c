//! A live job whose API asks for tokens of a table: a row opens, its end closes, also after a kill.

use std::fs;

use crate::harness::{LiveProcess, free_addresses, read_text};
use crate::quotas::ask_as;
use crate::restart::Restarted;

const EDGE: &str = "edge-token-canary-4b1d";
/// The SHA-256 of the token, as `printf %s TOKEN | sha256sum` has it.
const EDGE_HASH: &str = "f4f5cb7b1e8d761a92bfb46324675f9f26feba793900f6297696c46d8c48ad7f";
const ACME: &str = "customer-token-canary-91";
const ACME_HASH: &str = "ed1d42233a539a40c794ddac8f07ab07c2f7dbf06799e0485533233c7ce5df31";

fn tokens(this: &Restarted, rows: &str) {
    let text = format!("token_hash,role,customer,expires_at\n{rows}");
    fs::write(this.job.path("tokens.csv"), text).unwrap();
}

/// Waits until the API answers so to the bearer of a token.
fn wait_for(live: &LiveProcess, api: &str, token: &str, status: u16) {
    let is_so = || {
        let (found, page) = ask_as(api, "GET", "/v1/status", (token, ""))?;
        assert!([200, 401].contains(&found), "{page}");
        (found == status).then_some(())
    };
    live.find(&format!("{status} is answered"), is_so).unwrap();
}

#[test]
fn a_row_of_a_token_opens_the_api_and_its_end_closes_it() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\nkey-1,sub-b\n");
    let api = free_addresses(1).remove(0);
    let more = format!(
        "checkpoint_every = \"1s\"\n[tables.tokens]\nkind = \"file\"\npath = \"tokens.csv\"\nformat = \"csv\"\n\
         [api]\nlisten = \"{api}\"\n"
    );
    this.configure(2, &more);
    let file = this.job.path("keytide.toml");
    let config = read_text(&file);
    fs::write(&file, config.replace("tick = \"50ms\"", "tick = \"50ms\"\nreload = \"1s\"")).unwrap();
    tokens(&this, "");
    this.send(70);
    let live = this.start();
    // An empty table lets nobody in, with or without a token.
    wait_for(&live, &api, "", 401);
    wait_for(&live, &api, EDGE, 401);
    let customer = format!("{ACME_HASH},consumer,Acme,\n");
    tokens(&this, &format!("{EDGE_HASH},check,,\n{customer}"));
    wait_for(&live, &api, EDGE, 200);
    wait_for(&live, &api, ACME, 200);
    let check = r#"{"subscription":"sub-b"}"#;
    assert_eq!(ask_as(&api, "POST", "/v1/check", (EDGE, check)).unwrap().0, 200);
    assert_eq!(ask_as(&api, "POST", "/v1/check", (ACME, check)).unwrap().0, 404);
    for (subscription, status) in [("sub-a", 200), ("sub-b", 404)] {
        let page = format!("/v1/subscriptions/{subscription}/quota");
        assert_eq!(ask_as(&api, "GET", &page, (ACME, "")).unwrap().0, status, "{subscription}");
    }
    this.wait(&live);
    live.signal("KILL");
    let (_, mut log) = live.end();

    // It is read again, though no checkpoint has it. A row that became bad opens nothing, and is one dead letter.
    let live = this.start();
    wait_for(&live, &api, EDGE, 200);
    tokens(&this, &format!("{EDGE_HASH},root,,\n{customer}"));
    wait_for(&live, &api, EDGE, 401);
    let letters = || (this.rows("dead_letters").len() == 1).then_some(());
    live.find("a dead letter", letters).unwrap();
    tokens(&this, &format!("{EDGE_HASH},check,,2100-01-01\n"));
    wait_for(&live, &api, EDGE, 200);
    wait_for(&live, &api, ACME, 401);
    tokens(&this, "");
    wait_for(&live, &api, EDGE, 401);
    log += &live.stop();
    for secret in [EDGE, ACME, EDGE_HASH, ACME_HASH] {
        assert!(!log.contains(secret), "a token or its hash is in the log");
    }
    assert_eq!(this.calls(), this.expected(), "the job itself went on");
}
