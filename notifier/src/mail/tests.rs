use std::path::Path;

use common::schema::{Override, Vote};

use super::*;

const SINCE: i64 = 1_769_860_800_250;

/// shop.example.com has just come under attack.
pub(crate) fn state() -> State {
    let vote = |agent: &str, verdict: &str, before: i64| Vote {
        agent_id: agent.to_owned(),
        verdict: verdict.to_owned(),
        weight: 1,
        observed_at_ms: SINCE - before,
        sequence: 7,
    };
    State {
        object_id: "shop.example.com".to_owned(),
        scenario: "site-attack".to_owned(),
        verdict: "UNDER_ATTACK".to_owned(),
        previous_verdict: Some("CLEAR".to_owned()),
        basis: Basis::Votes,
        cause: Cause::Vote,
        since_ms: SINCE,
        version: 3,
        votes: vec![
            vote("agent-01", "UNDER_ATTACK", 12),
            vote("agent-02-frankfurt", "UNDER_ATTACK", 1_500),
            vote("agent-03", "CLEAR", 42_000),
        ],
        override_: None,
    }
}

fn overridden() -> State {
    State {
        verdict: "CLEAR".to_owned(),
        previous_verdict: Some("UNDER_ATTACK".to_owned()),
        basis: Basis::Override,
        cause: Cause::Override,
        version: 4,
        override_: Some(Override {
            verdict: "CLEAR".to_owned(),
            operator: Some("Zoë".to_owned()),
            note: Some("a load test, <not> an attack".to_owned()),
            set_at_ms: SINCE - 5,
            expires_at_ms: Some(SINCE + 3_600_000),
        }),
        ..state()
    }
}

fn silent() -> State {
    State {
        verdict: "UNDETERMINED".to_owned(),
        previous_verdict: None,
        basis: Basis::NoQuorum,
        cause: Cause::Expiry,
        version: 1,
        votes: Vec::new(),
        ..state()
    }
}

/// Everything from outside tries to break out.
fn hostile() -> State {
    let evil = "x\r\nBcc: victim@example.com\r\n\r\n<script>alert(1)</script>\u{202e}";
    let mut state = state();
    state.object_id = evil.to_owned();
    state.verdict = evil.to_owned();
    state.previous_verdict = Some(evil.to_owned());
    state.scenario = evil.to_owned();
    state.votes[0].agent_id = evil.to_owned();
    state.votes[0].verdict = evil.to_owned();
    state.override_ = Some(Override {
        verdict: evil.to_owned(),
        operator: Some(evil.to_owned()),
        note: Some(evil.repeat(50)),
        set_at_ms: i64::MAX,
        expires_at_ms: Some(i64::MIN),
    });
    state
}

fn writer() -> Writer {
    let from = "Site attack <site-attack@example.com>".parse().unwrap();
    Writer::new("site-attack", from).unwrap()
}

fn to() -> Mailbox {
    "On call <on-call@example.com>".parse().unwrap()
}

#[test]
fn mails_are_as_checked_in() {
    let cases = [
        ("under-attack", state()),
        ("override", overridden()),
        ("first-state", silent()),
        ("hostile", hostile()),
    ];
    for (name, state) in cases {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.eml"));
        let mail = writer().write(&state, &to()).unwrap();
        // Checked in with plain line ends, which git does not touch.
        let shown = String::from_utf8(mail.bytes).unwrap().replace("\r\n", "\n");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &shown).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            shown, golden,
            "{name}: UPDATE_GOLDEN=1 cargo test writes it anew"
        );
    }
}

#[test]
fn subjects_name_object_verdict_and_the_one_before() {
    let subject = |state: State| writer().write(&state, &to()).unwrap().subject;
    assert_eq!(
        subject(state()),
        "[site-attack] shop.example.com is UNDER_ATTACK (was CLEAR)"
    );
    assert_eq!(
        subject(silent()),
        "[site-attack] shop.example.com is UNDETERMINED"
    );
}

#[test]
fn the_same_transition_makes_the_same_mail_and_any_other_another() {
    let id = |state: &State, to: &Mailbox| writer().write(state, to).unwrap().message_id;
    let first = id(&state(), &to());
    assert_eq!(first, id(&state(), &to()));
    // Written down: a resend after an upgrade must be recognised too.
    assert_eq!(first, "<45bf93bc-3207-537e-bccf-caef082dd5ef@example.com>");
    let other = "else@example.com".parse().unwrap();
    let versions = State {
        version: 4,
        ..state()
    };
    let later = State {
        since_ms: SINCE + 1,
        ..state()
    };
    let object = State {
        object_id: "a".into(),
        ..state()
    };
    let app = Writer::new("other", to()).unwrap();
    let all = [
        first,
        id(&state(), &other),
        id(&versions, &to()),
        id(&later, &to()),
        id(&object, &to()),
        app.write(&state(), &to()).unwrap().message_id,
    ];
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:#?}");
}

#[test]
fn text_from_outside_breaks_no_header_and_no_line() {
    let mail = writer().write(&hostile(), &to()).unwrap();
    assert!(
        !mail.subject.chars().any(char::is_control),
        "{:?}",
        mail.subject
    );
    let text = String::from_utf8(mail.bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let names: Vec<&str> = head
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split_once(':').unwrap().0)
        .collect();
    let expected = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "References",
        "MIME-Version",
        "Content-Type",
        "Auto-Submitted",
    ];
    for name in &names {
        assert!(expected.contains(name), "{name} in {head}");
    }
    assert!(!body.contains("\nBcc:"), "{body}");
    let (_, html) = body.split_once("text/html").unwrap();
    let html = html.replace("=\r\n", "");
    assert!(!html.contains("<script>"), "{html}");
    assert_eq!(mail.envelope.to().len(), 1);
    assert_eq!(mail.envelope.to()[0].to_string(), "on-call@example.com");
}

#[test]
fn many_votes_are_counted_not_listed() {
    let mut state = state();
    state.votes = vec![state.votes[0].clone(); 1_000];
    let mail = writer().write(&state, &to()).unwrap();
    let text = String::from_utf8(mail.bytes).unwrap();
    assert!(text.contains("... and 950 more"));
}

#[test]
fn strange_times_are_no_reason_to_fall_over() {
    for since_ms in [i64::MIN, -1, 0, 253_402_300_800_000, i64::MAX] {
        let state = State {
            since_ms,
            ..state()
        };
        assert!(writer().write(&state, &to()).is_ok(), "{since_ms}");
    }
    assert_eq!(seconds(-1), "-0.001 s");
    assert_eq!(seconds(61_500), "61.500 s");
}
