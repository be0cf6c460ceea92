//! The resources that a process uses, from `/proc/PID`.

/// One reading; times are since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all its threads.
    pub(super) cpu_seconds: f64,
    /// Resident memory.
    pub(super) rss_bytes: u64,
    /// The part of it that is shared memory: the logs of streams.
    pub(super) shared_bytes: u64,
    /// Memory of all TCP sockets of the machine's network namespace.
    pub(super) tcp_bytes: u64,
}

/// Reads `pid`, or this process if there is none.
pub(super) fn usage(pid: Option<u32>) -> Option<Usage> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let read = |path: String| std::fs::read_to_string(path).ok();
    let mut usage = parse_stat(&read(format!("/proc/{process}/stat"))?)?;
    let status = read(format!("/proc/{process}/status")).unwrap_or_default();
    usage.shared_bytes = field_of(&status, "RssShmem:", 0).unwrap_or(0) << 10;
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    usage.tcp_bytes = tcp_pages(&sockets).unwrap_or(0) * rustix::param::page_size() as u64;
    Some(usage)
}

/// Fields 14, 15 (clock ticks) and 24 (pages) of proc_pid_stat(5); the name in field 2 may contain anything.
fn parse_stat(stat: &str) -> Option<Usage> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let field = |number: usize| behind_name.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    Some(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: field(24)? * rustix::param::page_size() as u64,
        ..Usage::default()
    })
}

/// The number at `place` after `name` in a file of lines.
fn field_of(text: &str, name: &str, place: usize) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(place)?.parse().ok()
}

/// `mem` of the line `TCP:` in /proc/net/sockstat, in pages.
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    line.split_whitespace().skip_while(|word| *word != "mem").nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_spaces_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 1 0 12345 8000000 512 1844";
        let usage = parse_stat(stat).unwrap();
        assert!((usage.cpu_seconds * rustix::param::clock_ticks_per_second() as f64 - 400.0).abs() < 1e-6);
        assert_eq!(usage.rss_bytes, 512 * rustix::param::page_size() as u64);
        assert!(parse_stat("nonsense").is_none());
    }

    #[test]
    fn memory_is_found_by_name() {
        assert_eq!(field_of("VmRSS:\t 10 kB\nRssShmem:\t  7 kB\n", "RssShmem:", 0), Some(7));
        let sockets = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 12\nUDP: inuse 1 mem 3\n";
        assert_eq!(tcp_pages(sockets), Some(12));
        assert!(usage(None).is_some_and(|usage| usage.rss_bytes > 0));
    }
}
