//! Commands and their answers (RTMP 1.0, clause 7.2): a name, a transaction number, a command object and
//! arguments, in AMF0.

use bytes::Bytes;

use super::message::{Message, kind};
use crate::media::amf0::{self, AmfError, Properties, Value};

/// The chunk stream of commands about the connection.
pub const COMMAND_CSID: u32 = 3;
/// The chunk stream of status messages about a stream.
pub const STATUS_CSID: u32 = 5;

/// Limits of a command; `connect` of the newest OBS has some twenty properties.
const LIMITS: amf0::Limits = amf0::Limits { depth: 8, elements: 1024, string: 8192 };

/// How a publisher asks the server to keep its stream (clause 7.2.2.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishKind {
    /// Not kept.
    #[default]
    Live,
    /// Kept from the start.
    Record,
    /// Appended to what exists.
    Append,
}

/// A command from a publisher or viewer.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Clause 7.2.1.1.
    Connect {
        /// To be repeated in the answer.
        transaction: f64,
        /// The application, with everything after it in the URL.
        app: String,
        /// The URL up to the application.
        tc_url: String,
        /// The peer's name and version.
        flash_ver: String,
    },
    /// Frees a name for a new publish; from Flash Media Live Encoder, not in the standard.
    ReleaseStream {
        /// To be repeated in the answer.
        transaction: f64,
    },
    /// Announces a publish; from Flash Media Live Encoder.
    FcPublish {
        /// To be repeated in the answer.
        transaction: f64,
        /// The stream's name.
        name: String,
    },
    /// Ends a publish; from Flash Media Live Encoder.
    FcUnpublish {
        /// To be repeated in the answer.
        transaction: f64,
        /// The stream's name.
        name: String,
    },
    /// Clause 7.2.1.3.
    CreateStream {
        /// To be repeated in the answer.
        transaction: f64,
    },
    /// Bandwidth check; any answer will do.
    CheckBandwidth {
        /// To be repeated in the answer.
        transaction: f64,
    },
    /// Asks for a stream's duration.
    GetStreamLength {
        /// To be repeated in the answer.
        transaction: f64,
    },
    /// Clause 7.2.2.6; for the message's stream.
    Publish {
        /// To be repeated in an answer, if it is not zero.
        transaction: f64,
        /// The stream's name, with everything after it in the URL.
        name: String,
        /// How to keep it.
        kind: PublishKind,
    },
    /// Clause 7.2.2.1; for the message's stream.
    Play {
        /// To be repeated in an answer, if it is not zero.
        transaction: f64,
        /// The stream's name, with everything after it in the URL.
        name: String,
        /// Seconds; -2 live or recorded, -1 live only.
        start: f64,
    },
    /// Clause 7.2.2.9.
    Pause {
        /// Pause, or continue.
        pause: bool,
    },
    /// Clauses 7.2.2.4 and 7.2.2.5.
    Receive {
        /// Sound, otherwise pictures.
        audio: bool,
        /// Whether the player wants them.
        wanted: bool,
    },
    /// Asks to be notified when a stream begins; from Flash Media Server, sent by players of content networks.
    FcSubscribe {
        /// The stream's name.
        name: String,
    },
    /// Clause 7.2.2.3.
    DeleteStream {
        /// The message stream.
        stream_id: f64,
    },
    /// For the message's stream; from Flash Player.
    CloseStream,
    /// `_result` (clause 7.2.1.1): the answer to one of our commands.
    Result {
        /// The command's number.
        transaction: f64,
        /// The command object, then the arguments.
        values: Vec<Value>,
    },
    /// `_error`: the same for a failure.
    Error {
        /// The command's number.
        transaction: f64,
        /// The command object, then the arguments.
        values: Vec<Value>,
    },
    /// Clause 7.2.2: reports what happened to a stream.
    OnStatus {
        /// The information object.
        info: Value,
    },
    /// Anything else; its arguments are not read.
    Other {
        /// The command.
        name: String,
    },
}

