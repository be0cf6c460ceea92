//! HLS playlists (RFC 8216): the window that live players see, the journal from which a take is replayed, and
//! the master playlist of separate tracks.

use std::collections::VecDeque;
use std::fmt::Write;

/// One segment in a playlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The name of its file.
    pub uri: String,
    /// In milliseconds.
    pub duration: u32,
    /// It does not continue where the previous segment ended.
    pub discontinuity: bool,
    /// The init segment that it needs.
    pub map: Option<String>,
    /// It begins inside a group of pictures: it cannot be decoded without the one before it.
    pub dependent: bool,
}

/// The properties of a playlist, apart from its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `EXT-X-TARGETDURATION`, in seconds: no segment's rounded duration exceeds it. It never changes while a
    /// playlist is live (RFC 8216, 6.2.1).
    pub target: u32,
    /// The number of its first segment.
    pub sequence: u64,
    /// Discontinuities before its first segment.
    pub discontinuities: u64,
}

impl Head {
    /// The head of a playlist that continues after these segments of a playlist with this head.
    fn after<'a>(&self, segments: impl Iterator<Item = &'a Segment>) -> Self {
        segments.fold(Self { target: 0, ..*self }, |head, segment| Self {
            sequence: head.sequence.saturating_add(1),
            discontinuities: head.discontinuities.saturating_add(u64::from(segment.discontinuity)),
            ..head
        })
    }
}

/// Whether more segments may come, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Segments are added at the end and removed at the front.
    Live,
    /// Segments are added at the end.
    Event,
    /// Complete.
    Ended,
}

/// A duration in whole seconds for `EXT-X-TARGETDURATION`.
pub fn rounded_seconds(millis: u32) -> u32 {
    (millis + 500) / 1000
}

/// What the lines before the segments say of all segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// There are init segments.
    pub mapped: bool,
    /// Each segment can be decoded without another.
    pub independent: bool,
}

/// Writes the lines before the segments.
pub fn write_head(head: &Head, kind: Kind, Traits { mapped, independent }: Traits, out: &mut String) {
    let version = if mapped { 7 } else { 3 };
    let Head { target, sequence, discontinuities } = head;
    let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target}");
    let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{sequence}");
    if *discontinuities > 0 {
        let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuities}");
    }
    if independent {
        out.push_str(INDEPENDENT);
    }
    match kind {
        Kind::Live => {}
        Kind::Event => out.push_str("#EXT-X-PLAYLIST-TYPE:EVENT\n"),
        Kind::Ended => out.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n"),
    }
}

/// The start of the line that names an init segment, up to the name.
const MAP: &str = "#EXT-X-MAP:URI=\"";
/// The line that says that each segment can be decoded without another.
const INDEPENDENT: &str = "#EXT-X-INDEPENDENT-SEGMENTS\n";
/// The line before a segment that cannot: a comment, so that a journal tells it.
const DEPENDENT: &str = "# begins inside a group of pictures\n";
/// The line after the last segment of a finished stream.
pub const END: &str = "#EXT-X-ENDLIST\n";

impl Segment {
    /// Writes the segment's lines; its init segment only if it differs from `before`.
    pub fn write(&self, before: Option<&str>, out: &mut String) {
        if self.discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if let Some(map) = self.map.as_deref().filter(|map| Some(*map) != before) {
            let _ = writeln!(out, "{MAP}{map}\"");
        }
        if self.dependent {
            out.push_str(DEPENDENT);
        }
        let (seconds, millis) = (self.duration / 1000, self.duration % 1000);
        let _ = writeln!(out, "#EXTINF:{seconds}.{millis:03},\n{}", self.uri);
    }
}

/// The newest segments of a stream.
#[derive(Clone, Debug)]
pub struct Window {
    head: Head,
    segments: VecDeque<Segment>,
    size: usize,
    /// No segment so far was dependent.
    independent: bool,
}

impl Window {
    /// An empty window of at most `size` segments.
    pub fn new(head: Head, size: usize) -> Self {
        Self { head, segments: VecDeque::new(), size: size.max(1), independent: true }
    }

    /// Appends the next segment; the oldest is removed if the window is full.
    pub fn push(&mut self, segment: Segment) {
        debug_assert!(rounded_seconds(segment.duration) <= self.head.target, "{:?}: {segment:?}", self.head);
        self.independent &= !segment.dependent;
        self.segments.push_back(segment);
        self.trim();
    }

    /// Appends a segment at its place: `head` has its number and the target duration. If it does not follow the
    /// newest one, the window begins anew with it, since a number follows from a place in the playlist.
    pub fn push_at(&mut self, head: Head, segment: Segment) {
        let next = self.next_head();
        if self.segments.is_empty() || next.sequence != head.sequence {
            let discontinuities = head.discontinuities.max(next.discontinuities);
            self.segments.clear();
            self.head = Head { discontinuities, ..head };
        }
        self.push(segment);
    }

    /// Changes the number of segments that it holds at most.
    pub fn resize(&mut self, size: usize) {
        self.size = size.max(1);
        self.trim();
    }

