//! AMF0, the data format of RTMP commands and script tags (AMF 0 specification, clause 2).
//!
//! Decoding is bounded in depth, elements and string length, so that a few bytes from a peer never take much
//! stack or memory. Bytes that are not UTF-8 are replaced by U+FFFD. References are kept as numbers and not
//! followed; the switch to AMF3 (marker 17) and the markers reserved by the standard are refused.

/// The marker byte before every value (clause 2.1).
mod marker {
    pub(super) const NUMBER: u8 = 0;
    pub(super) const BOOLEAN: u8 = 1;
    pub(super) const STRING: u8 = 2;
    pub(super) const OBJECT: u8 = 3;
    pub(super) const NULL: u8 = 5;
    pub(super) const UNDEFINED: u8 = 6;
    pub(super) const REFERENCE: u8 = 7;
    pub(super) const ECMA_ARRAY: u8 = 8;
    pub(super) const OBJECT_END: u8 = 9;
    pub(super) const STRICT_ARRAY: u8 = 10;
    pub(super) const DATE: u8 = 11;
    pub(super) const LONG_STRING: u8 = 12;
    pub(super) const UNSUPPORTED: u8 = 13;
    pub(super) const XML: u8 = 15;
    pub(super) const TYPED_OBJECT: u8 = 16;
}

/// The limits of a decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of objects and arrays.
    pub depth: u32,
    /// Total number of values, at all levels of one [`decode`] or [`decode_all`].
    pub elements: u32,
    /// Bytes of one string or property name.
    pub string: u32,
}

impl Default for Limits {
    /// Enough for an `onMetaData` with a keyframe index of a day.
    fn default() -> Self {
        Self { depth: 16, elements: 1 << 16, string: 1 << 16 }
    }
}

/// What was wrong with the peer's AMF0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmfError {
    /// A value reaches past the end of the message.
    #[error("AMF0 value needs {needed} bytes, {left} are left")]
    Truncated {
        /// Bytes the next field takes.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A marker that is reserved, unknown or switches to AMF3.
    #[error("AMF0 marker {marker} is not a value")]
    Marker {
        /// The marker byte.
        marker: u8,
    },
    /// Objects nested deeper than [`Limits::depth`].
    #[error("AMF0 nested deeper than {limit}")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// More values than [`Limits::elements`], announced or sent.
    #[error("more than {limit} AMF0 values")]
    TooManyElements {
        /// The limit.
        limit: u32,
    },
    /// A string longer than [`Limits::string`].
    #[error("AMF0 string of {announced} bytes, limit {limit}")]
    StringTooLong {
        /// Announced bytes.
        announced: u32,
        /// The limit in bytes.
        limit: u32,
    },
}

/// Named values in the order they were sent; names may repeat.
pub type Properties = Vec<(String, Value)>;

/// One AMF0 value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Clause 2.2: a big-endian double.
    Number(f64),
    /// Clause 2.3.
    Boolean(bool),
    /// Clause 2.4: up to 65,535 bytes; encoded as a long string if it is longer.
    String(String),
    /// Clause 2.5: an anonymous object.
    Object(Properties),
    /// Clause 2.7.
    Null,
    /// Clause 2.8.
    Undefined,
    /// Clause 2.9: the index of an object sent before; not followed.
    Reference(u16),
    /// Clause 2.10: like an object, with a count that decoders do not trust.
    EcmaArray(Properties),
    /// Clause 2.12.
    StrictArray(Vec<Value>),
    /// Clause 2.13.
    Date {
        /// Milliseconds since 1970 in UTC.
        millis: f64,
        /// Reserved by the standard; some writers put minutes from UTC here.
        zone: i16,
    },
    /// Clause 2.14: a string with a 32-bit length.
    LongString(String),
    /// Clause 2.15: "a type that cannot be serialised".
    Unsupported,
    /// Clause 2.17: an XML document as text.
    Xml(String),
    /// Clause 2.18: an object with a class name.
    Typed(String, Properties),
}

