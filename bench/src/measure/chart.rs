//! Figures as a picture: each row's ratio as a bar, the baseline as a line at 1, the bound as a tick.

use std::fs;
use std::io;
use std::path::Path;

/// A row of the picture.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) operation: String,
    pub(super) baseline: String,
    /// Of both, as medians.
    pub(super) seconds: [f64; 2],
    pub(super) ratio: f64,
    /// None for what has none.
    pub(super) bound: Option<f64>,
}

const LABELS: f64 = 372.0;
const BARS: f64 = 288.0;
const FIGURES: f64 = 160.0;
const ROW: f64 = 36.0;
const TOP: f64 = 64.0;
/// Longer bars end here; their figure says how long they are.
const MOST: f64 = 2.0;

/// The colours of a picture.
struct Theme {
    name: &'static str,
    /// Of the ground: a page of another colour does not make it unreadable.
    ground: &'static str,
    text: &'static str,
    /// Of what matters less.
    faint: &'static str,
    /// Of rows within their bounds, and of others.
    good: &'static str,
    over: &'static str,
}

/// For bright pages and for dark ones.
const THEMES: [Theme; 2] = [
    Theme { name: "light", ground: "#ffffff", text: "#1f2328", faint: "#59636e", good: "#4aa36c", over: "#d9822b" },
    Theme { name: "dark", ground: "#0d1117", text: "#e6edf3", faint: "#9198a1", good: "#2f8f4e", over: "#b8651b" },
];

/// Draws these rows, in their order, for each theme: `NAME-light.svg` and `NAME-dark.svg` in a folder.
///
/// # Errors
/// Those of writing.
pub(super) fn draw(title: &str, bars: &[Bar], folder: &Path, name: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for theme in &THEMES {
        fs::write(folder.join(format!("{name}-{}.svg", theme.name)), svg(title, bars, theme))?;
    }
    Ok(())
}

/// The title stands in two lines, of which the machine is the second.
fn svg(title: &str, bars: &[Bar], theme: &Theme) -> String {
    let Theme { ground, text, faint, good, over, .. } = theme;
    let most = bars.iter().flat_map(|bar| [Some(bar.ratio), bar.bound]).flatten().fold(1.0, f64::max).min(MOST);
    let x = |ratio: f64| LABELS + ratio.min(most) / most * BARS;
    let (width, height) = (LABELS + BARS + FIGURES, TOP + ROW * bars.len() as f64 + 28.0);
    let (what, machine) = title.rsplit_once("; ").unwrap_or((title, ""));
    let mut lines = vec![
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{text}\">"
        ),
        format!("<rect width=\"{width}\" height=\"{height}\" fill=\"{ground}\"/>"),
        format!("<text x=\"12\" y=\"22\" font-weight=\"bold\">{}</text>", escape(what)),
        format!("<text x=\"12\" y=\"40\" fill=\"{faint}\">{}</text>", escape(machine)),
    ];
    // The baseline stands behind the bars.
    let (one, bottom) = (x(1.0), height - 22.0);
    lines.push(format!(
        "<line x1=\"{one:.1}\" y1=\"{}\" x2=\"{one:.1}\" y2=\"{bottom}\" stroke=\"{faint}\" stroke-dasharray=\"4 3\"/>",
        TOP - 8.0
    ));
    for (at, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * at as f64;
        let colour = match bar.bound {
            Some(bound) if bar.ratio > bound => over,
            Some(_) => good,
            None => faint,
        };
        let end = x(bar.ratio);
        let ([ours, baseline], label) = (bar.seconds, LABELS - 10.0);
        let (operation, versus) = (escape(&bar.operation), escape(&bar.baseline));
        lines.extend([
            format!("<text x=\"{label}\" y=\"{}\" text-anchor=\"end\">{operation}</text>", y + 11.0),
            format!(
                "<text x=\"{label}\" y=\"{}\" text-anchor=\"end\" font-size=\"11\" fill=\"{faint}\">{versus}</text>",
                y + 25.0
            ),
            format!(
                "<rect x=\"{LABELS}\" y=\"{}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
                y + 5.0,
                end - LABELS
            ),
            format!(
                "<text x=\"{}\" y=\"{}\">{:.2}<tspan dx=\"10\" fill=\"{faint}\">{ours:.2} s of {baseline:.2} s</tspan></text>",
                LABELS + BARS + 14.0,
                y + 17.0,
                bar.ratio
            ),
        ]);
        lines.extend(bar.bound.map(x).map(|bound| {
            format!(
                "<line x1=\"{bound:.1}\" y1=\"{}\" x2=\"{bound:.1}\" y2=\"{}\" stroke=\"{text}\" stroke-width=\"2\"/>",
                y + 2.0,
                y + 24.0
            )
        }));
    }
    lines.push(format!(
        "<text x=\"{one:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"{faint}\">dashes: the baseline's time; tick: at most so much of it</text>",
        bottom + 14.0
    ));
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_over_its_bound_looks_different_and_names_stay_text() {
        let bar = |operation: &str, ratio| Bar {
            operation: operation.into(),
            baseline: "b".into(),
            seconds: [ratio, 1.0],
            ratio,
            bound: Some(0.5),
        };
        for theme in &THEMES {
            let text = svg("t; m", &[bar("a <b> & c", 0.4), bar("d", 0.6)], theme);
            assert!(text.contains("a &lt;b&gt; &amp; c"));
            assert_eq!((text.matches(theme.good).count(), text.matches(theme.over).count()), (1, 1));
        }
    }
}