    fn trim(&mut self) {
        while self.segments.len() > self.size
            && let Some(gone) = self.segments.pop_front()
        {
            self.head.sequence += 1;
            self.head.discontinuities += u64::from(gone.discontinuity);
        }
    }

    /// What all its segments have in common.
    pub fn traits(&self) -> Traits {
        let mapped = self.segments.iter().any(|segment| segment.map.is_some());
        Traits { mapped, independent: self.independent }
    }

    /// Its current head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter()
    }

    /// The head of a playlist that continues after this one.
    pub fn next_head(&self) -> Head {
        self.head.after(self.segments.iter())
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The playlist.
    pub fn render(&self, ended: bool) -> String {
        let mut out = String::with_capacity(64 * (self.segments.len() + 4));
        write_head(&self.head, Kind::Live, self.traits(), &mut out);
        let mut map = None;
        for segment in &self.segments {
            segment.write(map, &mut out);
            map = segment.map.as_deref();
        }
        if ended {
            out.push_str(END);
        }
        out
    }
}

/// A playlist that was parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Playlist {
    /// Its head.
    pub head: Head,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Whether no more segments come.
    pub ended: bool,
    /// Whether each segment can be decoded without another.
    pub independent: bool,
}

/// The most segments of a playlist that are read: ten days of four seconds each.
const SEGMENTS_MAX: usize = 216_000;

impl Playlist {
    /// Reads what this module writes. A truncated last line is ignored; unknown tags are skipped.
    pub fn parse(text: &str) -> Self {
        let mut playlist = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let (mut duration, mut discontinuity, mut map, mut dependent) = (None, false, None, false);
        for line in whole.split('\n').map(|line| line.trim_end_matches('\r')) {
            let number = |prefix: &str| line.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
            if let Some(rest) = line.strip_prefix("#EXTINF:") {
                duration = parse_seconds(rest);
            } else if line == "#EXT-X-DISCONTINUITY" {
                discontinuity = true;
            } else if line == DEPENDENT.trim_end() {
                dependent = true;
            } else if line == INDEPENDENT.trim_end() {
                playlist.independent = true;
            } else if let Some(uri) = line.strip_prefix(MAP).and_then(|rest| rest.strip_suffix('"')) {
                map = Some(uri.to_owned());
            } else if let Some(target) = number("#EXT-X-TARGETDURATION:") {
                playlist.head.target = u32::try_from(target).unwrap_or(u32::MAX);
            } else if let Some(sequence) = number("#EXT-X-MEDIA-SEQUENCE:") {
                playlist.head.sequence = sequence;
            } else if let Some(count) = number("#EXT-X-DISCONTINUITY-SEQUENCE:") {
                playlist.head.discontinuities = count;
            } else if line == END.trim_end() {
                playlist.ended = true;
            } else if let Some(duration) = duration.take_if(|_| !line.starts_with('#') && !line.is_empty())
                && playlist.segments.len() < SEGMENTS_MAX
            {
                let discontinuity = std::mem::take(&mut discontinuity);
                let (uri, map, dependent) = (line.to_owned(), map.clone(), std::mem::take(&mut dependent));
                playlist.segments.push(Segment { uri, duration, discontinuity, map, dependent });
            }
        }
        playlist.independent &= !playlist.segments.iter().any(|segment| segment.dependent);
        playlist
    }

    /// The whole playlist for replay.
    pub fn render(&self) -> String {
        let mut head = self.head;
        let longest = self.segments.iter().map(|segment| rounded_seconds(segment.duration)).max();
        head.target = head.target.max(longest.unwrap_or(0)).max(1);
        let mut out = String::with_capacity(64 * (self.segments.len() + 4));
        let mapped = self.segments.iter().any(|segment| segment.map.is_some());
        write_head(&head, Kind::Ended, Traits { mapped, independent: self.independent }, &mut out);
        let mut map = None;
        for segment in &self.segments {
            segment.write(map, &mut out);
            map = segment.map.as_deref();
        }
        out.push_str(END);
        out
    }

    /// The head of a playlist that continues after this one.
    pub fn next_head(&self) -> Head {
        self.head.after(self.segments.iter())
    }
}

/// `4.000,` as milliseconds.
fn parse_seconds(text: &str) -> Option<u32> {
    let text = text.split(',').next()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<u32>().ok()?;
    seconds.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(millis)
}

/// A track of a master playlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// Its playlist.
    pub uri: String,
    /// The codec string of RFC 6381.
    pub codecs: String,
    /// Bits per second: peak and mean.
    pub bandwidth: (u64, u64),
}

