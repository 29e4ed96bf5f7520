//! Typed Avro encoding and decoding against a known schema.
//!
//! Parsing, validation and resolution are `apache-avro`'s. The common case, a datum written with
//! exactly the schema that the reader was built with, is decoded without an intermediate value: records
//! of plain fields by `flat`, all others by `serde_avro_fast`.

use std::{
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::wire;
use flat::Flat;

mod flat;
pub mod put;

/// A parsed schema under its registry id.
#[derive(Debug)]
pub struct Schema {
    /// Id in the registry.
    pub id: u32,
    /// Full name of the record: `namespace.Name`.
    pub name: String,
    avro: apache_avro::Schema,
    fast: serde_avro_fast::Schema,
    flat: Option<Flat>,
    form: Form,
}

/// The canonical form of a schema as a number: equal for two schemas if their data are alike. Comparing
/// the texts themselves would take longer than reading a datum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Form(usize);

impl Form {
    fn of(schema: &apache_avro::Schema) -> Self {
        static KNOWN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let text = schema.canonical_form();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.iter().position(|form| *form == text);
        Self(place.unwrap_or_else(|| {
            known.push(text);
            known.len() - 1
        }))
    }
}

/// Why a schema, a datum or a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is not an Avro schema of a named record.
    #[error("not a usable Avro schema: {0}")]
    Schema(String),
    /// The bytes are not a datum of the schema they were written with.
    #[error("not a datum of the schema it names: {0}")]
    Malformed(String),
    /// A good datum that does not resolve to the reader's schema: an unknown symbol, a missing
    /// field, another type.
    #[error("does not resolve to this service's schema: {0}")]
    Unresolvable(String),
    /// The value does not fit the schema.
    #[error("cannot be encoded: {0}")]
    Encode(String),
}

impl Schema {
    /// Parses `text`, an Avro record schema, registered as `id`.
    ///
    /// # Errors
    /// [`Error::Schema`] when it does not parse or has no name.
    pub fn parse(id: u32, text: &str) -> Result<Self, Error> {
        let avro =
            apache_avro::Schema::parse_str(text).map_err(|e| Error::Schema(e.to_string()))?;
        let name = avro
            .name()
            .ok_or_else(|| Error::Schema("it is not a named record".into()))?
            .to_string();
        let fast = text
            .parse()
            .map_err(|e: serde_avro_fast::schema::SchemaError| Error::Schema(e.to_string()))?;
        let form = Form::of(&avro);
        Ok(Self {
            id,
            name,
            flat: Flat::of(&avro),
            avro,
            fast,
            form,
        })
    }
}

/// Reads values of `T` from data of any schema that resolves to `T`'s.
#[derive(Debug)]
pub struct Decoder<T> {
    reader: Schema,
    marker: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Decoder<T> {
    /// A decoder for `T` whose Avro schema is `text`.
    ///
    /// # Errors
    /// [`Error::Schema`] when the text is not a record schema.
    pub fn new(text: &str) -> Result<Self, Error> {
        Ok(Self {
            reader: Schema::parse(0, text)?,
            marker: PhantomData,
        })
    }

    /// Full name of the record this reads.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.reader.name
    }

    /// Decodes a datum (without its frame) that was written with `writer`.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that `writer` cannot have written, and
    /// [`Error::Unresolvable`] when they mean nothing to `T`'s schema.
    pub fn decode(&self, writer: &Schema, datum: &[u8]) -> Result<T, Error> {
        if writer.form == self.reader.form {
            return exact(writer, datum);
        }
        let value = resolved(writer, &self.reader, datum)?;
        apache_avro::from_value(&value).map_err(|e| Error::Unresolvable(e.to_string()))
    }

