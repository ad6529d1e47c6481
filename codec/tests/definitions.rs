//! The tables of definitions agree with HL7's StructureDefinitions.

mod common;

#[path = "../examples/draw_definitions.rs"]
#[allow(dead_code)] // Its `main`.
mod draw_definitions;

use common::shared_data;

#[test]
fn the_tables_are_those_that_would_be_drawn_today() {
    let Some(folder) = shared_data("fhir-definitions") else { return };
    for (version, table) in [
        ("r4", include_str!("../definitions/r4.txt")),
        ("r4b", include_str!("../definitions/r4b.txt")),
        ("r5", include_str!("../definitions/r5.txt")),
    ] {
        let source = folder.join(format!("{version}.structuredefinitions.ndjson.gz"));
        let drawn = draw_definitions::draw(&draw_definitions::read(&source).unwrap());
        assert!(drawn == table, "{version}: run scripts/redraw-definitions.sh");
    }
}
