use super::*;
use crate::mail::tests::state;

#[test]
fn transitions_match() {
    // Transition, verdict before, verdict now.
    let cases = [
        ("* -> *", Some("CLEAR"), "UNDER_ATTACK", true),
        ("* -> *", None, "UNDER_ATTACK", false),
        ("NEW -> *", None, "UNDER_ATTACK", true),
        ("NEW -> *", Some("CLEAR"), "UNDER_ATTACK", false),
        ("NEW -> CLEAR", None, "UNDER_ATTACK", false),
        ("* -> UNDER_ATTACK", Some("CLEAR"), "UNDER_ATTACK", true),
        (
            "* -> UNDER_ATTACK",
            Some("UNDETERMINED"),
            "UNDER_ATTACK",
            true,
        ),
        ("* -> UNDER_ATTACK", Some("UNDER_ATTACK"), "CLEAR", false),
        ("UNDER_ATTACK -> *", Some("UNDER_ATTACK"), "CLEAR", true),
        ("UNDER_ATTACK -> *", Some("CLEAR"), "UNDETERMINED", false),
        ("UNDER_ATTACK -> *", None, "CLEAR", false),
        ("CLEAR->UNDER_ATTACK", Some("CLEAR"), "UNDER_ATTACK", true),
        (
            "  CLEAR  ->  UNDER_ATTACK ",
            Some("UNDETERMINED"),
            "UNDER_ATTACK",
            false,
        ),
    ];
    for (text, previous, verdict, expected) in cases {
        let transition: Transition = text.parse().unwrap();
        assert_eq!(
            transition.matches(previous, verdict),
            expected,
            "{text}: {previous:?} to {verdict}"
        );
    }
    for bad in [
        "",
        "CLEAR",
        "->",
        "CLEAR -> ",
        "CLEAR -> NEW",
        "A B -> C",
        "* -> **",
    ] {
        assert!(bad.parse::<Transition>().is_err(), "{bad}");
    }
}

const FILE: &str = r#"
    [[routes]]
    name = "attacks on shops"
    recipients = ["Shops <shops@example.com>", "ops@example.com"]
    objects = ["shop-*.example.com", "checkout.example.com"]
    transitions = ["* -> UNDER_ATTACK", "NEW -> UNDER_ATTACK"]

    [[routes]]
    name = "everything"
    recipients = ["ops@example.com"]
"#;

#[test]
fn recipients_are_found_once() {
    let routes = Routes::new(parse(FILE).unwrap());
    let both = vec!["ops@example.com", "shops@example.com"];
    let cases = [
        (
            "shop-1.example.com",
            Some("CLEAR"),
            "UNDER_ATTACK",
            both.clone(),
        ),
        ("checkout.example.com", None, "UNDER_ATTACK", both),
        (
            "shop-1.example.com",
            Some("UNDER_ATTACK"),
            "CLEAR",
            vec!["ops@example.com"],
        ),
        (
            "blog.example.com",
            Some("CLEAR"),
            "UNDER_ATTACK",
            vec!["ops@example.com"],
        ),
        ("blog.example.com", None, "UNDER_ATTACK", vec![]),
        // Another version of the same verdict: an override was set that agrees with the vote.
        (
            "shop-1.example.com",
            Some("UNDER_ATTACK"),
            "UNDER_ATTACK",
            vec![],
        ),
    ];
    for (object, previous, verdict, expected) in cases {
        let mut state = state();
        state.object_id = object.to_owned();
        state.previous_verdict = previous.map(str::to_owned);
        state.verdict = verdict.to_owned();
        let found: Vec<String> = routes
            .recipients(&state)
            .iter()
            .map(|mailbox| mailbox.email.to_string())
            .collect();
        assert_eq!(found, expected, "{object}: {previous:?} to {verdict}");
    }
}

#[test]
fn says_all_that_is_wrong_with_a_file() {
    let mistakes = parse(
        r#"
        colour = "blue"
        [[routes]]
        name = "a"
        recipients = ["nobody", "a@example.com"]
        objects = ["[z"]
        transitions = ["CLEAR"]
        [[routes]]
        name = "a"
        recipients = []
        [[routes]]
        name = "b"
        recipient = ["b@example.com"]
    "#,
    )
    .unwrap_err();
    let expected = [
        "there is no setting \"colour\"",
        "route \"a\": recipients: \"nobody\" is no mail address",
        "route \"a\": transitions: \"CLEAR\" is no transition",
        "route \"a\": objects: error parsing glob '[z'",
        "route 2: there is another named \"a\"",
        "route \"a\": recipients: there must be at least one",
        "route 3: ",
    ];
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.starts_with(expected), "{mistake}");
    }
    assert_eq!(parse("").unwrap_err(), ["there is no [[routes]]"]);
    assert!(parse("routes = 1").is_err());
    assert!(parse("[[routes").is_err());
}

#[test]
fn the_shipped_example_is_good() {
    let routes = parse(include_str!("../../routes.example.toml")).unwrap();
    let names: Vec<&str> = routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["shops", "agents", "on call"]);
    let mut state = state();
    state.object_id = "eu.shop.example.com".to_owned();
    assert_eq!(Routes::new(routes).recipients(&state).len(), 2);
}
