//! ffmpeg publishes to a server session over loopback, and tries to play.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use uringcast::media::tag::{Class, Tag, TagKind};
use uringcast::protocol::rtmp::server::{Event, Limits, Refusal, ServerSession};

/// Starts ffmpeg; `None`, with the reason printed, if it cannot be started.
fn ffmpeg(arguments: &str, url: &str) -> Option<Child> {
    let (before, after) = arguments.split_once("URL").expect("a place for the URL");
    let command = Command::new("ffmpeg")
        .args(["-hide_banner", "-nostdin", "-loglevel", "verbose"])
        .args(before.split_whitespace())
        .arg(url)
        .args(after.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    command.map_err(|error| eprintln!("skipped: ffmpeg does not start: {error}")).ok()
}

fn encodes(codec: &str) -> bool {
    let output = Command::new("ffmpeg").args(["-hide_banner", "-encoders"]).output();
    let known = output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(codec));
    if !known {
        eprintln!("skipped: no ffmpeg, or one without {codec}");
    }
    known
}

/// Serves one connection until the peer closes it.
fn serve(listener: &TcpListener) -> Vec<Event> {
    let (mut stream, _) = listener.accept().expect("ffmpeg connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut session = ServerSession::new(Limits::default());
    let mut events = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        session.input(&buffer[..len]).expect("ffmpeg speaks RTMP");
        drain(&mut session, &mut events);
        if !send(&mut session, &mut stream) {
            break;
        }
    }
    events
}

fn drain(session: &mut ServerSession, events: &mut Vec<Event>) {
    while let Some(event) = session.poll_event() {
        match event {
            Event::Publish { .. } => session.accept_publish(),
            Event::Play { .. } => session.refuse_play(Refusal::NotFound, "no such stream"),
            _ => {}
        }
        events.push(event);
    }
}

fn send(session: &mut ServerSession, stream: &mut TcpStream) -> bool {
    session.take_output().is_none_or(|bytes| stream.write_all(&bytes).is_ok())
}

fn log_of(child: Child) -> String {
    let output = child.wait_with_output().expect("ffmpeg ends");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Publishes two seconds of video and audio; `None` if that is not possible.
fn publish(options: &str) -> Option<(Vec<Event>, String)> {
    if !encodes("libx264") {
        return None;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("rtmp://{}/live/x?token=1", listener.local_addr().expect("bound"));
    let input = "-f lavfi -i testsrc2=size=320x180:rate=25 -f lavfi -i sine -t 2";
    let codecs = "-c:v libx264 -preset ultrafast -bf 2 -g 25 -c:a aac";
    let child = ffmpeg(&format!("{input} {codecs} {options} -f flv URL"), &url)?;
    let events = serve(&listener);
    Some((events, log_of(child)))
}

fn tags(events: &[Event]) -> Vec<&Tag> {
    events.iter().filter_map(|event| if let Event::Media(tag) = event { Some(tag) } else { None }).collect()
}

#[test]
fn ffmpeg_publishes() {
    let Some((events, log)) = publish("") else { return };
    let Some(Event::Publish { target, .. }) = events.first() else { panic!("{events:?}\n{log}") };
    assert_eq!((&*target.app, &*target.name, target.query.as_deref()), ("live", "x", Some("token=1")));
    let tags = tags(&events);
    let count = |kind, class| tags.iter().filter(|tag| (tag.kind, tag.class()) == (kind, class)).count();
    assert_eq!(tags[0].class(), Class::Metadata, "{log}");
    assert_eq!(count(TagKind::Video, Class::SequenceHeader), 1);
    assert_eq!(count(TagKind::Audio, Class::SequenceHeader), 1);
    assert_eq!(count(TagKind::Video, Class::KeyFrame), 2);
    assert_eq!(count(TagKind::Video, Class::InterFrame), 48);
    assert!(count(TagKind::Audio, Class::Sound) > 80);
    assert!(tags.iter().any(|tag| (1900..2100).contains(&tag.timestamp)));
    assert_eq!(events.last(), Some(&Event::Unpublish));
}

/// Beyond 4.66 hours the chunk headers' timestamps no longer fit their 24 bits.
#[test]
fn ffmpeg_publishes_extended_timestamps() {
    let Some((events, log)) = publish("-output_ts_offset 17000 -b:v 4M") else { return };
    let tags = tags(&events);
    let frames: Vec<_> = tags.iter().filter(|tag| tag.class() == Class::InterFrame).collect();
    assert_eq!(frames.len(), 48, "{log}");
    assert!(frames.iter().all(|tag| (16_999_000..17_003_000).contains(&tag.timestamp)), "{log}");
    assert_eq!(events.last(), Some(&Event::Unpublish));
}

/// ffmpeg verifies the digests of the handshake when it plays, and reports a mismatch.
#[test]
fn ffmpeg_is_refused_as_a_viewer() {
    if !encodes("aac") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("rtmp://{}/live/x", listener.local_addr().expect("bound"));
    let Some(child) = ffmpeg("-i URL -f null -", &url) else { return };
    let events = serve(&listener);
    let log = log_of(child);
    let [Event::Play { target, .. }] = &events[..] else { panic!("{events:?}\n{log}") };
    assert_eq!((&*target.app, &*target.name), ("live", "x"));
    assert!(log.contains("no such stream"), "{log}");
    assert!(!log.contains("validating failed"), "{log}");
}
