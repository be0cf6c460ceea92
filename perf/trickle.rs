//! Holds connections that each ask for a file now and then, and says how the answers came.
//!
//! `trickle ADDR PATH CONNECTIONS PERIOD_MS SECONDS`: each connection asks once in a period, at a time of its own.
//! Prints `held`, `answers`, `failures`, and the latency's median and 99th percentile in milliseconds.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What all connections found.
#[derive(Default)]
struct Tally {
    held: u64,
    answers: u64,
    failures: u64,
    /// In microseconds.
    latencies: Vec<u64>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, connections, period, seconds] = arguments.as_slice() else {
        anyhow::bail!("usage: trickle ADDR PATH CONNECTIONS PERIOD_MS SECONDS");
    };
    let address: SocketAddr = address.parse().context("the address")?;
    let connections: u64 = connections.parse().context("the number of connections")?;
    let period = Duration::from_millis(period.parse().context("the period")?);
    let seconds = Duration::from_secs(seconds.parse().context("the time")?);
    let request = Rc::new(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = tokio::task::LocalSet::new().block_on(&runtime, async move {
        // All connect within a period, and so ask evenly ever after.
        let start = Instant::now();
        let until = start + period + seconds;
        let tasks: Vec<_> = (0..connections)
            .map(|number| {
                let request = Rc::clone(&request);
                let at = start + period.mul_f64(number as f64 / connections as f64);
                tokio::task::spawn_local(hold(address, request, at, period, until))
            })
            .collect();
        let mut sum = Tally::default();
        for task in tasks {
            let one = task.await.unwrap_or_default();
            sum.held += one.held;
            sum.answers += one.answers;
            sum.failures += one.failures;
            sum.latencies.extend(one.latencies);
        }
        sum
    });
    let mut histogram = Histogram::<u64>::new(3)?;
    for latency in &tally.latencies {
        histogram.record(*latency)?;
    }
    let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    eprintln!(
        "held={} answers={} failures={} p50_ms={:.2} p99_ms={:.2}",
        tally.held,
        tally.answers,
        tally.failures,
        ms(0.5),
        ms(0.99)
    );
    Ok(())
}

/// One connection to its end: a failure ends it early.
async fn hold(
    address: SocketAddr,
    request: Rc<String>,
    at: Instant,
    period: Duration,
    until: Instant,
) -> Tally {
    let mut tally = Tally::default();
    tokio::time::sleep_until(at.into()).await;
    let Ok(mut socket) = TcpStream::connect(address).await else {
        return Tally { failures: 1, ..tally };
    };
    tally.held = 1;
    let mut next = at;
    while next < until {
        tokio::time::sleep_until(next.into()).await;
        let asked = Instant::now();
        match tokio::time::timeout(Duration::from_secs(20), ask(&mut socket, &request)).await {
            Ok(Ok(())) => tally.answers += 1,
            _ => {
                tally.failures += 1;
                return tally;
            }
        }
        tally.latencies.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        next += period;
    }
    tally
}

/// Asks once and reads the whole answer.
async fn ask(socket: &mut TcpStream, request: &str) -> Result<()> {
    socket.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 32 << 10];
    let mut head = Vec::new();
    let end = loop {
        let len = socket.read(&mut buffer).await?;
        ensure!(len > 0, "closed");
        head.extend_from_slice(&buffer[..len]);
        if let Some(at) = head.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = std::str::from_utf8(&head[..end])?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "another status");
    let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")).context("no length")?;
    let mut left = length.parse::<usize>()?.checked_sub(head.len() - end).context("too much")?;
    while left > 0 {
        let len = socket.read(&mut buffer).await?;
        ensure!(len > 0 && len <= left, "closed, or too much");
        left -= len;
    }
    Ok(())
}
