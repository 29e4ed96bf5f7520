//! The schemas are a contract: a change must be seen, and every field must say what it means.

use std::{fs, path::Path};

use serde_json::Value;

use super::*;

const ALL: [(&str, &str); 6] = [
    ("state", STATE),
    ("set-state", SET_STATE),
    ("clear-override", CLEAR_OVERRIDE),
    ("delete-object", DELETE_OBJECT),
    ("dead-letter", DEAD_LETTER),
    ("site-attack-report", SITE_ATTACK_REPORT),
];

/// What others depend on is the canonical form. To accept a change: UPDATE_GOLDEN=1 cargo test -p common
#[test]
fn canonical_forms_are_as_agreed() {
    for (name, text) in ALL {
        let canonical = apache_avro::Schema::parse_str(text)
            .unwrap()
            .canonical_form();
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.canonical.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, format!("{canonical}\n")).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            golden.trim_end(),
            canonical,
            "{name}: the wire contract changed"
        );
    }
}

#[test]
fn every_record_enum_and_field_has_a_doc() {
    fn check(at: &str, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| check(at, item)),
            Value::Object(object) => {
                let name = object.get("name").and_then(Value::as_str).unwrap_or("?");
                let at = format!("{at}.{name}");
                if object.contains_key("name") {
                    let doc = object.get("doc").and_then(Value::as_str).unwrap_or("");
                    assert!(doc.len() > 3, "{at} has no doc");
                }
                for part in ["fields", "type", "items"] {
                    object
                        .get(part)
                        .into_iter()
                        .for_each(|inner| check(&at, inner));
                }
            }
            _ => {}
        }
    }
    for (name, text) in ALL {
        check(name, &serde_json::from_str(text).unwrap());
    }
}