    /// Decodes a datum into a type of the same fields that borrows from it, or from `scratch` if the
    /// datum has to be written anew, as one of this decoder's own schema.
    ///
    /// # Errors
    /// As for [`Self::decode`].
    pub fn read<'d, R: Deserialize<'d>>(
        &self,
        writer: &Schema,
        datum: &'d [u8],
        scratch: &'d mut Vec<u8>,
    ) -> Result<R, Error> {
        if writer.form == self.reader.form {
            return exact(writer, datum);
        }
        let value = resolved(writer, &self.reader, datum)?;
        *scratch = apache_avro::writer::datum::GenericDatumWriter::builder(&self.reader.avro)
            .build()
            .and_then(|writer| writer.write_value_to_vec(value))
            .map_err(|e| Error::Unresolvable(e.to_string()))?;
        exact(&self.reader, scratch).map_err(|e| Error::Unresolvable(e.to_string()))
    }
}

/// The datum as a value of the reader's schema.
fn resolved(
    writer: &Schema,
    reader: &Schema,
    datum: &[u8],
) -> Result<apache_avro::types::Value, Error> {
    let mut rest = datum;
    let value = apache_avro::reader::datum::GenericDatumReader::builder(&writer.avro)
        .build()
        .and_then(|reader| reader.read_value(&mut rest))
        .map_err(|e| Error::Malformed(e.to_string()))?;
    whole(rest.len() as u64)?;
    // apache-avro 0.22 reads a string that is cut off as null, without an error.
    if !value.validate(&writer.avro) {
        return Err(Error::Malformed("it is cut off within a text".into()));
    }
    value
        .resolve(&reader.avro)
        .map_err(|e| Error::Unresolvable(e.to_string()))
}

/// Reads a datum as what it is.
fn exact<'d, T: Deserialize<'d>>(schema: &Schema, datum: &'d [u8]) -> Result<T, Error> {
    match &schema.flat {
        Some(flat) => flat.read(datum).map_err(Error::Malformed),
        None => nested(&schema.fast, datum),
    }
}

/// Reads a datum of any schema.
fn nested<'d, T: Deserialize<'d>>(
    schema: &serde_avro_fast::Schema,
    datum: &'d [u8],
) -> Result<T, Error> {
    let reader = serde_avro_fast::de::read::SliceRead::new(datum);
    let mut state = serde_avro_fast::de::DeserializerState::new(reader, schema);
    let value =
        T::deserialize(state.deserializer()).map_err(|e| Error::Malformed(e.to_string()))?;
    let left = std::io::copy(&mut state.into_reader(), &mut std::io::sink()).unwrap_or(u64::MAX);
    whole(left)?;
    Ok(value)
}

/// A datum fills its record: bytes behind it mean that it is not what it claims to be.
fn whole(bytes_left: u64) -> Result<(), Error> {
    if bytes_left == 0 {
        return Ok(());
    }
    Err(Error::Malformed(format!(
        "{bytes_left} bytes are left over"
    )))
}

/// Writes values of `T`, framed, with one registered schema. Cheap to clone.
#[derive(Debug)]
pub struct Encoder<T> {
    schema: Arc<Schema>,
    marker: PhantomData<fn(&T)>,
}

impl<T> Clone for Encoder<T> {
    fn clone(&self) -> Self {
        Self {
            schema: Arc::clone(&self.schema),
            marker: PhantomData,
        }
    }
}

impl<T: Serialize> Encoder<T> {
    /// An encoder for the registered `schema`.
    #[must_use]
    pub fn new(schema: Arc<Schema>) -> Self {
        Self {
            schema,
            marker: PhantomData,
        }
    }

    /// The framed bytes of `value`.
    ///
    /// # Errors
    /// [`Error::Encode`] when the value does not fit the schema.
    pub fn encode(&self, value: &T) -> Result<Vec<u8>, Error> {
        serde_avro_fast::to_datum(
            value,
            wire::header(self.schema.id),
            &mut serde_avro_fast::ser::SerializerConfig::new(&self.schema.fast),
        )
        .map_err(|e| Error::Encode(e.to_string()))
    }

    /// Appends the frame of a value, for whoever writes the datum with [`put`].
    pub fn put_header(&self, out: &mut Vec<u8>) {
        wire::put_header(out, self.schema.id);
    }
}

#[cfg(test)]
mod tests;
