use proptest::prelude::*;

use super::*;
use crate::media::flv::FileHeader;
use crate::media::tag::TagKind;

const TAG_MAX: u32 = 1 << 20;

fn tags() -> Vec<Tag> {
    let tag = |kind, timestamp, body: &[u8]| Tag { kind, timestamp, body: Bytes::copy_from_slice(body) };
    vec![
        tag(TagKind::Script, 0, b"\x02\x00\x0aonMetaData\x05"),
        tag(TagKind::Video, 0x0102_0304, &[0x17; 70_000]),
        tag(TagKind::Audio, 5, b"\xaf\x01z"),
    ]
}

fn flv(tags: &[Tag]) -> Vec<u8> {
    let mut bytes = FileHeader { audio: true, video: true }.encode().to_vec();
    tags.iter().for_each(|tag| tag.write_to(&mut bytes));
    bytes
}

fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in body.chunks(piece) {
        wire.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 0xfe, 77];
    let mut wire = vec![first];
    match payload.len() {
        short @ 0..=125 => wire.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=65_535 => {
            wire.push(0x80 | 126);
            wire.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            wire.push(0x80 | 127);
            wire.extend((long as u64).to_be_bytes());
        }
    }
    wire.extend(mask);
    wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    wire
}

/// Binary messages of `piece` bytes, each in two fragments with a ping between them; then a close frame.
fn messages(body: &[u8], piece: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in body.chunks(piece) {
        let (front, back) = message.split_at(message.len() / 2);
        wire.extend([frame(0x02, front), frame(0x89, b"hi"), frame(0x80, back)].concat());
    }
    wire.extend(frame(0x88, b"\x03\xe8"));
    wire
}

fn drain(push: &mut FlvPush, events: &mut Vec<PushEvent>) -> Result<(), PushError> {
    while let Some(event) = push.next_event()? {
        events.push(event);
    }
    Ok(())
}

fn read(mut push: FlvPush, wire: &[u8], piece: usize) -> (Vec<PushEvent>, Result<(), PushError>) {
    let mut events = Vec::new();
    for piece in wire.chunks(piece) {
        let pushed = push.push(piece);
        if let Err(error) = drain(&mut push, &mut events).and(pushed) {
            return (events, Err(error));
        }
    }
    (events, Ok(()))
}

fn whole() -> Vec<PushEvent> {
    let tags = tags().into_iter().map(PushEvent::Tag);
    std::iter::once(PushEvent::Begin).chain(tags).chain([PushEvent::End]).collect()
}

#[test]
fn every_transport_gives_the_same_events_however_it_is_split() {
    let body = flv(&tags());
    let length = BodyLength::Length(body.len() as u64);
    for piece in [1, 2, 7, 1000, 1 << 20] {
        let http = |body| FlvPush::http(body, TAG_MAX).unwrap();
        assert_eq!(read(http(length), &body, piece), (whole(), Ok(())));
        assert_eq!(read(http(BodyLength::Chunked), &chunked(&body, 999), piece), (whole(), Ok(())));
        for message in [3, 1000, 1 << 20] {
            let wire = messages(&body, message);
            assert_eq!(read(FlvPush::websocket(TAG_MAX), &wire, piece), (whole(), Ok(())), "{message}");
        }
    }
}

#[test]
fn pings_are_answered_within_a_limit() {
    let mut push = FlvPush::websocket(TAG_MAX);
    assert_eq!(push.take_output(), None);
    push.push(&frame(0x89, b"hi")).unwrap();
    assert_eq!(push.take_output().as_deref(), Some(&b"\x8a\x02hi"[..]));
    for _ in 0..10_000 {
        push.push(&frame(0x89, &[0; 125])).unwrap();
    }
    assert!(push.take_output().unwrap().len() < OUT_MAX + 200);
}

#[test]
fn other_formats_are_named() {
    let http = |bytes: &[u8]| read(FlvPush::http(BodyLength::Length(100), TAG_MAX).unwrap(), bytes, 9).1;
    let webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7";
    assert_eq!(http(webm), Err(PushError::WebM));
    assert_eq!(http(b"\0\0\0\x20ftypisom\0\0"), Err(PushError::Mp4));
    assert_eq!(http(b"GET / HTTP/1.1\r\n").unwrap_err().status(), 415);
    let ws = |wire: &[u8]| read(FlvPush::websocket(TAG_MAX), wire, 9).1;
    let error = ws(&frame(0x82, webm)).unwrap_err();
    assert_eq!((error, error.close_code()), (PushError::WebM, 1003));
    assert!(error.to_string().len() <= 123, "it fits a close frame");
    assert!(PushError::Mp4.to_string().len() <= 123);
    assert_eq!(ws(&frame(0x81, b"hello")), Err(PushError::Text));
    assert_eq!(ws(&frame(0x88, b"")), Err(PushError::Empty));
    assert_eq!(ws(b"\x82\x05hello").unwrap_err().close_code(), 1002);
    let large = [&flv(&[])[..], &[9, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]].concat();
    let error = ws(&frame(0x82, &large)).unwrap_err();
    assert_eq!((error.close_code(), error.status()), (1009, 413));
}

#[test]
fn a_post_without_a_body_is_not_a_push() {
    assert!(FlvPush::http(BodyLength::None, TAG_MAX).is_none());
    assert!(FlvPush::http(BodyLength::Length(0), TAG_MAX).is_none());
}

#[test]
fn bytes_after_the_end_are_dropped() {
    let body = flv(&tags());
    let push = FlvPush::http(BodyLength::Length(body.len() as u64), TAG_MAX).unwrap();
    let wire = [&body[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
    assert_eq!(read(push, &wire, 100), (whole(), Ok(())));
}

proptest! {
    #[test]
    fn any_bytes_are_borne_and_read_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        prefix in 0..3usize,
        piece in 1..50usize,
    ) {
        let flv = flv(&[]);
        let wire = match prefix {
            0 => bytes,
            1 => [chunked(&flv, 5), bytes].concat(),
            _ => [frame(0x82, &flv), bytes].concat(),
        };
        for make in [|| FlvPush::websocket(1000), || FlvPush::http(BodyLength::Chunked, 1000).unwrap()] {
            let (small, large) = (read(make(), &wire, piece), read(make(), &wire, 1 << 20));
            prop_assert_eq!(small.1.is_err(), large.1.is_err());
        }
    }
}
