//! The command sequences of encoders, and hostile peers.

use proptest::prelude::*;

use super::*;
use crate::media::amf0;
use crate::media::tag::TagKind;
use crate::protocol::rtmp::chunk::{ChunkReader, ChunkWriter};
use crate::protocol::rtmp::command::object;
use crate::protocol::rtmp::handshake::BLOCK;

/// A scripted peer: what it sends, message by message.
#[derive(Default)]
struct Script {
    writer: ChunkWriter,
    pieces: Vec<Vec<u8>>,
}

impl Script {
    /// Handshake and connect.
    fn connected(app: &str, tc_url: &str) -> Self {
        let properties =
            object(&[("app", app.into()), ("flashVer", "FMLE/3.0".into()), ("tcUrl", tc_url.into())]);
        Self::shaken().values(0, &["connect".into(), 1.0.into(), properties])
    }

    fn shaken() -> Self {
        let blocks = [&[3][..], &[0; 2 * BLOCK]].concat();
        Self { pieces: vec![blocks], ..Self::default() }
    }

    fn message(mut self, kind: u8, timestamp: u32, stream_id: u32, payload: &[u8]) -> Self {
        let (payload, mut bytes) = (Bytes::copy_from_slice(payload), Vec::new());
        self.writer.write(&Message { csid: 4, kind, timestamp, stream_id, payload }, &mut bytes);
        self.pieces.push(bytes);
        self
    }

    fn values(self, stream_id: u32, values: &[Value]) -> Self {
        self.message(kind::COMMAND_AMF0, 0, stream_id, &amf0::encode(values))
    }

    /// A command about the connection.
    fn call(self, name: &str, transaction: f64, argument: Option<Value>) -> Self {
        self.call_on(0, name, transaction, argument)
    }

    fn call_on(self, stream_id: u32, name: &str, transaction: f64, argument: Option<Value>) -> Self {
        let head = [name.into(), transaction.into(), Value::Null];
        self.values(stream_id, &head.into_iter().chain(argument).collect::<Vec<_>>())
    }

    fn publish(self, name: &str) -> Self {
        self.call("createStream", 4.0, None).call_on(1, "publish", 5.0, Some(name.into()))
    }

    fn video(self, timestamp: u32) -> Self {
        self.message(kind::VIDEO, timestamp, 1, b"\x17\x01abc")
    }
}

/// A session that answers by itself, and the result.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    answers: Vec<Message>,
    result: Result<(), RtmpError>,
}

impl Outcome {
    /// Commands by name with the code of a status, controls by their type.
    fn summary(&self) -> Vec<String> {
        let name = |message: &Message| match message.kind {
            kind::COMMAND_AMF0 => {
                let values = amf0::decode_all(&message.payload, &amf0::Limits::default()).expect("ours");
                let name = values[0].as_str().expect("a name").to_owned();
                let code = values.last().and_then(|info| info.get("code")).and_then(Value::as_str);
                code.map_or(name.clone(), |code| format!("{name} {code}"))
            }
            kind => kind.to_string(),
        };
        self.answers.iter().map(name).collect()
    }
}

fn answers(bytes: &[u8]) -> Vec<Message> {
    let mut reader = ChunkReader::new(ChunkLimits::default());
    let mut input = bytes.get(1 + 2 * BLOCK..).unwrap_or_default();
    std::iter::from_fn(|| reader.next_message(&mut input).expect("our own bytes")).collect()
}

/// Plays a script in pieces; publishes are accepted or refused, plays refused.
fn run_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>, accept: bool) -> Outcome {
    let mut session = ServerSession::new(Limits::default());
    let (mut events, mut out, mut result) = (Vec::new(), Vec::new(), Ok(()));
    for piece in pieces {
        result = session.input(piece);
        while let Some(event) = session.poll_event() {
            match &event {
                Event::Publish { .. } if accept => session.accept_publish(),
                Event::Publish { .. } => session.refuse_publish(Refusal::Unauthorised, "no"),
                Event::Play { .. } => session.refuse_play(Refusal::NotFound, "nothing here"),
                _ => {}
            }
            events.push(event);
        }
        out.extend(session.take_output().unwrap_or_default());
        if result.is_err() {
            assert_eq!(session.input(b"x"), Err(RtmpError::Over));
            break;
        }
    }
    Outcome { events, answers: answers(&out), result }
}