/// A master playlist of separate picture and sound; either may be missing.
pub fn master(video: Option<(&Rendition, u16, u16)>, audio: Option<&Rendition>) -> String {
    let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    let group = if let (Some(_), Some(audio)) = (video, audio) {
        let uri = &audio.uri;
        let _ = writeln!(
            out,
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,URI=\"{uri}\""
        );
        ",AUDIO=\"audio\""
    } else {
        ""
    };
    let all = [video.map(|(rendition, ..)| rendition), audio];
    let Some(uri) = all.iter().flatten().map(|rendition| &rendition.uri).next() else { return out };
    let codecs: Vec<&str> = all.iter().flatten().map(|rendition| rendition.codecs.as_str()).collect();
    let peak: u64 = all.iter().flatten().map(|rendition| rendition.bandwidth.0).sum();
    let mean: u64 = all.iter().flatten().map(|rendition| rendition.bandwidth.1).sum();
    let size = video.map_or_else(String::new, |(_, width, height)| format!(",RESOLUTION={width}x{height}"));
    let codecs = codecs.join(",");
    let _ = writeln!(
        out,
        "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean},CODECS=\"{codecs}\"{size}{group}\n{uri}"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32, discontinuity: bool) -> Segment {
        let (uri, map) = (format!("segment_{number}.m4s"), Some("init.mp4".to_owned()));
        Segment { uri, duration: 4000 + number, discontinuity, map, dependent: false }
    }

    const MAPPED: Traits = Traits { mapped: true, independent: true };

    #[test]
    fn a_window_slides_and_its_numbers_only_rise() {
        let mut window = Window::new(Head { target: 4, sequence: 7, discontinuities: 0 }, 3);
        let mut last = *window.head();
        for number in 0..10 {
            window.push(segment(number, number == 2));
            let head = *window.head();
            assert!(head.sequence >= last.sequence && head.discontinuities >= last.discontinuities);
            last = head;
            let read = Playlist::parse(&window.render(false));
            assert_eq!((read.head, read.ended), (head, false));
            assert_eq!(read.segments.last(), Some(&segment(number, number == 2)));
        }
        assert_eq!(last, Head { target: 4, sequence: 14, discontinuities: 1 });
        let text = window.render(true);
        assert!(
            text.ends_with(END)
                && text.contains("EXT-X-MAP")
                && text.contains("EXTINF:4.009,\nsegment_9.m4s\n")
        );
    }

    #[test]
    fn a_segment_that_begins_inside_a_group_is_told_and_never_forgotten() {
        let mut window = Window::new(Head { target: 5, ..Head::default() }, 2);
        for number in 0..4 {
            let dependent = number == 1;
            window.push(Segment { dependent, ..segment(number, false) });
            let text = window.render(false);
            assert_eq!(text.contains(INDEPENDENT), number == 0, "{text}");
            let playlist = Playlist::parse(&text);
            assert_eq!(playlist.segments.iter().any(|one| one.dependent), (1..3).contains(&number));
            assert_eq!(playlist.render().contains(INDEPENDENT), number == 0);
            assert_eq!(window.head().target, 5);
        }
    }

    #[test]
    fn lines_without_meaning_are_ignored() {
        let (good, torn) = (segment(1, false), "#EXT-X-MAP:URI=\"init.m\n#EXTINF:abc,\nx\n");
        let mut text = String::new();
        good.write(None, &mut text);
        text.push_str(torn);
        good.write(Some("init.mp4"), &mut text);
        assert_eq!(Playlist::parse(&text).segments, [good.clone(), good]);
    }

    #[test]
    fn a_journal_reads_back_without_what_was_cut_off() {
        let mut text = String::new();
        write_head(&Head { target: 4, sequence: 3, discontinuities: 2 }, Kind::Event, MAPPED, &mut text);
        let mut ends = Vec::new();
        for number in 0..4 {
            segment(number, number == 1).write(None, &mut text);
            ends.push(text.len());
        }
        for at in 0..=text.len() {
            let playlist = Playlist::parse(&text[..at]);
            let whole = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(playlist.segments.len(), whole, "cut at {at}");
        }
        let playlist = Playlist::parse(&text);
        assert_eq!(playlist.next_head(), Head { target: 0, sequence: 7, discontinuities: 3 });
        let replay = Playlist::parse(&playlist.render());
        assert_eq!((replay.segments, replay.ended), (playlist.segments, true));
    }

    #[test]
    fn a_master_names_the_tracks_that_exist() {
        let rendition = |uri: &str, codecs: &str| Rendition {
            uri: uri.to_owned(),
            codecs: codecs.to_owned(),
            bandwidth: (2000, 1000),
        };
        let (video, audio) = (rendition("video.m3u8", "avc1.4d401e"), rendition("audio.m3u8", "mp4a.40.2"));
        let both = master(Some((&video, 640, 360)), Some(&audio));
        assert!(
            both.contains(
                "CODECS=\"avc1.4d401e,mp4a.40.2\",RESOLUTION=640x360,AUDIO=\"audio\"\nvideo.m3u8\n"
            )
        );
        assert!(both.contains("BANDWIDTH=4000,AVERAGE-BANDWIDTH=2000"));
        let sound = master(None, Some(&audio));
        assert!(sound.ends_with("CODECS=\"mp4a.40.2\"\naudio.m3u8\n") && !sound.contains("EXT-X-MEDIA:"));
    }
}
