//! Reads records of plain fields: texts, numbers, enums, each of them perhaps null. That is what reports
//! are, and a record whose fields come in the order of the schema needs no look at their names. Anything
//! else is left to `serde_avro_fast`; both read the same data alike.
//!
//! What reports have is always inlined: left alone, the compiler makes it a function for each type of field,
//! whose results pass through memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use apache_avro::Schema as Avro;
use ascii::AsAsciiStr as _;
use serde::{
    Deserialize,
    de::{self, IntoDeserializer as _, value::Error},
};

/// A record of plain fields.
#[derive(Debug)]
pub(super) struct Flat {
    fields: Vec<Field>,
    /// Address of the last type's list of field names that was the same as this one's. Such a list is
    /// static: its address stands for it.
    same_names: AtomicUsize,
}

#[derive(Debug)]
struct Field {
    name: String,
    kind: Kind,
    /// Which of its two branches is null.
    null: Option<i64>,
}

#[derive(Debug)]
enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Enum(Vec<String>),
}

impl Flat {
    /// `None` if it is not a record of plain fields.
    pub(super) fn of(schema: &Avro) -> Option<Self> {
        let Avro::Record(record) = schema else {
            return None;
        };
        let field = |field: &apache_avro::schema::RecordField| {
            let (schema, null) = match &field.schema {
                Avro::Union(union) => match union.variants() {
                    [Avro::Null, other] => (other, Some(0)),
                    [other, Avro::Null] => (other, Some(1)),
                    _ => return None,
                },
                other => (other, None),
            };
            let (name, kind) = (field.name.clone(), Kind::of(schema)?);
            Some(Field { name, kind, null })
        };
        Some(Self {
            fields: record.fields.iter().map(field).collect::<Option<_>>()?,
            same_names: AtomicUsize::new(0),
        })
    }

    /// Reads a datum, all of it.
    pub(super) fn read<'de, T: Deserialize<'de>>(&self, datum: &'de [u8]) -> Result<T, String> {
        let mut rest = datum;
        let record = Record {
            flat: self,
            rest: &mut rest,
        };
        let value = T::deserialize(record).map_err(|e| e.to_string())?;
        match rest.len() {
            0 => Ok(value),
            left => Err(format!("{left} bytes are left over")),
        }
    }

    fn has_names(&self, names: &'static [&'static str]) -> bool {
        let address = names.as_ptr() as usize;
        if self.same_names.load(Ordering::Relaxed) == address && names.len() == self.fields.len() {
            return true;
        }
        let same = self.fields.iter().map(|field| field.name.as_str());
        let same = same.eq(names.iter().copied());
        if same {
            self.same_names.store(address, Ordering::Relaxed);
        }
        same
    }
}

impl Kind {
    fn of(schema: &Avro) -> Option<Self> {
        Some(match schema {
            Avro::Boolean => Self::Boolean,
            Avro::Int => Self::Int,
            Avro::Long => Self::Long,
            Avro::Float => Self::Float,
            Avro::Double => Self::Double,
            Avro::String => Self::Text,
            Avro::Enum(symbols) => Self::Enum(symbols.symbols.clone()),
            _ => return None,
        })
    }
}

struct Record<'a, 'de> {
    flat: &'a Flat,
    rest: &'a mut &'de [u8],
}

impl<'de> de::Deserializer<'de> for Record<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields {
            fields: self.flat.fields.iter(),
            next: None,
            rest: self.rest,
        })
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !self.flat.has_names(names) {
            return self.deserialize_any(visitor);
        }
        visitor.visit_seq(Fields {
            fields: self.flat.fields.iter(),
            next: None,
            rest: self.rest,
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Fields<'a, 'de> {
    fields: std::slice::Iter<'a, Field>,
    /// The field whose name was told last.
    next: Option<&'a Field>,
    rest: &'a mut &'de [u8],
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        seed.deserialize(Value::of(field, self.rest)).map(Some)
    }

    /// As by a seed, without a function that nobody can have inlined.
    #[inline(always)]
    fn next_element<T: Deserialize<'de>>(&mut self) -> Result<Option<T>, Error> {
        let Some(field) = self.fields.next() else {
            return Ok(None);
        };
        T::deserialize(Value::of(field, self.rest)).map(Some)
    }
}

impl<'de> de::MapAccess<'de> for Fields<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.next = self.fields.next();
        let Some(field) = self.next else {
            return Ok(None);
        };
        let name: de::value::StrDeserializer<'_, Error> = field.name.as_str().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        match self.next {
            Some(field) => seed.deserialize(Value::of(field, self.rest)),
            None => Err(wrong("a value was asked for before its name")),
        }
    }
}

