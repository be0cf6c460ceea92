use proptest::prelude::*;

use super::*;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[0x20 | command, family], &len, rest].concat()
}

fn addresses(source: SocketAddr) -> Vec<u8> {
    let (mut bytes, port) = match source.ip() {
        IpAddr::V4(ip) => ([ip.octets(), [192, 0, 2, 9]].concat(), source.port()),
        IpAddr::V6(ip) => ([ip.octets(), [7; 16]].concat(), source.port()),
    };
    bytes.extend(port.to_be_bytes());
    bytes.extend(1935_u16.to_be_bytes());
    bytes
}

fn v1(source: SocketAddr) -> Vec<u8> {
    let (family, to) = if source.is_ipv4() { ("TCP4", "192.0.2.9") } else { ("TCP6", "2001:db8::9") };
    format!("PROXY {family} {} {to} {} 1935\r\n", source.ip(), source.port()).into_bytes()
}

/// The header is found whole, after no fewer bytes than it has, and whatever follows is not read.
fn is_header(header: &[u8], client: Option<SocketAddr>) {
    for end in 0..header.len() {
        assert_eq!(opening(&header[..end]), Ok(None), "{end} bytes");
    }
    let want = Ok(Some(Opening::Header { len: header.len(), client }));
    assert_eq!(opening(header), want);
    assert_eq!(opening(&[header, b"PROXY TCP4 "].concat()), want);
}

fn source() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port))),
        any::<([u8; 16], u16)>()
            .prop_map(|(ip, port)| SocketAddr::from((ip, port)))
            .prop_filter("mapped addresses become IPv4", |at| at.ip() == at.ip().to_canonical()),
    ]
}

proptest! {
    #[test]
    fn both_versions_tell_the_client_at_every_split(
        source in source(),
        tlvs in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5),
    ) {
        is_header(&v1(source), Some(source));
        let mut rest = addresses(source);
        for (kind, value) in tlvs {
            rest.push(kind);
            rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            rest.extend(value);
        }
        is_header(&v2(1, if source.is_ipv4() { 0x11 } else { 0x21 }, &rest), Some(source));
    }

    #[test]
    fn any_bytes_give_the_same_at_every_split(
        begin in prop_oneof![Just(&b""[..]), Just(TEXT), Just(&SIGNATURE[..])],
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let input = [begin, &rest].concat();
        let whole = opening(&input);
        for end in 0..input.len() {
            let part = opening(&input[..end]);
            prop_assert!(part == Ok(None) || part == whole, "{part:?} after {end} bytes, {whole:?} after all");
        }
        if let Ok(Some(Opening::Header { len, .. })) = whole {
            prop_assert!(len <= input.len());
        }
    }
}

#[test]
fn other_protocols_are_told_by_their_first_bytes() {
    for other in [&b"GET / HTTP/1.1\r\n"[..], b"POST", b"PUT", b"\x03\0\0\0\0", b"\x16\x03\x01", b"\r\nGET"] {
        assert_eq!(opening(other), Ok(Some(Opening::Other)), "{other:?}");
    }
    for begun in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        assert_eq!(opening(begun), Ok(None), "{begun:?}");
    }
}

#[test]
fn headers_without_a_client() {
    is_header(b"PROXY UNKNOWN\r\n", None);
    is_header(b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n", None);
    let source = addresses("192.0.2.1:5".parse().unwrap());
    is_header(&v2(0, 0x11, &source), None);
    is_header(&v2(0, 0, &[]), None);
    is_header(&v2(1, 0, &[1, 2, 3]), None);
    is_header(&v2(1, 0x31, &[0; 216]), None);
    is_header(&v2(1, 0x12, &source), None);
}

#[test]
fn a_mapped_address_is_an_ipv4_address() {
    let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
    is_header(&v2(1, 0x21, &addresses(mapped)), "192.0.2.1:7".parse().ok());
    is_header(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 7 80\r\n", "192.0.2.1:7".parse().ok());
}

#[test]
fn malformed_headers() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n",
        "PROXY / HTTP/1.1\r\n",
    ] {
        assert_eq!(opening(line.as_bytes()), Err(ProxyError::Line), "{line}");
    }
    let long = [TEXT, &[b'x'; 200]].concat();
    assert_eq!(opening(&long[..TEXT_MAX - 1]), Ok(None));
    assert_eq!(opening(&long[..TEXT_MAX]), Err(ProxyError::LineTooLong));
    let v4 = addresses("192.0.2.1:5".parse().unwrap());
    let mut other = v2(1, 0x11, &v4);
    other[12] = 0x31;
    assert_eq!(opening(&other), Err(ProxyError::Version(3)));
    assert_eq!(opening(&v2(2, 0x11, &v4)), Err(ProxyError::Command(2)));
    assert_eq!(opening(&v2(1, 0x41, &v4)), Err(ProxyError::Family(0x41)));
    assert_eq!(opening(&v2(1, 0x13, &v4)), Err(ProxyError::Family(0x13)));
    assert_eq!(opening(&v2(1, 0x11, &v4[..11])), Err(ProxyError::TooShort(11)));
    assert_eq!(opening(&v2(1, 0x21, &v4)), Err(ProxyError::TooShort(12)));
    assert_eq!(opening(&v2(1, 0x31, &[0; 215])), Err(ProxyError::TooShort(215)));
    assert_eq!(opening(&v2(1, 0x11, &[&v4[..], &[4, 0]].concat())), Err(ProxyError::Tlv));
    assert_eq!(opening(&v2(1, 0x11, &[&v4[..], &[4, 0, 2, 9]].concat())), Err(ProxyError::Tlv));
    assert_eq!(opening(&v2(1, 0x11, &[0; 4097])[..FIXED]), Err(ProxyError::TooLong(4097)));
}