impl Command {
    /// Reads the payload of a command message (type 20), or of type 17 with its leading zero byte.
    ///
    /// Missing arguments count as empty or zero. Arguments after an AMF3 value are not read.
    ///
    /// # Errors
    /// [`AmfError`] if the name or an argument of a known command is malformed.
    pub fn parse(payload: &[u8]) -> Result<Self, AmfError> {
        // No AMF0 command begins with a zero byte: the name would be a number.
        let payload = payload.strip_prefix(&[0]).unwrap_or(payload);
        let (name, used) = amf0::decode(payload, &LIMITS)?;
        let Some(name) = name.as_str() else {
            return Err(AmfError::Marker { marker: payload[0] });
        };
        if !KNOWN.contains(&name) {
            return Ok(Self::Other { name: name.to_owned() });
        }
        let values = arguments(&payload[used..])?;
        let number = |at: usize| values.get(at).and_then(Value::as_number);
        let text = |at: usize| values.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |at: usize| values.get(at) == Some(&Value::Boolean(true));
        let property = |name| {
            let value = values.get(1).and_then(|object| object.get(name));
            value.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let transaction = number(0).unwrap_or_default();
        Ok(match name {
            "connect" => Self::Connect {
                transaction,
                app: property("app"),
                tc_url: property("tcUrl"),
                flash_ver: property("flashVer"),
            },
            "releaseStream" => Self::ReleaseStream { transaction },
            "FCPublish" => Self::FcPublish { transaction, name: text(2) },
            "FCUnpublish" => Self::FcUnpublish { transaction, name: text(2) },
            "createStream" => Self::CreateStream { transaction },
            "_checkbw" => Self::CheckBandwidth { transaction },
            "getStreamLength" => Self::GetStreamLength { transaction },
            "publish" => Self::Publish { transaction, name: text(2), kind: publish_kind(values.get(3)) },
            "play" => Self::Play { transaction, name: text(2), start: number(3).unwrap_or(-2.0) },
            // Flash's options (7.2.2.2) have the stream name in an object.
            "play2" => {
                let name =
                    values.get(2).and_then(|options| options.get("streamName")).and_then(Value::as_str);
                Self::Play { transaction, name: name.unwrap_or_default().to_owned(), start: -2.0 }
            }
            "pause" => Self::Pause { pause: flag(2) },
            "receiveAudio" => Self::Receive { audio: true, wanted: flag(2) },
            "receiveVideo" => Self::Receive { audio: false, wanted: flag(2) },
            "FCSubscribe" => Self::FcSubscribe { name: text(2) },
            "deleteStream" => Self::DeleteStream { stream_id: number(2).unwrap_or_default() },
            "closeStream" => Self::CloseStream,
            "onStatus" => Self::OnStatus { info: values.into_iter().nth(2).unwrap_or(Value::Null) },
            "_result" => Self::Result { transaction, values: values.into_iter().skip(1).collect() },
            "_error" => Self::Error { transaction, values: values.into_iter().skip(1).collect() },
            _ => unreachable!("every known command is here"),
        })
    }

    /// The command's name, for messages about it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::ReleaseStream { .. } => "releaseStream",
            Self::FcPublish { .. } => "FCPublish",
            Self::FcUnpublish { .. } => "FCUnpublish",
            Self::CreateStream { .. } => "createStream",
            Self::CheckBandwidth { .. } => "_checkbw",
            Self::GetStreamLength { .. } => "getStreamLength",
            Self::Publish { .. } => "publish",
            Self::Play { .. } => "play",
            Self::Pause { .. } => "pause",
            Self::Receive { audio: true, .. } => "receiveAudio",
            Self::Receive { audio: false, .. } => "receiveVideo",
            Self::FcSubscribe { .. } => "FCSubscribe",
            Self::DeleteStream { .. } => "deleteStream",
            Self::CloseStream => "closeStream",
            Self::OnStatus { .. } => "onStatus",
            Self::Result { .. } => "_result",
            Self::Error { .. } => "_error",
            Self::Other { .. } => "an unknown command",
        }
    }
}

/// The commands that [`Command::parse`] reads completely.
const KNOWN: [&str; 19] = [
    "connect",
    "releaseStream",
    "FCPublish",
    "FCUnpublish",
    "createStream",
    "_checkbw",
    "getStreamLength",
    "publish",
    "play",
    "play2",
    "pause",
    "receiveAudio",
    "receiveVideo",
    "FCSubscribe",
    "deleteStream",
    "closeStream",
    "onStatus",
    "_result",
    "_error",
];

