//! Charts as SVG: what a node used over time. The newest value stands beside each, and the whole in
//! words for who does not see it.

use std::fmt::Write;
use std::time::Duration;

use maud::{Markup, html};
use model::{Bytes, UnixMillis};

use super::fleet::one;
use crate::db::Point;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;
/// A line is broken where nothing was said for so long.
const GAP: Duration = Duration::from_secs(1_000);

/// A line of a chart: a name, and values by time.
struct Line {
    name: &'static str,
    values: Vec<(UnixMillis, f64)>,
}

/// How values are written.
#[derive(Clone, Copy)]
enum Unit {
    Percent,
    Processors,
    BytesPerSecond,
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Unit::Percent => format!("{value:.0} %"),
            Unit::Processors => format!("{value:.2}"),
            Unit::BytesPerSecond => format!("{}/s", bytes(value)),
        }
    }
}

fn bytes(value: f64) -> String {
    // No node moves so much that a double has no whole number for it; less than nothing is nothing.
    let whole = format!("{:.0}", value.max(0.0)).parse().unwrap_or(u64::MAX);
    Bytes(whole).to_string()
}

/// A count as a number to draw with: 2^53 bytes are 8 PiB.
fn number(n: u64) -> f64 {
    let half = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    half(n >> 32) * 4_294_967_296.0 + half(n & 0xffff_ffff)
}

fn share(used: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| number(used) / number(total) * 100.0)
}

/// How fast a counter grew between two points; `None` if it began anew between them.
fn rate(points: &[Point], count: fn(&Point) -> u64, scale: f64) -> Vec<(UnixMillis, f64)> {
    let pairs = points.iter().zip(points.iter().skip(1));
    let grown = pairs.filter_map(|(a, b)| {
        let more = count(b).checked_sub(count(a))?;
        let took = b.at.since(a.at);
        (!took.is_zero()).then(|| (b.at, number(more) * scale / took.as_secs_f64()))
    });
    grown.collect()
}

/// The charts of a node from `since` to `now`.
pub(super) fn charts(points: &[Point], since: UnixMillis, now: UnixMillis) -> Markup {
    let of = |value: fn(&Point) -> Option<f64>| -> Vec<(UnixMillis, f64)> {
        points.iter().filter_map(|p| Some((p.at, value(p)?))).collect()
    };
    let memory = Line { name: "used", values: of(|p| share(p.memory_used, p.memory_total)) };
    let disk = Line { name: "used", values: of(|p| share(p.disk_used, p.disk_total)) };
    let cpu = Line { name: "busy", values: rate(points, |p| p.cpu_ns, 1e-9) };
    let received = Line { name: "received", values: rate(points, |p| p.received, 1.0) };
    let sent = Line { name: "sent", values: rate(points, |p| p.sent, 1.0) };
    let span = (since, now);
    html! {
        div.grid.three {
            (chart("Memory", Unit::Percent, Some(100.0), &[memory], span))
            (chart("Busy processors", Unit::Processors, None, &[cpu], span))
            (chart("Disk", Unit::Percent, Some(100.0), &[disk], span))
            @if received.values.iter().chain(&sent.values).any(|(_, v)| *v > 0.0) {
                (chart("Network", Unit::BytesPerSecond, None, &[received, sent], span))
            }
        }
    }
}

