//! The report's picture: each row's ratio as a bar, the baseline as a line at 1, the bound as a tick.

use std::fmt::Write as _;

/// A row of the picture.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) ratio: f64,
    pub(super) bound: f64,
}

const LABELS: f64 = 560.0;
const BARS: f64 = 400.0;
const ROW: f64 = 24.0;
const TOP: f64 = 44.0;

/// The colours of a picture.
pub(super) struct Theme {
    /// Of the ground: a page of another colour does not make it unreadable.
    ground: &'static str,
    text: &'static str,
    /// Of rows within their bounds, and of others.
    good: &'static str,
    over: &'static str,
}

/// For bright pages.
pub(super) const LIGHT: Theme = Theme { ground: "#ffffff", text: "#1f2328", good: "#2f7d4f", over: "#c2571a" };
/// For dark ones.
pub(super) const DARK: Theme = Theme { ground: "#0d1117", text: "#e6edf3", good: "#3fb950", over: "#e3883e" };

/// An SVG of these rows, in their order.
pub(super) fn svg(title: &str, bars: &[Bar], theme: &Theme) -> String {
    let Theme { ground, text, good, over } = theme;
    let most = bars.iter().flat_map(|bar| [bar.ratio, bar.bound]).fold(1.0, f64::max) * 1.1;
    let x = |ratio: f64| LABELS + ratio / most * BARS;
    let (width, height) = (LABELS + BARS + 60.0, TOP + ROW * bars.len() as f64 + 34.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"{text}\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>\n\
         <text x=\"12\" y=\"24\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for (at, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let colour = if bar.ratio <= bar.bound { good } else { over };
        let (end, bound) = (x(bar.ratio), x(bar.bound));
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{}\" width=\"{}\" height=\"14\" fill=\"{colour}\"/>\
             <line x1=\"{bound}\" y1=\"{}\" x2=\"{bound}\" y2=\"{}\" stroke=\"{text}\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\">{:.2}</text>",
            LABELS - 8.0,
            y + 13.0,
            escape(&bar.label),
            y + 2.0,
            end - LABELS,
            y,
            y + 18.0,
            end.max(bound) + 6.0,
            y + 13.0,
            bar.ratio,
        );
    }
    let (one, bottom) = (x(1.0), height - 30.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" y1=\"{}\" x2=\"{one}\" y2=\"{bottom}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{one}\" y=\"{}\" text-anchor=\"middle\" >1 = the baseline; the tick: at most</text>\n</svg>",
        TOP - 6.0,
        bottom + 16.0
    );
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_over_its_bound_looks_different_and_names_stay_text() {
        let bar = |label: &str, ratio| Bar { label: label.into(), ratio, bound: 0.5 };
        let text = svg("t", &[bar("a <b> & c", 0.4), bar("d", 0.6)], &LIGHT);
        assert!(text.contains("a &lt;b&gt; &amp; c"));
        assert_eq!((text.matches("#2f7d4f").count(), text.matches("#c2571a").count()), (1, 1));
    }
}