/// Values up to the end, or up to the marker (17) that switches to AMF3.
fn arguments(mut input: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut values = Vec::new();
    let mut limits = LIMITS;
    while !input.is_empty() && input[0] != 17 {
        let (value, used) = amf0::decode(input, &limits)?;
        limits.elements = limits.elements.saturating_sub(1);
        values.push(value);
        input = &input[used..];
    }
    Ok(values)
}

fn publish_kind(value: Option<&Value>) -> PublishKind {
    match value.and_then(Value::as_str) {
        Some("record") => PublishKind::Record,
        Some("append") => PublishKind::Append,
        _ => PublishKind::Live,
    }
}

/// One of our own command messages, on message stream `stream_id`.
pub fn message(csid: u32, stream_id: u32, values: &[Value]) -> Message {
    let payload = Bytes::from(amf0::encode(values));
    Message { csid, kind: kind::COMMAND_AMF0, timestamp: 0, stream_id, payload }
}

/// An object of named values.
pub fn object(properties: &[(&str, Value)]) -> Value {
    let properties: Properties =
        properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Value::Object(properties)
}

/// `_result` of a command: its object and one value.
pub fn result(transaction: f64, object: Value, value: Value) -> Message {
    message(COMMAND_CSID, 0, &["_result".into(), transaction.into(), object, value])
}

/// `_error` of a command, with an information object.
pub fn error(transaction: f64, code: &str, description: &str) -> Message {
    let info = info("error", code, description);
    message(COMMAND_CSID, 0, &["_error".into(), transaction.into(), Value::Null, info])
}

/// What both ends announce in `connect` and its answer (Enhanced RTMP v2, "Enhancing NetConnection connect"):
/// all codecs are relayed (4: can forward), and of the extensions multitrack (2) and `ModEx` (4); reconnect
/// requests (1) and nanosecond offsets (8) are not supported.
pub fn capabilities() -> Vec<(&'static str, Value)> {
    let any = || object(&[("*", 4.0.into())]);
    vec![
        ("capsEx", 6.0.into()),
        ("fourCcList", Value::StrictArray(vec!["*".into()])),
        ("videoFourCcInfoMap", any()),
        ("audioFourCcInfoMap", any()),
    ]
}

/// The `_result` of a connect that was accepted (clause 7.2.1.1). Only AMF0 is offered.
pub fn connect_result(transaction: f64) -> Message {
    let mut properties =
        vec![("fmsVer", "FMS/3,0,1,123".into()), ("capabilities", 31.0.into()), ("mode", 1.0.into())];
    properties.extend(capabilities());
    let properties = object(&properties);
    let info = object(&[
        ("level", "status".into()),
        ("code", "NetConnection.Connect.Success".into()),
        ("description", "Connection succeeded.".into()),
        ("objectEncoding", 0.0.into()),
    ]);
    result(transaction, properties, info)
}

/// `onStatus` on a message stream: `level` is `status` or `error`.
pub fn on_status(stream_id: u32, level: &str, code: &str, description: &str) -> Message {
    let info = info(level, code, description);
    message(STATUS_CSID, stream_id, &["onStatus".into(), 0.0.into(), Value::Null, info])
}

/// `onFCPublish` or `onFCUnpublish`: expected by peers that sent `FCPublish`, in addition to `onStatus`.
pub fn on_fc(name: &str, code: &str, description: &str) -> Message {
    let info = object(&[("code", code.into()), ("description", description.into())]);
    message(COMMAND_CSID, 0, &[name.into(), 0.0.into(), Value::Null, info])
}

