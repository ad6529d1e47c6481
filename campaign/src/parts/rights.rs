//! Rights as a matrix: what ours does is what PostgreSQL's own statement does for the same role on the same table.

use fhir_bulk_tests::Client;
use fhir_bulk_tests::support::{run, value};

use super::cell::{Cell, Operation, prepare};
use crate::place::Place;
use crate::run::{Part, Run};

pub const PART: Part = Part {
    name: "rights",
    what: "every combination of role (owner, granted, member, member without inheritance, caller of a definer's function, \
           BYPASSRLS, superuser), table (plain, with a trigger, with policies, partitioned) and grants (tables, columns, history, \
           sequence, schema, functions, files): loads, COPY, dumps, views and reads are allowed, and see and write the same rows, \
           exactly where a plain INSERT or SELECT tried beside them does",
    unit: "cells",
    run: try_all,
};

const OPERATIONS: [Operation; 10] = [
    Operation::LoadNew,
    Operation::LoadKnown,
    Operation::LoadUpdate,
    Operation::CopyNew,
    Operation::CopyKnown,
    Operation::Dump,
    Operation::DumpSince,
    Operation::View,
    Operation::Csv,
    Operation::Read,
];

const CELLS: u64 = Cell::count(OPERATIONS.len());

fn try_all(run: &mut Run) {
    let place = Place::new(&[]);
    let mut client = place.connect();
    let (new, known) = prepare(&place, &mut client);
    // All of them in an order of the seed: a step that shares no divisor with their number comes by each once.
    let (first, step) = (run.random.below(CELLS), 1 + 2 * 3 * 5 * 7 * 11 * (1 + run.random.below(100)));
    let (mut number, mut allowed) = (first, 0);
    while run.goes_on() && run.so_far() < CELLS {
        let mut rest = number as usize;
        let cell = Cell::of(&OPERATIONS, |choices| {
            let digit = rest % choices;
            rest /= choices;
            digit
        });
        number = (number + step) % CELLS;
        run.tried(1);
        match cell.look(&mut client, &new, &known) {
            Ok(both) => allowed += u64::from(both),
            Err(what) => run.found(format!("{cell:?}: {what}")),
        }
    }
    run.note(format!("of {CELLS}; in {allowed} of them it was allowed"));
    place.end();
}

impl Cell {
    /// Whether both were allowed; that they differ is an error.
    fn look(&self, client: &mut Client, new: &str, known: &str) -> Result<bool, String> {
        run(client, &format!("BEGIN; {}; SAVEPOINT here", self.grants()));
        let ours = self.outcome(client, &self.ours(new, known));
        let plain = self.outcome(client, &self.plain());
        let may_call = self.may_call(client);
        run(client, "ROLLBACK");
        let expected = match &plain {
            Ok(rows) if may_call => Ok(rows.clone()),
            Ok(_) => Err("42501".to_owned()),
            Err(state) => Err(state.clone()),
        };
        if ours == expected {
            Ok(ours.is_ok())
        } else {
            Err(format!("{ours:?}, but PostgreSQL's own {plain:?}, may call {may_call}"))
        }
    }

    fn is_copy(&self) -> bool {
        matches!(self.operation, Operation::CopyNew | Operation::CopyKnown)
    }

    /// What the plain statement does not need: a function and a file.
    fn may_call(&self, client: &mut Client) -> bool {
        let has = |client: &mut Client, what: &str| value(client, &format!("SELECT {what}")) == "t";
        let role = self.actor();
        if self.reads() {
            return true;
        }
        let may_read = has(client, &format!("pg_has_role('{role}', 'pg_read_server_files', 'USAGE')"));
        let function = "'bulk_load(text, text, boolean, jsonb)'";
        let may_call =
            self.is_copy() || has(client, &format!("has_function_privilege('{role}', {function}, 'EXECUTE')"));
        may_read && may_call
    }

    fn ours(&self, new: &str, known: &str) -> String {
        let (new_file, known_file) = (new.trim_start_matches("file://"), known.trim_start_matches("file://"));
        let table = self.table;
        match self.operation {
            Operation::LoadNew => format!("SELECT bulk_load('{new}', 'Patient')::text"),
            Operation::LoadKnown => format!("SELECT bulk_load('{known}', 'Patient')::text"),
            Operation::LoadUpdate => {
                format!("SELECT bulk_load('{known}', 'Patient', options => '{{\"update\": true}}')::text")
            }
            Operation::CopyNew => format!("COPY {table}.patient FROM '{new_file}' (FORMAT fhir)"),
            Operation::CopyKnown => format!("COPY {table}.patient FROM '{known_file}' (FORMAT fhir)"),
            Operation::Dump => "SELECT line::jsonb ->> 'id' FROM bulk_dump('Patient') line".to_owned(),
            Operation::DumpSince => {
                "SELECT line::jsonb ->> 'id' FROM bulk_dump('Patient', since => '2000-01-01') line".to_owned()
            }
            Operation::View => {
                let view =
                    r#"{"resource": "Patient", "select": [{"column": [{"name": "id", "path": "getResourceKey()"}]}]}"#;
                format!("SELECT trim(both E'\\r\\n' FROM line) FROM dump_view('{view}') line")
            }
            Operation::Csv => {
                "SELECT substring(line FROM 'p-[0-9]') FROM dump_csv('Patient') line WHERE line ~ 'p-[0-9]'".to_owned()
            }
            Operation::Read => "SELECT bulk_read('Patient', 'p-1')::jsonb ->> 'id'".to_owned(),
        }
    }
}
