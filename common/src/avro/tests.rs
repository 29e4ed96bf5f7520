//! Readers and writers of other versions, and bytes that are not what they claim to be.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::{
    DEAD_LETTER, DeadLetter, SITE_ATTACK_REPORT, SiteAttackReport, SiteAttackReportRead,
    SiteAttackVerdict,
};

fn report() -> SiteAttackReport {
    SiteAttackReport {
        object_id: "shop.example.com".into(),
        agent_id: "waf-1".into(),
        verdict: SiteAttackVerdict::UnderAttack,
        observed_at_ms: 1_700_000_000_000,
        sequence: 7,
        attack_kind: Some("http-flood".into()),
        requests_per_second: Some(1250.5),
        detail: None,
    }
}

/// The report schema after `change`, registered as 2.
fn other_version(change: impl FnOnce(&mut Vec<Value>)) -> Schema {
    let mut schema: Value = serde_json::from_str(SITE_ATTACK_REPORT).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    Schema::parse(2, &schema.to_string()).unwrap()
}

fn generic(value: &Value) -> apache_avro::types::Value {
    use apache_avro::types::Value as Avro;
    match value {
        Value::Null => Avro::Null,
        Value::Bool(b) => Avro::Boolean(*b),
        Value::Number(n) => n
            .as_i64()
            .map_or_else(|| Avro::Double(n.as_f64().unwrap()), Avro::Long),
        Value::String(s) => Avro::String(s.clone()),
        Value::Array(items) => Avro::Array(items.iter().map(generic).collect()),
        Value::Object(fields) => Avro::Map(
            fields
                .iter()
                .map(|(k, v)| (k.clone(), generic(v)))
                .collect(),
        ),
    }
}

/// Writes `value` with `schema`, as an agent of that version does.
fn written(schema: &Schema, value: &Value) -> Vec<u8> {
    let avro = generic(value).resolve(&schema.avro).unwrap();
    apache_avro::writer::datum::GenericDatumWriter::builder(&schema.avro)
        .build()
        .unwrap()
        .write_value_to_vec(avro)
        .unwrap()
}

fn decoder() -> Decoder<SiteAttackReport> {
    Decoder::new(SITE_ATTACK_REPORT).unwrap()
}

#[test]
fn what_is_encoded_decodes() {
    let schema = Arc::new(Schema::parse(258, SITE_ATTACK_REPORT).unwrap());
    let framed = Encoder::new(Arc::clone(&schema)).encode(&report()).unwrap();
    let (id, datum) = wire::split(&framed).unwrap();
    assert_eq!(id, 258);
    assert_eq!(decoder().decode(&schema, datum).unwrap(), report());
}

#[test]
fn the_fast_path_and_apache_avro_agree() {
    let schema = Schema::parse(1, SITE_ATTACK_REPORT).unwrap();
    let fast = Encoder::new(Arc::new(Schema::parse(1, SITE_ATTACK_REPORT).unwrap()));
    let value = serde_json::to_value(report()).unwrap();
    assert_eq!(
        fast.encode(&report()).unwrap()[wire::HEADER_LEN..],
        written(&schema, &value)
    );
}

#[test]
fn reads_an_older_agent() {
    // Version 0 knew nothing of kinds, rates and details.
    let older = other_version(|fields| fields.truncate(5));
    let mut value = serde_json::to_value(report()).unwrap();
    value
        .as_object_mut()
        .unwrap()
        .retain(|k, _| !["attack_kind", "requests_per_second", "detail"].contains(&k.as_str()));
    let read = decoder().decode(&older, &written(&older, &value)).unwrap();
    assert_eq!(read.sequence, 7);
    assert_eq!((read.attack_kind, read.requests_per_second), (None, None));
}

#[test]
fn reads_a_newer_agent() {
    let newer = other_version(|fields| {
        fields.insert(2, json!({"name": "region", "type": "string"}));
    });
    let mut value = serde_json::to_value(report()).unwrap();
    value["region"] = json!("eu-1");
    let read = decoder().decode(&newer, &written(&newer, &value)).unwrap();
    assert_eq!(read, report());
}

#[test]
fn a_verdict_that_we_do_not_know_does_not_resolve() {
    let newer = other_version(|fields| {
        fields[2]["type"]["symbols"] = json!(["CLEAR", "UNDER_ATTACK", "DEGRADED"]);
    });
    let mut value = serde_json::to_value(report()).unwrap();
    value["verdict"] = json!("DEGRADED");
    let error = decoder()
        .decode(&newer, &written(&newer, &value))
        .unwrap_err();
    assert!(matches!(error, Error::Unresolvable(_)), "{error}");
    value["verdict"] = json!("CLEAR");
    assert!(decoder().decode(&newer, &written(&newer, &value)).is_ok());
}

#[test]
fn cut_and_overlong_data_are_malformed() {
    let same = Schema::parse(1, SITE_ATTACK_REPORT).unwrap();
    let newer = other_version(|fields| {
        fields.push(json!({"name": "region", "type": "string"}));
    });
    let mut value = serde_json::to_value(report()).unwrap();
    value["region"] = json!("eu-1");
    for schema in [same, newer] {
        let datum = written(&schema, &value);
        for length in 0..datum.len() {
            let error = decoder().decode(&schema, &datum[..length]).unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{length}: {error}");
        }
        let overlong = [&datum[..], b"!"].concat();
        let error = decoder().decode(&schema, &overlong).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{error}");
    }
}

