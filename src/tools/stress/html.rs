//! The report as a page: numbers, and plots over time. The page is self-contained: no script, nothing to load.

use std::fmt::Write;

use plotters::prelude::*;

use super::monitor::Point;
use super::report::Report;

const SIZE: (u32, u32) = (720, 240);
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}\
    pre{background:#f4f4f4;padding:1rem;overflow:auto}svg{max-width:100%;height:auto}\
    .bad{color:#b00}.good{color:#070}";

/// The page.
pub(super) fn page(report: &Report, course: &[Point], distributions: &Distributions<'_>) -> String {
    let (class, verdict) = if report.passed() { ("good", "served") } else { ("bad", "NOT SERVED") };
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>uringcast stress</title><style>{STYLE}</style>\
         <h1>{} viewers: <span class={class}>{verdict}</span></h1><pre>{}</pre>",
        report.viewers,
        escape(&report.to_string())
    );
    let points = |pick: &dyn Fn(&Point) -> Option<f64>| -> Vec<(f64, f64)> {
        course.iter().filter_map(|point| Some((point.at, pick(point)?))).collect()
    };
    let plots = [
        ("Viewers watching", "seconds", points(&|point| Some(point.watching as f64))),
        ("Viewers that failed", "seconds", points(&|point| Some(point.failed as f64))),
        ("Mbit/s to all viewers", "seconds", points(&|point| Some(point.megabits_per_second))),
        ("Server, % of a core", "seconds", points(&|point| point.server_cpu_percent)),
        ("First keyframe, ms by percentile", "percentile", percentiles(distributions.first_keyframe)),
        (
            "Latency from the publisher's stamp, ms by percentile",
            "percentile",
            percentiles(distributions.latency),
        ),
    ];
    for (title, axis, points) in plots {
        if points.len() > 1 && points.iter().any(|(_, value)| *value > 0.0) {
            let _ = write!(page, "<h2>{title}</h2>{}", plot(&points, axis).unwrap_or_default());
        }
    }
    page
}

/// Raw values in microseconds.
pub(super) struct Distributions<'a> {
    pub(super) first_keyframe: &'a [u64],
    pub(super) latency: &'a [u64],
}

/// Milliseconds by percentile.
fn percentiles(values: &[u64]) -> Vec<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    (0..=100u32)
        .map(|percent| {
            let at = last * percent as usize / 100;
            (f64::from(percent), sorted[at] as f64 / 1e3)
        })
        .collect()
}

fn plot(points: &[(f64, f64)], axis: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let right = points.iter().map(|(x, _)| *x).fold(1e-3, f64::max);
        let top = points.iter().map(|(_, y)| *y).fold(1e-3, f64::max) * 1.05;
        let left = points.first().map_or(0.0, |(x, _)| *x);
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(32)
            .y_label_area_size(56)
            .build_cartesian_2d(left..right, 0.0..top)?;
        chart.configure_mesh().x_desc(axis).light_line_style(TRANSPARENT).draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), &BLUE))?;
        root.present()?;
    }
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measured_values_are_plotted() {
        let course: Vec<Point> = (0..40u32)
            .map(|n| Point { at: f64::from(n) / 4.0, watching: n as usize, ..Point::default() })
            .collect();
        let latency: Vec<u64> = (0..1000).collect();
        let page =
            page(&Report::default(), &course, &Distributions { first_keyframe: &[], latency: &latency });
        assert_eq!(page.matches("<svg").count(), 2, "{page}");
        assert!(page.contains("NOT SERVED") && page.contains("Viewers watching"));
        assert!(!page.contains("First keyframe, ms"));
        assert_eq!(percentiles(&latency)[50], (50.0, 0.499));
    }
}