fn run(script: &Script) -> Outcome {
    run_pieces(script.pieces.iter().map(|piece| &piece[..]), true)
}

/// All events of a publish of `app/name` with `tags` video frames.
fn published(outcome: &Outcome, app: &str, name: &str, tags: usize, unpublished: bool) {
    assert_eq!(outcome.result, Ok(()));
    let Some(Event::Publish { target, agent, .. }) = outcome.events.first() else {
        panic!("{:?}", outcome.events)
    };
    assert_eq!((&*target.app, &*target.name, &**agent), (app, name, "FMLE/3.0"));
    let media = outcome.events.iter().filter(|event| matches!(event, Event::Media(_))).count();
    assert_eq!(media, tags);
    let ends = outcome.events.iter().filter(|event| **event == Event::Unpublish).count();
    assert_eq!(ends, usize::from(unpublished));
}

fn obs() -> Script {
    Script::connected("live", "rtmp://h/live")
        .call("releaseStream", 2.0, Some("x".into()))
        .call("FCPublish", 3.0, Some("x".into()))
        .call("createStream", 4.0, None)
        .call("_checkbw", 5.0, None)
        .call_on(1, "publish", 6.0, Some("x".into()))
        .message(kind::DATA_AMF0, 0, 1, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData\x05")
        .video(0)
        .video(40)
        .call("FCUnpublish", 7.0, Some("x".into()))
        .call("deleteStream", 8.0, Some(1.0.into()))
}

#[test]
fn the_order_of_obs() {
    let outcome = run(&obs());
    published(&outcome, "live", "x", 3, true);
    let want = [
        "5",
        "6",
        "1",
        "_result NetConnection.Connect.Success",
        "_result",
        "_result",
        "_result",
        "_result",
        "4",
        "onFCPublish NetStream.Publish.Start",
        "onStatus NetStream.Publish.Start",
        "onFCUnpublish NetStream.Unpublish.Success",
        "onStatus NetStream.Unpublish.Success",
        "_result",
    ];
    assert_eq!(outcome.summary(), want);
    let Some(Event::Media(metadata)) = outcome.events.get(1) else { panic!("{:?}", outcome.events) };
    assert_eq!(metadata.body, b"\x02\x00\x0aonMetaData\x05"[..]);
}

#[test]
fn the_order_of_ffmpeg_and_librtmp() {
    let ffmpeg = Script::connected("live", "rtmp://h/live")
        .call("releaseStream", 2.0, Some("x".into()))
        .call("FCPublish", 3.0, Some("x".into()))
        .call("createStream", 4.0, None)
        .call_on(1, "publish", 5.0, Some("x".into()))
        .video(0)
        .call("FCUnpublish", 6.0, Some("x".into()))
        .call("deleteStream", 7.0, Some(1.0.into()));
    published(&run(&ffmpeg), "live", "x", 1, true);
    let librtmp = Script::connected("live", "rtmp://h/live")
        .call("createStream", 2.0, None)
        .call("releaseStream", 3.0, Some("x".into()))
        .call("FCPublish", 4.0, Some("x".into()))
        .call_on(1, "publish", 5.0, Some("x".into()))
        .video(0)
        .call_on(1, "closeStream", 0.0, None)
        .call("deleteStream", 6.0, Some(1.0.into()));
    published(&run(&librtmp), "live", "x", 1, true);
    // The bare minimum, ended without a command.
    published(&run(&Script::connected("a/b", "rtmp://h/a/b").publish("x").video(1)), "a/b", "x", 1, false);
    // The key entered in the server field.
    published(
        &run(&Script::connected("live/key", "rtmp://h/live/key").publish("").video(1)),
        "live",
        "key",
        1,
        false,
    );
}

#[test]
fn amf3_commands_and_data() {
    let script = Script::connected("live", "rtmp://h/live");
    let publish = amf0::encode(&["publish".into(), 5.0.into(), Value::Null, "x".into()]);
    let script = script.message(kind::COMMAND_AMF3, 0, 1, &[&[0][..], &publish].concat()).message(
        kind::DATA_AMF3,
        0,
        1,
        b"\x00\x02\x00\x0aonMetaData\x05",
    );
    published(&run(&script), "live", "x", 1, false);
}

#[test]
fn an_aggregate_is_returned_as_tags() {
    let mut payload = Vec::new();
    for (kind, timestamp, body) in [
        (TagKind::Video, 100, &b"\x17\x01a"[..]),
        (TagKind::Audio, 110, b""),
        (TagKind::Script, 120, b"\x02\x00\x0d@setDataFrame\x02\x00\x0aonMetaData"),
    ] {
        Tag { kind, timestamp, body: Bytes::from_static(body) }.write_to(&mut payload);
    }
    let script = Script::connected("live", "").publish("x").message(kind::AGGREGATE, 5000, 1, &payload);
    let outcome = run(&script);
    let tag = |kind, timestamp, body| Event::Media(Tag { kind, timestamp, body: Bytes::from_static(body) });
    let want =
        [tag(TagKind::Video, 5000, b"\x17\x01a"), tag(TagKind::Script, 5020, b"\x02\x00\x0aonMetaData")];
    assert_eq!(outcome.events[1..], want);
}

#[test]
fn data_that_is_not_a_script_tag_is_dropped() {
    let mut script = Script::connected("live", "").publish("x");
    for payload in [
        &b"\x00\x01\x02\x03"[..],
        b"",
        b"\x02\x00\x0d@setDataFrame",
        b"\x02\x00\x0d@setDataFrame\x05",
        b"\x02\x00\x0f@clearDataFrame\x02\x00\x0aonMetaData",
    ] {
        script = script.message(kind::DATA_AMF0, 0, 1, payload).message(kind::DATA_AMF3, 0, 1, payload);
    }
    published(&run(&script.message(kind::VIDEO, 0, 1, b"")), "live", "x", 0, false);
}

#[test]
fn input_split_at_any_point_has_the_same_result() {
    let script = obs();
    let whole = run(&script);
    let bytes = script.pieces.concat();
    assert_eq!(run_pieces(bytes.chunks(1), true), whole);
    for at in 0..300 {
        let pieces = script.pieces.iter().flat_map(|piece| {
            let (front, back) = piece.split_at(at.min(piece.len()));
            [front, back]
        });
        assert_eq!(run_pieces(pieces, true), whole, "split at {at}");
    }
}

#[test]
fn media_before_the_answer_is_held_and_comes_out_in_order() {
    let script = Script::connected("live", "").publish("x").video(1).video(2);
    let mut session = ServerSession::new(Limits::default());
    assert_eq!(session.input(&script.pieces.concat()), Ok(()));
    assert!(matches!(session.poll_event(), Some(Event::Publish { .. })));
    assert_eq!(session.poll_event(), None);
    session.accept_publish();
    let times: Vec<u32> = std::iter::from_fn(|| session.poll_event())
        .map(|event| if let Event::Media(tag) = event { tag.timestamp } else { panic!("{event:?}") })
        .collect();
    assert_eq!(times, [1, 2]);
}

#[test]
fn a_publish_that_ends_before_the_answer() {
    let script = Script::connected("live", "").publish("x");
    let end = Script::shaken().call("deleteStream", 6.0, Some(1.0.into()));
    let mut session = ServerSession::new(Limits::default());
    assert_eq!(session.input(&script.pieces.concat()), Ok(()));
    assert!(matches!(session.poll_event(), Some(Event::Publish { .. })));
    assert_eq!(session.input(&end.pieces[1..].concat()), Ok(()));
    session.take_output();
    session.accept_publish();
    session.refuse_publish(Refusal::Failed, "");
    assert_eq!(session.take_output(), None);
    assert_eq!(session.poll_event(), Some(Event::Unpublish));
}

/// The caller's answer to an old request would apply to the new one: a peer refused as "x" is not refused as
/// "y".
#[test]
fn requests_that_end_before_they_are_polled_are_removed() {
    for name in ["publish", "play"] {
        let script = Script::connected("live", "rtmp://h/live")
            .call("createStream", 2.0, None)
            .call_on(1, name, 3.0, Some("x".into()))
            .call("deleteStream", 0.0, Some(1.0.into()))
            .call("createStream", 4.0, None)
            .call_on(1, name, 5.0, Some("y".into()));
        let mut session = ServerSession::new(Limits::default());
        assert_eq!(session.input(&script.pieces.concat()), Ok(()));
        let asked: Vec<Event> = std::iter::from_fn(|| session.poll_event()).collect();
        assert!(
            matches!(&asked[..], [Event::Publish { target, .. } | Event::Play { target, .. }] if target.name == "y"),
            "{asked:?}"
        );
    }
}

#[test]
fn a_refused_publisher_may_try_again_but_not_flood() {
    let frame = vec![0x17; 10_000];
    let mut script = Script::connected("live", "").publish("x").call_on(1, "publish", 6.0, Some("y".into()));
    let refused = run_pieces(script.pieces.iter().map(|piece| &piece[..]), false);
    let codes = refused.summary();
    assert_eq!(codes[codes.len() - 2..], ["onStatus NetStream.Publish.Unauthorized"; 2]);
    for _ in 0..200 {
        script = script.message(kind::VIDEO, 0, 1, &frame);
    }
    let flood = run_pieces(script.pieces.iter().map(|piece| &piece[..]), false);
    assert!(matches!(flood.result, Err(RtmpError::MediaUnasked { .. })), "{:?}", flood.result);
    // Held media has the same limit.
    let mut session = ServerSession::new(Limits::default());
    let result = script.pieces.iter().try_for_each(|piece| session.input(piece));
    assert!(matches!(result, Err(RtmpError::MediaUnasked { .. })), "{result:?}");
}

#[test]
fn one_publish_at_a_time_per_connection() {
    let twice = Script::connected("live", "").publish("x").publish("y").video(1);
    let outcome = run(&twice);
    published(&outcome, "live", "x", 1, false);
    assert!(outcome.summary().contains(&"onStatus NetStream.Publish.BadName".to_owned()));
    // One after the other is allowed.
    let again = obs().call("createStream", 9.0, None).call_on(2, "publish", 10.0, Some("y".into())).video(3);
    let outcome = run(&again);
    assert_eq!((outcome.result, outcome.events.len()), (Ok(()), 7));
}

#[test]
fn a_viewer_is_refused() {
    let script = Script::connected("live", "rtmp://h/live?a=1")
        .call("createStream", 2.0, None)
        .call("getStreamLength", 3.0, Some("x".into()))
        .call_on(1, "play", 4.0, Some("x".into()));
    let outcome = run(&script);
    let target = Target { app: "live".into(), name: "x".into(), query: Some("a=1".into()) };
    assert_eq!(outcome.events, [Event::Play { target, agent: "FMLE/3.0".into() }]);
    assert_eq!(outcome.summary().last().map(String::as_str), Some("onStatus NetStream.Play.StreamNotFound"));
}

#[test]
fn a_viewer_is_accepted_pauses_and_switches_tracks_off() {
    let watch = Script::connected("live", "rtmp://h/live")
        .call("createStream", 2.0, None)
        .call("FCSubscribe", 3.0, Some("x".into()))
        .call_on(1, "play", 4.0, Some("x".into()));
    let mut session = ServerSession::new(Limits::default());
    for piece in &watch.pieces {
        session.input(piece).expect("a good viewer");
    }
    assert!(matches!(session.poll_event(), Some(Event::Play { .. })));
    let mut out = session.take_output().expect("answers").to_vec();
    session.accept_play();
    let steps = Script::shaken()
        .call_on(1, "pause", 0.0, Some(Value::Boolean(true)))
        .call_on(1, "pause", 0.0, Some(Value::Boolean(false)))
        .call_on(1, "receiveAudio", 0.0, Some(Value::Boolean(false)))
        .call_on(1, "receiveVideo", 0.0, Some(Value::Boolean(true)))
        .call_on(1, "seek", 0.0, Some(5.0.into()))
        .call("deleteStream", 0.0, Some(1.0.into()))
        .call("createStream", 5.0, None);
    for piece in &steps.pieces[1..] {
        session.input(piece).expect("a good viewer");
    }
    let events: Vec<Event> = std::iter::from_fn(|| session.poll_event()).collect();
    let receive = |audio, wanted| Event::Receive { audio, wanted };
    let want = [
        Event::Pause(true),
        Event::Pause(false),
        receive(true, false),
        receive(false, true),
        Event::StopPlay,
    ];
    assert_eq!(events, want);
    out.extend(session.take_output().expect("answers"));
    let outcome = Outcome { events, answers: answers(&out), result: Ok(()) };
    let said = outcome.summary();
    let codes: Vec<&str> = said
        .iter()
        .filter_map(|line| Some(line.split_once(' ')?.1))
        .filter(|code| !code.contains("Connect"))
        .collect();
    let notify = ["NetStream.Pause.Notify", "NetStream.Unpause.Notify"];
    assert_eq!(codes[..3], ["NetStream.Play.Start", "NetStream.Play.Reset", "NetStream.Play.Start"]);
    assert_eq!(codes[3..], notify);
    assert!(
        !said.iter().any(|line| line.contains("Data.Start")),
        "ffmpeg sees a phantom stream then: {said:?}"
    );
    // The stream that can be played on is free again.
    let created = outcome.answers.last().expect("createStream");
    let values = amf0::decode_all(&created.payload, &amf0::Limits::default()).expect("ours");
    assert_eq!(values[3], Value::Number(1.0));
}

#[test]
fn commands_out_of_order_and_too_many() {
    let early = Script::shaken().publish("x");
    assert_eq!(run(&early).result, Err(RtmpError::NotConnected { command: "createStream" }));
    let mut twice = Script::connected("live", "");
    let connect = twice.pieces[1].clone();
    twice.pieces.push(connect);
    assert_eq!(run(&twice).result, Err(RtmpError::ConnectedTwice));
    let mut many = Script::connected("live", "");
    for _ in 0..300 {
        many = many.call("_checkbw", 1.0, None);
    }
    assert_eq!(run(&many).result, Err(RtmpError::TooManyCommands { limit: 256 }));
    let mut streams = Script::connected("live", "");
    for _ in 0..9 {
        streams = streams.call("createStream", 1.0, None);
    }
    assert_eq!(run(&streams).result, Err(RtmpError::TooManyStreams { limit: 8 }));
}

#[test]
fn large_messages_wait_for_a_publish() {
    let large = vec![0; 70_000];
    let early = Script::connected("live", "").message(kind::VIDEO, 0, 1, &large);
    assert!(matches!(run(&early).result, Err(RtmpError::Chunk(_))));
    let late = Script::connected("live", "").publish("x").message(kind::VIDEO, 0, 1, &large);
    published(&run(&late), "live", "x", 1, false);
    let command = Script::connected("live", "").publish("x").message(kind::COMMAND_AMF0, 0, 1, &large);
    assert_eq!(run(&command).result, Err(RtmpError::CommandTooLarge { bytes: 70_000, limit: 65_536 }));
}

#[test]
fn a_peer_that_does_not_read_is_disconnected() {
    let ping = Control::User(UserControl::PingRequest { time: 1 }).message();
    let mut script = Script::connected("live", "");
    for _ in 0..20_000 {
        script = script.message(ping.kind, 0, 0, &ping.payload);
    }
    let mut session = ServerSession::new(Limits::default());
    let result = session.input(&script.pieces.concat());
    // Control is answered without a limit inside one input, so the check comes at its end.
    assert!(matches!(result, Err(RtmpError::OutputStalled { limit: 262_144, .. })), "{result:?}");
}

#[test]
fn extreme_nesting_and_numbers() {
    let deep = [amf0::encode(&["connect".into(), 1.0.into()]), b"\x03\x00\x01a".repeat(15_000)].concat();
    let outcome = run(&Script::shaken().message(kind::COMMAND_AMF0, 0, 0, &deep));
    assert_eq!(outcome.result, Err(RtmpError::Command(amf0::AmfError::TooDeep { limit: 8 })));
    for id in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let script = Script::connected("live", "").publish("x").call("deleteStream", id, Some(id.into()));
        published(&run(&script.video(1)), "live", "x", 1, false);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_borne(
        bytes in prop::collection::vec(prop_oneof![0..8u8, any::<u8>()], 0..600),
        piece in 1..100usize,
    ) {
        run_pieces(bytes.chunks(piece), true);
        let handshake = Script::shaken().pieces.concat();
        run_pieces(std::iter::once(&handshake[..]).chain(bytes.chunks(piece)), true);
    }

    #[test]
    fn flipped_bits_in_a_script_are_borne(
        flips in prop::collection::vec((3074..4200usize, 0..8u8), 1..6),
        piece in 1..700usize,
    ) {
        let mut bytes = obs().pieces.concat();
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        run_pieces(bytes.chunks(piece), true);
    }

    #[test]
    fn any_messages_in_any_order_are_borne(
        messages in prop::collection::vec(
            (0..24u8, 0..3u32, prop::collection::vec(prop_oneof![Just(2u8), Just(0), any::<u8>()], 0..40)),
            0..30,
        ),
    ) {
        let mut script = Script::connected("live", "").publish("x");
        for (kind, stream_id, payload) in messages {
            script = script.message(kind, 0, stream_id, &payload);
        }
        run(&script);
    }
}
