//! `COPY … (FORMAT fhir)` from and to distributed tables.

use crate::nodes::with_patients;
use crate::support::{assert_error, count, patients, rows, run};
use fhir_bulk_tests::{Client, error};
use std::io::{Read as _, Write as _};

fn copy_in(client: &mut Client, statement: &str, lines: &str) -> Result<u64, postgres::Error> {
    let mut writer = client.copy_in(statement)?;
    // After an error of the server, the rest may not be sent; `finish` tells the error.
    let _ = writer.write_all(lines.as_bytes());
    writer.finish()
}

fn copy_out(client: &mut Client, statement: &str) -> Vec<String> {
    let mut text = String::new();
    client.copy_out(statement).unwrap().read_to_string(&mut text).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_distributed_table_takes_a_copy_and_gives_it_back() {
    let (_database, mut client) = with_patients();
    run(&mut client, "SELECT bulk_create_table('Device')");
    let statement = "COPY patient FROM STDIN (FORMAT fhir)";
    assert_eq!(copy_in(&mut client, statement, &patients(1..=3000)).unwrap(), 3000);
    assert_eq!(copy_in(&mut client, statement, &patients(2500..=4000)).unwrap(), 1501);
    let states = "SELECT status, count(*) FROM patient GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&mut client, states), ["created|3499", "updated|501"]);
    let with_history = "COPY patient FROM STDIN (FORMAT fhir, UPDATE_HISTORY)";
    assert_eq!(copy_in(&mut client, with_history, &patients(1..=10)).unwrap(), 10);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient_history"), 10);

    let failed = error(copy_in(&mut client, statement, &(patients(5000..=7000) + "bad\n")));
    assert_error(&failed, "22P02", &["line 2002"]);
    assert_eq!(count(&mut client, "SELECT count(*) FROM patient"), 4000);
    let mixed = patients(1..=2000).replace("\"Patient\"", "\"Device\"") + &patients(4001..=4002);
    assert_eq!(copy_in(&mut client, "COPY bulk_resource FROM STDIN (FORMAT fhir)", &mixed).unwrap(), 2002);
    assert_eq!(count(&mut client, "SELECT count(*) FROM device"), 2000);

    let mut expected = rows(&mut client, "SELECT bulk_dump('Patient', fhir => true)");
    expected.sort();
    assert_eq!(expected.len(), 4002);
    assert!(copy_out(&mut client, "COPY patient TO STDOUT (FORMAT fhir)") == expected);
    assert_eq!(copy_out(&mut client, "COPY patient TO STDOUT (FORMAT fhir, FILTER 'birthdate=1971')"), [""; 0]);
    let of_rows = copy_out(&mut client, "COPY (SELECT id FROM patient) TO STDOUT (FORMAT ndjson)");
    assert_eq!(of_rows.len(), 4002);
    // Formats of COPY itself go to Citus.
    assert_eq!(copy_out(&mut client, "COPY patient (id) TO STDOUT").len(), 4002);
}
