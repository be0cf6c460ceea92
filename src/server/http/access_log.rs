//! The access log: each loop writes lines into its own buffer and hands them over a few times a second. If the
//! writer cannot keep up, lines are dropped and counted; a loop never waits for it.

use std::fmt::Write;
use std::net::IpAddr;

use serde::Serialize;

use super::access_writer::LogQueue;
use crate::access::mask::without_tokens;
use crate::config::AccessFormat;
use crate::protocol::http::date::format_date;
use crate::protocol::http::request::Request;
use crate::uring::Millis;

/// A buffer of this size, in bytes, is handed over early.
const BATCH: usize = 64 << 10;
/// The longest target, referrer or agent that is written, in bytes; the rest is cut off.
const FIELD_MAX: usize = 1024;

/// What is known of a request when its answer starts.
#[derive(Debug)]
pub(in crate::server) struct Record {
    peer: Option<IpAddr>,
    line: String,
    referrer: Option<String>,
    agent: Option<String>,
    began: Millis,
}

/// What is known when the answer has ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Outcome {
    pub(in crate::server) role: &'static str,
    pub(in crate::server) status: u16,
    /// Bytes of the body that were sent.
    pub(in crate::server) bytes: u64,
    pub(in crate::server) now: Millis,
}

impl Record {
    pub(in crate::server) fn of_request(request: &Request, peer: Option<IpAddr>, now: Millis) -> Box<Self> {
        let field = |name| request.header(name).map(|value| cut(&without_tokens(value)).to_owned());
        let version = if request.version11 { "1.1" } else { "1.0" };
        let line =
            format!("{} {} HTTP/{version}", request.method.name(), cut(&without_tokens(&request.target)));
        Box::new(Self { peer, line, referrer: field("referer"), agent: field("user-agent"), began: now })
    }

    /// The record of a request that could not be parsed.
    pub(in crate::server) fn of_nonsense(peer: Option<IpAddr>, now: Millis) -> Box<Self> {
        Box::new(Self { peer, line: "-".to_owned(), referrer: None, agent: None, began: now })
    }
}

/// A loop's part of the access log.
#[derive(Debug)]
pub(in crate::server) struct Log {
    queue: LogQueue,
    format: AccessFormat,
    sample: u64,
    requests: u64,
    text: String,
    lines: u64,
}

impl Log {
    /// A log in which one request in `sample` is written.
    pub(in crate::server) fn new(queue: LogQueue, format: AccessFormat, sample: u64) -> Self {
        Self { queue, format, sample: sample.max(1), requests: 0, text: String::new(), lines: 0 }
    }

    /// Whether the next request is to be logged.
    pub(in crate::server) fn wants(&mut self) -> bool {
        self.requests += 1;
        self.requests.is_multiple_of(self.sample)
    }

    /// Writes a line.
    pub(in crate::server) fn write(&mut self, record: &Record, outcome: Outcome, second: u64) {
        match self.format {
            AccessFormat::Combined => combined(&mut self.text, record, outcome, second),
            AccessFormat::Json => json(&mut self.text, record, outcome, second),
        }
        self.lines += 1;
    }

    /// Whether the buffer is full enough to be handed over now.
    pub(in crate::server) fn is_full(&self) -> bool {
        self.text.len() >= BATCH
    }

    /// Hands over the buffered lines; returns the number of lines that were lost.
    pub(in crate::server) fn flush(&mut self) -> u64 {
        let lines = std::mem::take(&mut self.lines);
        if self.text.is_empty() || self.queue.offer(std::mem::take(&mut self.text)) { 0 } else { lines }
    }
}

fn cut(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= FIELD_MAX).last().unwrap_or(0);
    if text.len() <= FIELD_MAX { text } else { &text[..end] }
}

/// The combined format of nginx and Apache.
fn combined(text: &mut String, record: &Record, outcome: Outcome, second: u64) {
    let date = format_date(second);
    let part = |range| date.get(range).unwrap_or_default();
    let (day, month, year, clock) = (part(5..7), part(8..11), part(12..16), part(17..25));
    match record.peer {
        Some(peer) => drop(write!(text, "{peer}")),
        None => text.push('-'),
    }
    let _ = write!(text, " - - [{day}/{month}/{year}:{clock} +0000] \"");
    escape(text, &record.line);
    let _ = write!(text, "\" {} {} \"", outcome.status, outcome.bytes);
    escape(text, record.referrer.as_deref().unwrap_or("-"));
    text.push_str("\" \"");
    escape(text, record.agent.as_deref().unwrap_or("-"));
    text.push_str("\"\n");
}

/// Characters that could end a field or a line are written as `\xHH`.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        if c == '"' || c == '\\' || c.is_control() {
            let _ = write!(text, "\\x{:02X}", u32::from(c));
        } else {
            text.push(c);
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: u64,
    role: &'a str,
    peer: Option<IpAddr>,
    request: &'a str,
    status: u16,
    bytes: u64,
    ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
}

/// One object a line.
fn json(text: &mut String, record: &Record, outcome: Outcome, second: u64) {
    let line = Line {
        time: second,
        role: outcome.role,
        peer: record.peer,
        request: &record.line,
        status: outcome.status,
        bytes: outcome.bytes,
        ms: outcome.now.saturating_sub(record.began),
        referer: record.referrer.as_deref(),
        agent: record.agent.as_deref(),
    };
    text.push_str(&serde_json::to_string(&line).expect("plain data"));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            peer: Some("10.0.0.1".parse().unwrap()),
            line: "GET /a\"b\\ HTTP/1.1".to_owned(),
            referrer: None,
            agent: Some("x\u{1b}y é".to_owned()),
            began: 1_000,
        }
    }

    const OUTCOME: Outcome = Outcome { role: "file-gateway", status: 206, bytes: 500, now: 1_250 };

    #[test]
    fn combined_lines() {
        let mut text = String::new();
        combined(&mut text, &record(), OUTCOME, 784_111_777);
        let expected = "10.0.0.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a\\x22b\\x5C HTTP/1.1\" 206 500 \"-\" \
                        \"x\\x1By é\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_lines() {
        let mut text = String::new();
        json(&mut text, &record(), OUTCOME, 784_111_777);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&read["ms"], &read["status"], &read["peer"]),
            (&250.into(), &206.into(), &"10.0.0.1".into())
        );
        assert_eq!(read["request"], "GET /a\"b\\ HTTP/1.1");
    }
}