impl Value {
    /// The text of a string, long or short.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::LongString(text) => Some(text),
            _ => None,
        }
    }

    /// The number; strings and booleans are not read as numbers.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// The properties of an object, typed object or ECMA array.
    pub fn properties(&self) -> Option<&Properties> {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) | Self::Typed(_, properties) => {
                Some(properties)
            }
            _ => None,
        }
    }

    /// The first property called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties()?.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Appends the encoded value. Names longer than 65,535 bytes are cut at a character boundary.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Number(number) => {
                out.push(marker::NUMBER);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Boolean(value) => out.extend_from_slice(&[marker::BOOLEAN, u8::from(*value)]),
            Self::String(text) if text.len() <= usize::from(u16::MAX) => {
                out.push(marker::STRING);
                put_name(text, out);
            }
            Self::String(text) | Self::LongString(text) => put_long(marker::LONG_STRING, text, out),
            Self::Object(properties) => {
                out.push(marker::OBJECT);
                put_properties(properties, out);
            }
            Self::Null => out.push(marker::NULL),
            Self::Undefined => out.push(marker::UNDEFINED),
            Self::Reference(index) => {
                out.push(marker::REFERENCE);
                out.extend_from_slice(&index.to_be_bytes());
            }
            Self::EcmaArray(properties) => {
                out.push(marker::ECMA_ARRAY);
                out.extend_from_slice(&count(properties.len()));
                put_properties(properties, out);
            }
            Self::StrictArray(values) => {
                out.push(marker::STRICT_ARRAY);
                out.extend_from_slice(&count(values.len()));
                values.iter().for_each(|value| value.encode(out));
            }
            Self::Date { millis, zone } => {
                out.push(marker::DATE);
                out.extend_from_slice(&millis.to_be_bytes());
                out.extend_from_slice(&zone.to_be_bytes());
            }
            Self::Unsupported => out.push(marker::UNSUPPORTED),
            Self::Xml(text) => put_long(marker::XML, text, out),
            Self::Typed(class, properties) => {
                out.push(marker::TYPED_OBJECT);
                put_name(class, out);
                put_properties(properties, out);
            }
        }
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// The encoded `values`, one after the other, as in commands and script tags.
pub fn encode(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    values.iter().for_each(|value| value.encode(&mut out));
    out
}

/// Reads one value from the start of `input` and returns it with its length in bytes.
///
/// An ECMA array that ends with the input instead of the end marker is accepted if it has as many properties as
/// it announced.
///
/// # Errors
/// [`AmfError`]; nothing is consumed then.
pub fn decode(input: &[u8], limits: &Limits) -> Result<(Value, usize), AmfError> {
    let mut decoder = Decoder { input, limits, elements: limits.elements };
    let value = decoder.value(limits.depth)?;
    Ok((value, input.len() - decoder.input.len()))
}

/// Reads values to the end of `input`. The limits hold for all of them together.
///
/// # Errors
/// [`AmfError`] for the first invalid value.
pub fn decode_all(input: &[u8], limits: &Limits) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder { input, limits, elements: limits.elements };
    let mut values = Vec::new();
    while !decoder.input.is_empty() {
        values.push(decoder.value(limits.depth)?);
    }
    Ok(values)
}

#[allow(clippy::cast_possible_truncation)] // asserted
fn count(len: usize) -> [u8; 4] {
    assert!(u32::try_from(len).is_ok(), "our own values are bounded");
    (len as u32).to_be_bytes()
}

fn put_long(marker: u8, text: &str, out: &mut Vec<u8>) {
    out.push(marker);
    out.extend_from_slice(&count(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    let mut len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    while !name.is_char_boundary(usize::from(len)) {
        len -= 1;
    }
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&name.as_bytes()[..usize::from(len)]);
}

fn put_properties(properties: &Properties, out: &mut Vec<u8>) {
    for (name, value) in properties {
        put_name(name, out);
        value.encode(out);
    }
    out.extend_from_slice(&[0, 0, marker::OBJECT_END]);
}

struct Decoder<'a> {
    input: &'a [u8],
    limits: &'a Limits,
    /// Values that may still be read.
    elements: u32,
}