#[test]
fn bytes_stay_bytes() {
    let letter = DeadLetter {
        topic: "reports".into(),
        partition: 3,
        offset: 9,
        timestamp_ms: Some(1),
        reason: "malformed".into(),
        detail: "why".into(),
        key: None,
        value: Some(vec![0, 159, 146, 150]),
        failed_at_ms: 2,
    };
    let schema = Arc::new(Schema::parse(1, DEAD_LETTER).unwrap());
    let framed = Encoder::new(Arc::clone(&schema)).encode(&letter).unwrap();
    let datum = &framed[wire::HEADER_LEN..];
    let decoder = Decoder::<DeadLetter>::new(DEAD_LETTER).unwrap();
    assert_eq!(decoder.decode(&schema, datum).unwrap(), letter);
    // Apache Avro's own reader finds bytes there, not an array.
    let mut rest = datum;
    let value = apache_avro::reader::datum::GenericDatumReader::builder(&schema.avro)
        .build()
        .unwrap()
        .read_value(&mut rest)
        .unwrap();
    assert!(format!("{value:?}").contains("Bytes([0, 159, 146, 150])"));
}

/// As an owned report, to compare.
fn owned(read: SiteAttackReportRead<'_>) -> SiteAttackReport {
    SiteAttackReport {
        object_id: read.object_id.into(),
        agent_id: read.agent_id.into(),
        verdict: read.verdict,
        observed_at_ms: read.observed_at_ms,
        sequence: read.sequence,
        attack_kind: read.attack_kind.map(Into::into),
        requests_per_second: read.requests_per_second,
        detail: read.detail.map(Into::into),
    }
}

#[test]
fn a_report_can_be_read_without_copying_its_texts() {
    let same = Schema::parse(1, SITE_ATTACK_REPORT).unwrap();
    let newer = other_version(|fields| {
        fields.insert(2, json!({"name": "region", "type": "string"}));
    });
    let mut value = serde_json::to_value(report()).unwrap();
    value["region"] = json!("eu-1");
    for schema in [same, newer] {
        let datum = written(&schema, &value);
        let mut scratch = Vec::new();
        let read = decoder().read(&schema, &datum, &mut scratch).unwrap();
        assert_eq!(owned(read), report());
    }
}

#[test]
fn reports_are_plain_and_states_are_not() {
    assert!(Schema::parse(1, SITE_ATTACK_REPORT).unwrap().flat.is_some());
    assert!(
        Schema::parse(1, crate::schema::STATE)
            .unwrap()
            .flat
            .is_none()
    );
}

/// The fields of a report under the same names, in another order.
#[derive(Debug, serde::Deserialize)]
#[allow(dead_code)]
struct Shuffled {
    sequence: i64,
    detail: Option<String>,
    verdict: SiteAttackVerdict,
    object_id: String,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the bytes: read the short way and by `serde_avro_fast` they are the same, or wrong.
    #[test]
    fn plain_records_are_read_alike(
        texts in proptest::collection::vec(proptest::option::of("\\PC{0,70}"), 4),
        numbers in any::<(i64, i64, Option<f64>, bool)>(),
        shifts in (0..64_u32, 0..64_u32),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let text = |i: usize| texts[i].clone();
        let report = SiteAttackReport {
            object_id: text(0).unwrap_or_default(),
            agent_id: text(1).unwrap_or_default(),
            verdict: if numbers.3 { SiteAttackVerdict::Clear } else { SiteAttackVerdict::UnderAttack },
            observed_at_ms: numbers.0 >> shifts.0,
            sequence: numbers.1 >> shifts.1,
            attack_kind: text(2),
            requests_per_second: numbers.2,
            detail: text(3),
        };
        let schema = Arc::new(Schema::parse(1, SITE_ATTACK_REPORT).unwrap());
        let mut datum = Encoder::new(Arc::clone(&schema)).encode(&report).unwrap().split_off(wire::HEADER_LEN);
        for (at, byte) in changes {
            let at = at.index(datum.len());
            datum[at] = byte;
        }
        if let Some(cut) = cut {
            datum.truncate(cut.index(datum.len()));
        }
        // Compared as text: not a number is not itself.
        let show = |read: Result<SiteAttackReport, Error>| read.map(|r| format!("{r:?}")).ok();
        let expected = show(nested(&schema.fast, &datum));
        prop_assert_eq!(show(exact(&schema, &datum)), expected.clone());
        prop_assert_eq!(show(exact(&schema, &datum).map(owned)), expected);
        // `serde_avro_fast` takes any bytes for a text that nobody asked for.
        if show(exact(&schema, &datum)).is_some() {
            let shuffled = |read: Result<Shuffled, Error>| read.map(|r| format!("{r:?}")).ok();
            prop_assert_eq!(shuffled(exact(&schema, &datum)), shuffled(nested(&schema.fast, &datum)));
        }
    }
}
