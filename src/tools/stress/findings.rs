//! The results of one process of a run. The results of several processes are merged into one report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts and raw values, in microseconds where they are times.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) viewers: usize,
    pub(super) connected: usize,
    pub(super) failed: usize,
    pub(super) reasons: BTreeMap<String, usize>,
    pub(super) starved: usize,
    pub(super) stalls: u64,
    pub(super) seconds: f64,
    pub(super) bytes: u64,
    /// A live stream was played.
    pub(super) live: bool,
    /// Bytes that the viewers should have got.
    pub(super) reference_bytes: u64,
    /// How far viewers may lag at the end, in bytes.
    pub(super) slack_bytes: u64,
    /// Bytes that viewers got of those that they should have got.
    pub(super) served: f64,
    pub(super) owed: f64,
    pub(super) worst_percent: f64,
    pub(super) sampled: usize,
    pub(super) sampled_tags: u64,
    pub(super) media_rate: f64,
    pub(super) first_byte: Vec<u64>,
    pub(super) first_keyframe: Vec<u64>,
    /// From the publisher's stamp to the arrival, of sampled viewers.
    pub(super) latency: Vec<u64>,
    /// From a request to the end of its response.
    pub(super) answers: Vec<u64>,
    pub(super) reads: u64,
    pub(super) read_bytes: u64,
    pub(super) own_cpu_seconds: f64,
}

/// The state of a run at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// Seconds since the run began.
    pub(super) at: f64,
    /// Viewers that have media and have not failed.
    pub(super) watching: usize,
    /// Viewers that have failed.
    pub(super) failed: usize,
    /// Bytes that came so far.
    pub(super) bytes: u64,
    /// Whether the measured time has begun.
    pub(super) measuring: bool,
}

impl Findings {
    /// Adds another process's results.
    pub(super) fn merge(&mut self, other: Self) {
        self.viewers += other.viewers;
        self.connected += other.connected;
        self.failed += other.failed;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.starved += other.starved;
        self.stalls += other.stalls;
        self.seconds = self.seconds.max(other.seconds);
        self.bytes += other.bytes;
        self.reference_bytes = self.reference_bytes.max(other.reference_bytes);
        self.slack_bytes = self.slack_bytes.max(other.slack_bytes);
        self.served += other.served;
        self.owed += other.owed;
        self.worst_percent = self.worst_percent.min(other.worst_percent);
        self.sampled += other.sampled;
        self.sampled_tags += other.sampled_tags;
        self.media_rate = self.media_rate.min(other.media_rate);
        self.first_byte.extend(other.first_byte);
        self.first_keyframe.extend(other.first_keyframe);
        self.latency.extend(other.latency);
        self.answers.extend(other.answers);
        self.reads += other.reads;
        self.read_bytes += other.read_bytes;
        self.own_cpu_seconds += other.own_cpu_seconds;
    }
}

impl Sample {
    /// The sum over the processes.
    pub(super) fn sum(samples: &[Self]) -> Self {
        samples.iter().fold(Self { measuring: true, ..Self::default() }, |sum, one| Self {
            at: sum.at.max(one.at),
            watching: sum.watching + one.watching,
            failed: sum.failed + one.failed,
            bytes: sum.bytes + one.bytes,
            measuring: sum.measuring && one.measuring,
        })
    }
}
