//! Lines in a picture.

use std::fmt::Write;

/// Points that are joined.
#[derive(Clone, Debug)]
pub struct Line {
    /// In the legend.
    pub name: String,
    /// (x, y), x rising.
    pub points: Vec<(f64, f64)>,
    /// A CSS color.
    pub color: &'static str,
}

impl Line {
    /// Values at x = 1, 2, ….
    #[must_use]
    pub fn of(name: impl Into<String>, values: &[f64], color: &'static str) -> Line {
        let points = values.iter().enumerate().map(|(i, &v)| ((i + 1) as f64, v)).collect();
        Line { name: name.into(), points, color }
    }
}

/// A picture of lines over the same steps.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Below it.
    pub across: &'static str,
    /// The lines, the first below the others.
    pub lines: Vec<Line>,
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 34.0;

/// Charts side by side.
#[must_use]
pub fn picture(charts: &[Chart]) -> String {
    let legend = charts.iter().map(|c| c.lines.len()).max().unwrap_or(0) as f64 * 18.0;
    let (width, height) = (charts.len() as f64 * (WIDTH + LEFT) + 24.0, TOP + HEIGHT + 48.0 + legend);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, chart) in charts.iter().enumerate() {
        chart.draw(&mut out, LEFT + n as f64 * (WIDTH + LEFT));
    }
    out.push_str("</svg>\n");
    out
}

impl Chart {
    fn draw(&self, out: &mut String, left: f64) {
        let all = || self.lines.iter().flat_map(|l| &l.points).copied().filter(|(_, y)| y.is_finite());
        let steps = all().map(|(x, _)| x).fold(2.0, f64::max);
        let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), (_, y)| (l.min(y), h.max(y)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let step = tidy((high - low).max(1e-9) / 5.0);
        let (low, high) = ((low / step).floor() * step, (high / step).ceil() * step);
        let bottom = TOP + HEIGHT;
        let y = |v: f64| bottom - HEIGHT * (v - low) / (high - low).max(step);
        let x = |step: f64| left + WIDTH * (step - 1.0) / (steps - 1.0);
        let _ = writeln!(out, "<text x=\"{left:.1}\" y=\"20\" font-weight=\"bold\">{}</text>", escaped(&self.title));
        let mut tick = low;
        while tick <= high + step / 2.0 {
            let (at, right) = (y(tick), left + WIDTH);
            let _ = writeln!(
                out,
                "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 5.0,
                at + 4.0,
                (tick * 1e6).round() / 1e6
            );
            tick += step;
        }
        let every = tidy(steps / 6.0).round().max(1.0);
        let labels = (1..=(steps / every) as u64).map(|n| n as f64 * every);
        for label in std::iter::once(1.0).filter(|_| every > 1.0).chain(labels) {
            let at = x(label);
            let _ =
                writeln!(out, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0);
        }
        let middle = left + WIDTH / 2.0;
        let _ = writeln!(
            out,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 32.0,
            self.across
        );
        for (n, line) in self.lines.iter().enumerate() {
            let drawn = line.points.iter().filter(|(_, y)| y.is_finite());
            let points = drawn.map(|&(step, value)| format!("{:.1},{:.1}", x(step), y(value)));
            let points = points.collect::<Vec<_>>().join(" ");
            let width = if n == 0 { 3.5 } else { 1.4 };
            let style = format!("stroke=\"{}\" stroke-width=\"{width}\"", line.color);
            let at = bottom + 48.0 + 18.0 * n as f64;
            let _ = writeln!(
                out,
                "<polyline points=\"{points}\" fill=\"none\" {style}/>\n\
                 <line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" {style}/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                left + 24.0,
                left + 30.0,
                at + 4.0,
                escaped(&line.name)
            );
        }
    }
}

/// The next of 1, 2, 5, 10, …
fn tidy(x: f64) -> f64 {
    let decade = 10_f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|n| n * decade).find(|&n| n >= x * 0.999).unwrap_or(10.0 * decade)
}

/// Text in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_drawn_stays_inside() {
        let lines = vec![
            Line::of("a < b", &[3.0, f64::INFINITY, 1.0], "#104080"),
            Line { name: "few".into(), points: vec![(2.0, 2.5)], color: "#c03030" },
        ];
        let drawn = picture(&[
            Chart { title: "t & u".into(), across: "step", lines },
            Chart { title: String::new(), across: "", lines: vec![] },
        ]);
        assert!(
            drawn.contains("a &lt; b")
                && drawn.contains("t &amp; u")
                && !drawn.contains("inf")
                && !drawn.contains("NaN")
        );
        assert_eq!(drawn.matches("<svg").count(), 1);
    }

    #[test]
    fn steps_are_tidy() {
        assert_eq!([0.7, 1.0, 1.3, 3.0, 70.0].map(tidy), [1.0, 1.0, 2.0, 5.0, 100.0]);
    }
}
