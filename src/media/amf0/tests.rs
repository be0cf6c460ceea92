//! Golden bytes, round trips, limits.

use proptest::prelude::*;

use super::*;

fn one(bytes: &[u8]) -> Result<Value, AmfError> {
    decode(bytes, &Limits::default()).map(|(value, _)| value)
}

#[test]
fn golden_bytes() {
    let text = |text: &str| text.to_owned();
    let cases: Vec<(&[u8], Value)> = vec![
        (b"\x00\x3f\xf0\x00\x00\x00\x00\x00\x00", Value::Number(1.0)),
        (b"\x01\x01", Value::Boolean(true)),
        (b"\x02\x00\x03abc", "abc".into()),
        (b"\x03\x00\x01k\x05\x00\x00\x09", Value::Object(vec![(text("k"), Value::Null)])),
        (b"\x06", Value::Undefined),
        (b"\x07\x01\x02", Value::Reference(0x102)),
        (
            b"\x08\x00\x00\x00\x01\x00\x01k\x01\x00\x00\x00\x09",
            Value::EcmaArray(vec![(text("k"), Value::Boolean(false))]),
        ),
        (b"\x0a\x00\x00\x00\x02\x05\x06", Value::StrictArray(vec![Value::Null, Value::Undefined])),
        (b"\x0b\x3f\xf0\0\0\0\0\0\0\xff\xc4", Value::Date { millis: 1.0, zone: -60 }),
        (b"\x0c\x00\x00\x00\x01x", Value::LongString(text("x"))),
        (b"\x0d", Value::Unsupported),
        (b"\x0f\x00\x00\x00\x04<a/>", Value::Xml(text("<a/>"))),
        (b"\x10\x00\x01C\x00\x00\x09", Value::Typed(text("C"), vec![])),
    ];
    for (bytes, value) in cases {
        assert_eq!(decode(bytes, &Limits::default()), Ok((value.clone(), bytes.len())));
        assert_eq!(encode(&[value]), bytes);
        // An ECMA array with all its properties is accepted without its end: cut 10 of that case.
        for cut in (0..bytes.len()).filter(|cut| (bytes[0], *cut) != (marker::ECMA_ARRAY, 10)) {
            assert!(matches!(one(&bytes[..cut]), Err(AmfError::Truncated { .. })), "{bytes:02x?} {cut}");
        }
    }
}

#[test]
fn an_ecma_array_may_lack_its_end() {
    let bytes = b"\x08\x00\x00\x00\x01\x00\x01k\x05";
    assert_eq!(one(bytes), Ok(Value::EcmaArray(vec![("k".into(), Value::Null)])));
}

#[test]
fn common_encoder_errors_are_accepted() {
    assert_eq!(one(b"\x02\x00\x02\xff!"), Ok("\u{fffd}!".into()));
    // The count of an ECMA array is not trusted: here zero and huge.
    assert!(one(b"\x08\x00\x00\x00\x00\x00\x01k\x05\x00\x00\x09").is_ok());
    assert!(one(b"\x08\xff\xff\xff\xff\x00\x00\x09").is_ok());
    // An empty property name.
    assert_eq!(one(b"\x03\x00\x00\x05\x00\x00\x09"), Ok(Value::Object(vec![(String::new(), Value::Null)])));
}

#[test]
fn limits_hold() {
    let limits = Limits { depth: 2, elements: 4, string: 8 };
    assert_eq!(
        decode(b"\x0c\x7f\xff\xff\xff", &limits),
        Err(AmfError::StringTooLong { announced: 0x7fff_ffff, limit: 8 })
    );
    let many = Err(AmfError::TooManyElements { limit: 4 });
    assert_eq!(decode(b"\x0a\x00\x00\x00\x04\x05\x05\x05\x05", &limits), many);
    assert_eq!(decode_all(&[5; 5], &limits).map(|_| ()), Err(AmfError::TooManyElements { limit: 4 }));
    assert!(decode(b"\x0a\0\0\0\x01\x0a\0\0\0\x01\x05", &limits).is_ok());
    let deep = b"\x0a\0\0\0\x01\x0a\0\0\0\x01\x0a\0\0\0\x00";
    assert_eq!(decode(deep, &limits), Err(AmfError::TooDeep { limit: 2 }));
}

#[test]
fn a_hundred_thousand_levels_are_refused_at_the_seventeenth() {
    for level in [&b"\x0a\x00\x00\x00\x01"[..], b"\x03\x00\x01a", b"\x08\x00\x00\x00\x01\x00\x01a"] {
        assert_eq!(one(&level.repeat(100_000)), Err(AmfError::TooDeep { limit: 16 }));
    }
}

#[test]
fn markers_that_are_not_values_are_refused() {
    for marker in [4, 9, 14, 17, 18, 255] {
        assert_eq!(one(&[marker]), Err(AmfError::Marker { marker }));
    }
}

#[test]
fn long_names_and_strings_are_encoded_within_their_fields() {
    let long = "é".repeat(40_000);
    let value = Value::Object(vec![(long.clone(), Value::String(long.clone()))]);
    let wide = Limits { string: u32::MAX, ..Limits::default() };
    let (back, _) = decode(&encode(&[value]), &wide).expect("our own bytes");
    let (name, value) = &back.properties().expect("an object")[0];
    assert_eq!((name.len(), value.as_str()), (65_534, Some(&*long)));
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| Value::Number(f64::from(number))),
        any::<bool>().prop_map(Value::Boolean),
        "[a-zé]{0,8}".prop_map(Value::String),
        Just(Value::Null),
        any::<u16>().prop_map(Value::Reference),
        any::<i16>().prop_map(|zone| Value::Date { millis: 1.5, zone }),
        ".{0,8}".prop_map(Value::LongString),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let properties = prop::collection::vec(("[a-z]{0,6}", inner.clone()), 0..5);
        prop_oneof![
            properties.clone().prop_map(Value::Object),
            properties.clone().prop_map(Value::EcmaArray),
            ("[A-Z]{0,3}", properties).prop_map(|(class, properties)| Value::Typed(class, properties)),
            prop::collection::vec(inner, 0..5).prop_map(Value::StrictArray),
        ]
    })
}

proptest! {
    #[test]
    fn values_survive_a_round_trip(values in prop::collection::vec(values(), 0..5)) {
        prop_assert_eq!(decode_all(&encode(&values), &Limits::default()), Ok(values));
    }

    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(prop_oneof![0..20u8, any::<u8>()], 0..400)) {
        let _ = decode_all(&bytes, &Limits::default());
    }
}