impl<'a> Decoder<'a> {
    /// Reads one value that may contain `depth` levels of others.
    fn value(&mut self, depth: u32) -> Result<Value, AmfError> {
        let limits = self.limits;
        self.elements =
            self.elements.checked_sub(1).ok_or(AmfError::TooManyElements { limit: limits.elements })?;
        let [marker] = self.array()?;
        let inner = || depth.checked_sub(1).ok_or(AmfError::TooDeep { limit: limits.depth });
        Ok(match marker {
            marker::NUMBER => Value::Number(f64::from_be_bytes(self.array()?)),
            marker::BOOLEAN => Value::Boolean(self.array::<1>()? != [0]),
            marker::STRING => Value::String(self.name()?),
            marker::OBJECT => Value::Object(self.object(inner()?, None)?),
            marker::NULL => Value::Null,
            marker::UNDEFINED => Value::Undefined,
            marker::REFERENCE => Value::Reference(u16::from_be_bytes(self.array()?)),
            marker::ECMA_ARRAY => {
                let announced = u32::from_be_bytes(self.array()?);
                Value::EcmaArray(self.object(inner()?, Some(announced))?)
            }
            marker::STRICT_ARRAY => Value::StrictArray(self.strict_array(inner()?)?),
            marker::DATE => Value::Date {
                millis: f64::from_be_bytes(self.array()?),
                zone: i16::from_be_bytes(self.array()?),
            },
            marker::LONG_STRING => Value::LongString(self.long_string()?),
            marker::UNSUPPORTED => Value::Unsupported,
            marker::XML => Value::Xml(self.long_string()?),
            marker::TYPED_OBJECT => {
                let class = self.name()?;
                Value::Typed(class, self.object(inner()?, None)?)
            }
            marker => return Err(AmfError::Marker { marker }),
        })
    }

    /// Reads properties up to the empty name with the end marker. `announced` is the count of an ECMA array.
    fn object(&mut self, depth: u32, announced: Option<u32>) -> Result<Properties, AmfError> {
        let mut properties = Properties::new();
        loop {
            let complete = announced.is_some_and(|count| count > 0 && properties.len() == count as usize);
            if self.input.is_empty() && complete {
                return Ok(properties);
            }
            let name = self.name()?;
            if name.is_empty() && self.input.first() == Some(&marker::OBJECT_END) {
                self.take(1)?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth)?));
        }
    }

    fn strict_array(&mut self, depth: u32) -> Result<Vec<Value>, AmfError> {
        let announced = u32::from_be_bytes(self.array()?);
        if announced > self.elements {
            return Err(AmfError::TooManyElements { limit: self.limits.elements });
        }
        (0..announced).map(|_| self.value(depth)).collect()
    }

    fn name(&mut self) -> Result<String, AmfError> {
        let len = u16::from_be_bytes(self.array()?);
        self.text(u32::from(len))
    }

    fn long_string(&mut self) -> Result<String, AmfError> {
        let len = u32::from_be_bytes(self.array()?);
        self.text(len)
    }

    fn text(&mut self, len: u32) -> Result<String, AmfError> {
        if len > self.limits.string {
            return Err(AmfError::StringTooLong { announced: len, limit: self.limits.string });
        }
        Ok(String::from_utf8_lossy(self.take(len as usize)?).into_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let truncated = AmfError::Truncated { needed: N, left: self.input.len() };
        let (array, rest) = self.input.split_first_chunk().ok_or(truncated)?;
        self.input = rest;
        Ok(*array)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], AmfError> {
        let truncated = AmfError::Truncated { needed: len, left: self.input.len() };
        let (front, rest) = self.input.split_at_checked(len).ok_or(truncated)?;
        self.input = rest;
        Ok(front)
    }
}

#[cfg(test)]
mod tests;
