//! The figures of a page: what a measurement printed, as it is committed.

use std::fs;
use std::path::Path;

use super::bench::Outcome;
use super::chart::{self, Bar};

/// Draws what the first measurement of a page says of operations beside PostgreSQL's own, as `NAME-light.svg` and
/// `NAME-dark.svg`, where the page is `NAME.md`, and all of it as `NAME-all-light.svg` and `NAME-all-dark.svg`.
///
/// # Errors
/// Those of files, and of a page that has no such measurement.
pub fn draw(page: &Path, folder: &Path) -> Outcome<()> {
    let (title, mut bars) = figures(&fs::read_to_string(page)?).ok_or("the page has no measurement")?;
    let name = page.file_stem().unwrap_or_default().to_string_lossy();
    chart::draw(&title, &bars, folder, &format!("{name}-all"))?;
    bars.retain(is_beside_postgresql);
    Ok(chart::draw(&title, &bars, folder, &name)?)
}

/// Not beside the extension itself, by another way.
fn is_beside_postgresql(bar: &Bar) -> bool {
    ["COPY", "INSERT", "SQL"].iter().any(|word| bar.baseline.contains(word)) && !bar.baseline.contains("bulk_")
}

/// The title of the first measurement, and those of its rows that have seconds and a ratio.
fn figures(page: &str) -> Option<(String, Vec<Bar>)> {
    let title = page.lines().find(|line| line.contains("medians of") && line.contains("PostgreSQL"))?;
    let title = title.rsplit_once(": ").map_or(title, |(_, title)| title).trim_end_matches('.');
    let table = page.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    Some((title.to_owned(), table.filter_map(bar).collect()))
}

fn bar(row: &str) -> Option<Bar> {
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let [_, operation, baseline, ours, baselines, ratio, bound, _, _] = cells[..] else { return None };
    // Of `0.15 (0.15–0.20)`.
    let median = |text: &str| text.split(' ').next()?.parse().ok();
    Some(Bar {
        operation: operation.to_owned(),
        baseline: baseline.to_owned(),
        seconds: [median(ours)?, median(baselines)?],
        ratio: ratio.parse().ok()?,
        bound: bound.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
    }

    #[test]
    fn the_pictures_are_drawn_of_the_figures_in_the_docs() {
        let folder = std::env::temp_dir().join(format!("fhir_bulk_picture_{}", std::process::id()));
        draw(&root().join("docs/speed.md"), &folder).unwrap();
        for (page, images, name) in [("README.md", "docs/images", "speed"), ("docs/speed.md", "images", "speed-all")] {
            let page = fs::read_to_string(root().join(page)).unwrap();
            for theme in ["light", "dark"] {
                let file = format!("{name}-{theme}.svg");
                let drawn = fs::read_to_string(folder.join(&file)).unwrap();
                let committed = fs::read_to_string(root().join("docs/images").join(&file)).unwrap();
                assert!(drawn == committed, "{file} is not what `make picture` draws of docs/speed.md");
                assert!(page.contains(&format!("\"{images}/{file}\"")), "{file}");
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_the_readme_says_in_seconds_is_what_the_docs_say() {
        let (_, bars) = figures(&fs::read_to_string(root().join("docs/speed.md")).unwrap()).unwrap();
        let readme = fs::read_to_string(root().join("README.md")).unwrap();
        let mut count = 0;
        for row in readme.lines().filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [_, _, _, ours, baseline, ratio, _] = cells[..] else { continue };
            let number = |text: &str| text.parse::<f64>().ok();
            let (Some(ours), Some(baseline), Some(ratio)) = (number(ours), number(baseline), number(ratio)) else {
                continue;
            };
            let is_said = |bar: &Bar| bar.seconds == [ours, baseline] && bar.ratio == ratio;
            assert!(bars.iter().any(is_said), "{row}");
            count += 1;
        }
        assert!(count > 8, "{count}");
    }

    #[test]
    fn rows_without_seconds_and_those_beside_the_extension_itself_are_not_drawn() {
        let page = "## A\n\n`make bench` on x: 5 resources; medians of 9 runs; PostgreSQL 15, 2 cores.\n\n\
            | operation | baseline | s | s | ratio | at most |  |\n|---|---|---|---|---|---|---|\n\
            | dump: a | COPY (SELECT 1) | 0.15 (0.10–0.20) | 0.30 (0.3–0.3) | 0.50 | 0.60 | PASS |\n\
            | dump: b | bulk_dump through COPY | 0.15 (0.1–0.2) | 0.30 (0.3–0.3) | 0.50 | 0.60 | PASS |\n\
            | codec: c | memcpy | 0.15 (0.1–0.2) | 0.01 (0.0–0.0) | 15.00 |  |  |\n\
            | memory: c | COPY |  |  | +17 MB | 64 MB | PASS |\n\n\
            | dump: d | COPY | 0.15 (0.1–0.2) | 0.30 (0.3–0.3) | 0.50 | 0.60 | PASS |\n";
        let (title, bars) = figures(page).unwrap();
        assert_eq!(title, "5 resources; medians of 9 runs; PostgreSQL 15, 2 cores");
        let drawn: Vec<_> =
            bars.iter().filter(|bar| is_beside_postgresql(bar)).map(|bar| bar.operation.as_str()).collect();
        assert_eq!((bars.len(), drawn, bars[2].bound), (3, vec!["dump: a"], None));
        assert_eq!((bars[0].seconds, bars[0].ratio, bars[0].bound), ([0.15, 0.3], 0.5, Some(0.6)));
    }
}