fn chart(
    title: &str,
    unit: Unit,
    top: Option<f64>,
    lines: &[Line],
    (since, now): (UnixMillis, UnixMillis),
) -> Markup {
    let values = || lines.iter().flat_map(|l| l.values.iter().map(|(_, v)| *v));
    if values().next().is_none() {
        return html! {
            section.card { h2 { (title) } p.soft { "No figures yet. Nodes send them every minute or so." } }
        };
    }
    let highest = values().fold(0.0, f64::max);
    let lowest = values().fold(f64::MAX, f64::min);
    let top = top.unwrap_or(highest * 1.1).max(f64::MIN_POSITIVE);
    let newest = |line: &Line| line.values.last().map_or(0.0, |(_, v)| *v);
    let words: Vec<String> =
        lines.iter().map(|l| format!("{} {} now", l.name, unit.write(newest(l)))).collect();
    let words = format!(
        "{title}: {}; between {} and {}",
        words.join(", "),
        unit.write(lowest),
        unit.write(highest)
    );
    let width = number(now.since(since).as_secs()).max(1.0);
    html! {
        section.card {
            div.chart-head {
                h2 { (title) }
                span {
                    @for (n, line) in lines.iter().enumerate() {
                        @if lines.len() > 1 { span class={ "key" @if n > 0 { " second" } } { (line.name) } " " }
                        b { (unit.write(newest(line))) } " "
                    }
                }
            }
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
                @for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
                    line.axis x1="0" x2=(WIDTH) y1=(one(HEIGHT * part)) y2=(one(HEIGHT * part)) {}
                }
                @for (n, line) in lines.iter().enumerate() {
                    @let x = |at: UnixMillis| number(at.since(since).as_secs()) / width * WIDTH;
                    @let y = |v: f64| HEIGHT - (v / top).clamp(0.0, 1.0) * HEIGHT;
                    @if n == 0 { path.area d=(area(line, &x, &y)) {} }
                    path class={ "trace" @if n > 0 { " second" } } d=(trace(line, &x, &y)) {}
                }
            }
            div.chart-foot {
                span { (crate::words::ago(now, since)) }
                span { "top of the chart: " (unit.write(top)) }
                span { "now" }
            }
        }
    }
}

/// The runs of a line between its gaps.
fn runs(line: &Line) -> impl Iterator<Item = &[(UnixMillis, f64)]> {
    line.values.chunk_by(|a, b| b.0.since(a.0) < GAP)
}

fn trace(line: &Line, x: &dyn Fn(UnixMillis) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for run in runs(line) {
        for (n, (at, value)) in run.iter().enumerate() {
            let letter = if n == 0 { 'M' } else { 'L' };
            // Writing to a string does not fail.
            let _ = write!(path, "{letter}{:.1} {:.1}", x(*at), y(*value));
        }
        if let [(at, value)] = run {
            // One point alone is a short dash.
            let _ = write!(path, "L{:.1} {:.1}", x(*at) + 2.0, y(*value));
        }
    }
    path
}

fn area(line: &Line, x: &dyn Fn(UnixMillis) -> f64, y: &dyn Fn(f64) -> f64) -> String {
    let mut path = String::new();
    for run in runs(line) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let _ = write!(path, "M{:.1} {HEIGHT}", x(first.0));
        for (at, value) in run {
            let _ = write!(path, "L{:.1} {:.1}", x(*at), y(*value));
        }
        let _ = write!(path, "L{:.1} {HEIGHT}Z", x(last.0));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(s: u64, cpu: u64) -> Point {
        Point { at: UnixMillis(s * 1000), cpu_ns: cpu, ..Point::default() }
    }

    #[test]
    fn counters_become_rates_and_a_reboot_is_no_rate() {
        let points = [point(0, 0), point(10, 5_000_000_000), point(20, 1), point(20, 2)];
        let rates = rate(&points, |p| p.cpu_ns, 1e-9);
        assert_eq!(rates, [(UnixMillis(10_000), 0.5)]);
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_said() {
        let at = |s: u64, v| (UnixMillis(s * 1000), v);
        let line = Line { name: "x", values: vec![at(0, 1.0), at(60, 1.0), at(5_000, 1.0)] };
        let x = |at: UnixMillis| number(at.0 / 1000);
        assert_eq!(trace(&line, &x, &|v| v), "M0.0 1.0L60.0 1.0M5000.0 1.0L5002.0 1.0");
    }

    #[test]
    fn large_counts_are_drawn() {
        assert!((number(1 << 40) - 1_099_511_627_776.0).abs() < 1.0);
    }
}