fn info(level: &str, code: &str, description: &str) -> Value {
    object(&[("level", level.into()), ("code", code.into()), ("description", description.into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[Value]) -> Command {
        Command::parse(&amf0::encode(values)).expect("our own bytes")
    }

    #[test]
    fn commands_of_a_publisher() {
        let connect = object(&[("app", "live".into()), ("tcUrl", "rtmp://h/live".into())]);
        let want = Command::Connect {
            transaction: 1.0,
            app: "live".into(),
            tc_url: "rtmp://h/live".into(),
            flash_ver: String::new(),
        };
        assert_eq!(parse(&["connect".into(), 1.0.into(), connect]), want);
        let with =
            |name: &str, rest: &[Value]| parse(&[&[name.into(), 4.0.into(), Value::Null], rest].concat());
        assert_eq!(with("releaseStream", &["x".into()]), Command::ReleaseStream { transaction: 4.0 });
        assert_eq!(
            with("FCPublish", &["x".into()]),
            Command::FcPublish { transaction: 4.0, name: "x".into() }
        );
        assert_eq!(with("createStream", &[]), Command::CreateStream { transaction: 4.0 });
        assert_eq!(with("deleteStream", &[1.0.into()]), Command::DeleteStream { stream_id: 1.0 });
        let publish = |kind| Command::Publish { transaction: 4.0, name: "x".into(), kind };
        assert_eq!(with("publish", &["x".into(), "record".into()]), publish(PublishKind::Record));
        assert_eq!(with("publish", &["x".into()]), publish(PublishKind::Live));
        assert_eq!(
            with("play", &["x".into()]),
            Command::Play { transaction: 4.0, name: "x".into(), start: -2.0 }
        );
        let options = object(&[("streamName", "x".into())]);
        assert_eq!(
            with("play2", &[options]),
            Command::Play { transaction: 4.0, name: "x".into(), start: -2.0 }
        );
        assert_eq!(with("pause", &[Value::Boolean(true), 5.0.into()]), Command::Pause { pause: true });
        let receive = |audio, wanted| Command::Receive { audio, wanted };
        assert_eq!(with("receiveAudio", &[Value::Boolean(false)]), receive(true, false));
        assert_eq!(with("receiveVideo", &[Value::Boolean(true)]), receive(false, true));
        assert_eq!(with("whatever", &[]), Command::Other { name: "whatever".into() });
    }

    #[test]
    fn bytes_of_a_result() {
        let message = result(2.0, Value::Null, 1.0.into());
        let want = b"\x02\x00\x07_result\x00\x40\0\0\0\0\0\0\0\x05\x00\x3f\xf0\0\0\0\0\0\0";
        assert_eq!((message.csid, message.kind, &message.payload[..]), (3, 20, &want[..]));
    }

    #[test]
    fn connect_says_which_codecs_are_relayed() {
        let values = amf0::decode_all(&connect_result(1.0).payload, &LIMITS).expect("ours");
        let properties = &values[2];
        assert_eq!(properties.get("capsEx"), Some(&Value::Number(6.0)));
        assert_eq!(properties.get("fourCcList"), Some(&Value::StrictArray(vec!["*".into()])));
        let forward = |map| properties.get(map).and_then(|map| map.get("*")).and_then(Value::as_number);
        assert_eq!([forward("videoFourCcInfoMap"), forward("audioFourCcInfoMap")], [Some(4.0); 2]);
    }

    #[test]
    fn amf3_commands_are_amf0_after_a_zero() {
        let payload = [&[0][..], &amf0::encode(&["closeStream".into(), 0.0.into()])].concat();
        assert_eq!(Command::parse(&payload), Ok(Command::CloseStream));
        // Reading stops at an argument in AMF3.
        let payload = [amf0::encode(&["createStream".into(), 2.0.into()]), vec![17, 1]].concat();
        assert_eq!(Command::parse(&payload), Ok(Command::CreateStream { transaction: 2.0 }));
    }

    #[test]
    fn malformed_commands_are_refused() {
        assert!(Command::parse(b"").is_err());
        assert_eq!(Command::parse(b"\x05"), Err(AmfError::Marker { marker: 5 }));
        let deep = [amf0::encode(&["connect".into()]), b"\x03\x00\x01a".repeat(100_000)].concat();
        assert_eq!(Command::parse(&deep), Err(AmfError::TooDeep { limit: 8 }));
        // Arguments of unknown commands are not even decoded.
        let other = [amf0::encode(&["other".into()]), vec![255]].concat();
        assert_eq!(Command::parse(&other), Ok(Command::Other { name: "other".into() }));
    }

    #[test]
    fn truncated_commands_never_panic() {
        let whole = connect_result(1.0).payload;
        for len in 0..whole.len() {
            let _ = Command::parse(&whole[..len]);
        }
        assert!(matches!(Command::parse(&whole), Ok(Command::Result { transaction: 1.0, .. })));
    }
}
