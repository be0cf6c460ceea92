//! CPU and memory of a process, from `/proc/PID/stat`.

/// One reading; times since the process began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all its threads.
    pub(super) cpu_seconds: f64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
}

/// Reads `pid`, or this process when there is none.
pub(super) fn usage(pid: Option<u32>) -> Option<Usage> {
    let who = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    parse(&std::fs::read_to_string(format!("/proc/{who}/stat")).ok()?)
}

/// Fields 14, 15 (clock ticks) and 24 (pages) of proc_pid_stat(5); the name in field 2 may hold anything.
fn parse(stat: &str) -> Option<Usage> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let field = |number: usize| behind_name.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    Some(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: field(24)? * rustix::param::page_size() as u64,
    })
}

#[test]
fn names_with_brackets_and_spaces_do_not_shift_the_fields() {
    let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 1 0 12345 8000000 512 1844";
    let usage = parse(stat).unwrap();
    assert!((usage.cpu_seconds * rustix::param::clock_ticks_per_second() as f64 - 400.0).abs() < 1e-6);
    assert_eq!(usage.rss_bytes, 512 * rustix::param::page_size() as u64);
    assert!(parse("nonsense").is_none());
}
