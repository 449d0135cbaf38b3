//! The picture: loss by step, fixed point over `f32`.

use super::run::name;
use super::study::Outcome;
use std::fmt::Write;

const PANEL: (f64, f64) = (420.0, 260.0);
const MARGIN: (f64, f64) = (52.0, 34.0);

/// One panel an optimizer: every seed's loss, on a logarithmic scale where it falls by more than a half; `f32` broad and light,
/// fixed point thin and dark.
#[must_use]
pub fn picture(outcomes: &[Outcome]) -> String {
    let width = outcomes.len() as f64 * (PANEL.0 + MARGIN.0) + 20.0;
    let height = PANEL.1 + 2.0 * MARGIN.1 + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (n, o) in outcomes.iter().enumerate() {
        panel(&mut out, o, n as f64 * (PANEL.0 + MARGIN.0) + MARGIN.0);
    }
    out.push_str("</svg>\n");
    out
}

fn panel(out: &mut String, o: &Outcome, left: f64) {
    let (top, bottom) = (MARGIN.1, MARGIN.1 + PANEL.1);
    let scale = Scale::of(o);
    let x = |step: usize| left + PANEL.0 * step as f64 / o.settings.steps as f64;
    let y = |loss: f64| bottom - PANEL.1 * scale.place(loss);

    let name = name(&o.settings.rule);
    let _ = writeln!(
        out,
        "<text x=\"{left:.1}\" y=\"{:.1}\" font-weight=\"bold\">{name}: training loss by step</text>",
        top - 14.0
    );
    for value in &scale.ticks {
        let (at, right) = (y(*value), left + PANEL.0);
        let _ = writeln!(
            out,
            "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 5.0,
            at + 4.0,
            (value * 1e6).round() / 1e6
        );
    }
    for step in (0..=o.settings.steps).step_by(if o.settings.steps > 200 { 50 } else { 20 }) {
        let _ =
            writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step}</text>", x(step), bottom + 16.0);
    }
    let mut line = |losses: &[f64], style: &str| {
        let points: Vec<String> = losses.iter().enumerate().map(|(i, &l)| format!("{:.1},{:.1}", x(i), y(l))).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" {style}/>", points.join(" "));
    };
    for t in &o.trials {
        line(&t.floats[0].losses, "stroke=\"#f0b070\" stroke-width=\"3.5\"");
    }
    for t in &o.trials {
        line(&t.fixed.losses, "stroke=\"#104080\" stroke-width=\"0.8\"");
    }
    let legend = bottom + 34.0;
    let _ = writeln!(
        out,
        "<line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{legend:.1}\" y2=\"{legend:.1}\" stroke=\"#f0b070\" stroke-width=\"3.5\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">f32</text>\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{legend:.1}\" y2=\"{legend:.1}\" stroke=\"#104080\" stroke-width=\"0.8\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">fixed point ({} seeds each)</text>",
        left + 24.0,
        left + 30.0,
        legend + 4.0,
        left + 80.0,
        left + 104.0,
        left + 110.0,
        legend + 4.0,
        o.trials.len()
    );
}

/// Where a loss is drawn, from 0 below to 1 above.
struct Scale {
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Scale {
    fn of(o: &Outcome) -> Scale {
        let all = || o.trials.iter().flat_map(|t| t.fixed.losses.iter().chain(&t.floats[0].losses)).copied();
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let ticks = |step: f64, low: f64, high: f64| {
            let (first, last) = ((low / step).floor() as i32, (high / step).ceil() as i32);
            (first..=last).map(|n| f64::from(n) * step).collect::<Vec<f64>>()
        };
        if high > 2.0 * low {
            let decades = ticks(1.0, low.log10(), high.log10());
            return Scale { logarithmic: true, ticks: decades.into_iter().map(|d| 10_f64.powf(d)).collect() };
        }
        // The widest step of 1, 2 or 5 that leaves four of them.
        let width = (high - low).max(1e-9) / 4.0;
        let decade = 10_f64.powf(width.log10().floor());
        let step = [5.0, 2.0, 1.0].into_iter().map(|n| n * decade).find(|&s| s <= width).unwrap_or(decade);
        Scale { logarithmic: false, ticks: ticks(step, low, high) }
    }

    fn place(&self, loss: f64) -> f64 {
        let of = |v: f64| if self.logarithmic { v.log10() } else { v };
        let (low, high) = (of(self.ticks[0]), of(self.ticks[self.ticks.len() - 1]));
        (of(loss) - low) / (high - low)
    }
}
