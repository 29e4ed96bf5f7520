//! Avro's binary encoding of plain values, for whoever writes a datum of a schema that it knows field by field.

/// Appends a `long`, an `int`, the place of an enum's symbol, of a union's branch, or the number of items in a block of an
/// array: zigzag, seven bits a byte, the lowest first.
pub fn long(out: &mut Vec<u8>, number: i64) {
    let mut bits = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while bits >= 0x80 {
        out.push((bits & 0x7f) as u8 | 0x80);
        bits >>= 7;
    }
    out.push((bits & 0x7f) as u8);
}

/// Appends the length of something in memory.
pub fn length(out: &mut Vec<u8>, length: usize) {
    long(out, i64::try_from(length).unwrap_or(i64::MAX));
}

/// Appends a `string`, of bytes that are UTF-8.
pub fn text(out: &mut Vec<u8>, text: &[u8]) {
    length(out, text.len());
    out.extend_from_slice(text);
}

/// Appends a union of null and something else, in this order.
pub fn optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => long(out, 0),
        Some(value) => {
            long(out, 1);
            put(out, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::{Schema, types::Value, writer::datum::GenericDatumWriter};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn writes_what_the_library_writes(
            number in prop_oneof![any::<i64>(), -200..200_i64],
            string in ".{0,100}",
            maybe in proptest::option::of(any::<i64>()),
        ) {
            let schema = Schema::parse_str(
                r#"{"type": "record", "name": "All", "fields": [
                    {"name": "number", "type": "long"},
                    {"name": "text", "type": "string"},
                    {"name": "maybe", "type": ["null", "long"]}
                ]}"#,
            )
            .unwrap();
            let branch = match maybe {
                None => Value::Union(0, Box::new(Value::Null)),
                Some(number) => Value::Union(1, Box::new(Value::Long(number))),
            };
            let value = Value::Record(vec![
                ("number".into(), Value::Long(number)),
                ("text".into(), Value::String(string.clone())),
                ("maybe".into(), branch),
            ]);
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            let expected = writer.write_value_to_vec(value).unwrap();
            let mut out = Vec::new();
            long(&mut out, number);
            text(&mut out, string.as_bytes());
            optional(&mut out, maybe, long);
            prop_assert_eq!(out, expected);
        }
    }
}