struct Value<'a, 'de> {
    kind: &'a Kind,
    null: Option<i64>,
    rest: &'a mut &'de [u8],
}

impl<'a, 'de> Value<'a, 'de> {
    fn of(field: &'a Field, rest: &'a mut &'de [u8]) -> Self {
        Self {
            kind: &field.kind,
            null: field.null,
            rest,
        }
    }

    /// Is there a value? Reads which branch it is.
    #[inline(always)]
    fn is_there(&mut self) -> Result<bool, Error> {
        let Some(null) = self.null.take() else {
            return Ok(true);
        };
        match long(self.rest)? {
            branch @ (0 | 1) => Ok(branch != null),
            branch => Err(wrong(format_args!("there is no branch {branch}"))),
        }
    }
}

impl<'de> de::Deserializer<'de> for Value<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: de::Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if !self.is_there()? {
            return visitor.visit_unit();
        }
        match self.kind {
            Kind::Boolean => match take(self.rest, 1)? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(wrong("a boolean is neither 0 nor 1")),
            },
            Kind::Int => match i32::try_from(long(self.rest)?) {
                Ok(int) => visitor.visit_i32(int),
                Err(error) => Err(wrong(error)),
            },
            Kind::Long => visitor.visit_i64(long(self.rest)?),
            Kind::Float => visitor.visit_f32(f32::from_le_bytes(array(self.rest)?)),
            Kind::Double => visitor.visit_f64(f64::from_le_bytes(array(self.rest)?)),
            Kind::Text => visitor.visit_borrowed_str(text(self.rest)?),
            Kind::Enum(symbols) => visitor.visit_str(symbol(self.rest, symbols)?.1),
        }
    }

    #[inline(always)]
    fn deserialize_str<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (self.kind, self.null) {
            (Kind::Text, None) => visitor.visit_borrowed_str(text(self.rest)?),
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline(always)]
    fn deserialize_i64<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match (self.kind, self.null) {
            (Kind::Long, None) => visitor.visit_i64(long(self.rest)?),
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline(always)]
    fn deserialize_option<V: de::Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        match self.is_there()? {
            true => visitor.visit_some(self),
            false => visitor.visit_none(),
        }
    }

    #[inline]
    fn deserialize_enum<V: de::Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Kind::Enum(symbols) = self.kind else {
            return self.deserialize_any(visitor);
        };
        if !self.is_there()? {
            return visitor.visit_unit();
        }
        let (place, symbol) = symbol(self.rest, symbols)?;
        if variants.get(place as usize).is_some_and(|v| *v == symbol) {
            return visitor.visit_enum(place.into_deserializer());
        }
        visitor.visit_enum(symbol.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[inline(always)]
fn take<'de>(rest: &mut &'de [u8], len: usize) -> Result<&'de [u8], Error> {
    let (taken, left) = rest.split_at_checked(len).ok_or_else(cut_off)?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Error> {
    let (taken, left) = rest.split_first_chunk().ok_or_else(cut_off)?;
    *rest = left;
    Ok(*taken)
}

/// A number: seven bits a byte, the lowest first, the sign in the lowest bit.
#[inline(always)]
fn long(rest: &mut &[u8]) -> Result<i64, Error> {
    match rest.split_first() {
        // Lengths, symbols, branches: nearly all of them.
        Some((&byte, left)) if byte < 0x80 => {
            *rest = left;
            Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1))
        }
        _ => longer(rest),
    }
}

fn longer(rest: &mut &[u8]) -> Result<i64, Error> {
    let mut number = 0_u64;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        if at == 9 && byte > 1 {
            // More than 64 bits.
            break;
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *rest = &rest[at + 1..];
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err(cut_off())
}

/// A text. Nearly all are ASCII, which is found out several times as fast.
#[inline(always)]
fn text<'de>(rest: &mut &'de [u8]) -> Result<&'de str, Error> {
    let len = usize::try_from(long(rest)?).map_err(wrong)?;
    let text = take(rest, len)?;
    match text.as_ascii_str() {
        Ok(ascii) => Ok(ascii.as_str()),
        Err(_) => std::str::from_utf8(text).map_err(wrong),
    }
}

fn symbol<'s>(rest: &mut &[u8], symbols: &'s [String]) -> Result<(u32, &'s str), Error> {
    let place = u32::try_from(long(rest)?).map_err(wrong)?;
    let symbol = symbols.get(place as usize);
    let symbol = symbol.ok_or_else(|| wrong(format_args!("there is no symbol {place}")))?;
    Ok((place, symbol))
}

fn wrong(what: impl std::fmt::Display) -> Error {
    de::Error::custom(what)
}

#[cold]
fn cut_off() -> Error {
    wrong("it is cut off, or a number is too long")
}
