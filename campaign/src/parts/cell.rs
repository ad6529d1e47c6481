//! A cell of the matrix of rights: a role, a table, what it does, and what it is granted; with the statement of PostgreSQL's own
//! that says what must come of it.

use fhir_bulk_tests::Client;
use fhir_bulk_tests::support::{rows, run};

use crate::patients;
use crate::place::Place;

pub const ROLES: [&str; 7] = ["owner", "granted", "member", "outsider", "definer", "bypass", "super"];
pub const TABLES: [&str; 6] = ["plain", "triggered", "open_policy", "narrow_policy", "no_policy", "partitioned"];
/// What is done; each has a statement of ours and a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    LoadNew,
    LoadKnown,
    LoadUpdate,
    CopyNew,
    CopyKnown,
    Dump,
    DumpSince,
    View,
    Csv,
    Read,
}

/// How grants are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    Table,
    All,
    WithoutResource,
}

#[derive(Debug)]
pub struct Cell {
    pub role: &'static str,
    pub table: &'static str,
    pub operation: Operation,
    pub select: bool,
    pub insert: bool,
    pub update: bool,
    pub columns: Columns,
    pub history: bool,
    pub sequence: bool,
    pub schema: bool,
    pub function: bool,
    pub files: bool,
}

/// Makes roles, a schema for each kind of table, and files: of new patients and of known ones.
pub fn prepare(place: &Place, client: &mut Client) -> (String, String) {
    run(
        client,
        "CREATE ROLE owner LOGIN; CREATE ROLE granted LOGIN; CREATE ROLE member LOGIN INHERIT IN ROLE granted;
         CREATE ROLE outsider LOGIN NOINHERIT IN ROLE granted; CREATE ROLE definer LOGIN; CREATE ROLE bypass LOGIN BYPASSRLS;
         CREATE ROLE super LOGIN SUPERUSER;
         CREATE FUNCTION do_as_granted(sql text) RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER AS
             'BEGIN IF sql ~ ''^(COPY|INSERT|WITH)'' THEN EXECUTE sql; ELSE RETURN QUERY EXECUTE sql; END IF; END';
         ALTER FUNCTION do_as_granted OWNER TO granted;
         CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    );
    for table in TABLES {
        run(
            client,
            &format!(
                "CREATE SCHEMA {table}; SET fhir_bulk.data_schema = '{table}'; SELECT bulk_create_table('Patient');
                 ALTER TABLE {table}.patient ADD COLUMN secret text DEFAULT 's'"
            ),
        );
    }
    // One that exists is taken as it is.
    run(
        client,
        "ALTER TABLE partitioned.patient RENAME TO model;
         CREATE TABLE partitioned.patient (LIKE partitioned.model INCLUDING ALL) PARTITION BY HASH (id);
         CREATE TABLE partitioned.one PARTITION OF partitioned.patient FOR VALUES WITH (modulus 2, remainder 0);
         CREATE TABLE partitioned.two PARTITION OF partitioned.patient FOR VALUES WITH (modulus 2, remainder 1);
         CREATE TRIGGER seen BEFORE INSERT OR UPDATE ON triggered.patient FOR EACH ROW EXECUTE FUNCTION seen();
         ALTER TABLE open_policy.patient ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON open_policy.patient USING (true);
         ALTER TABLE narrow_policy.patient ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON narrow_policy.patient USING (id < 'p-3') WITH CHECK (id < 'p-9');
         ALTER TABLE no_policy.patient ENABLE ROW LEVEL SECURITY",
    );
    for table in TABLES {
        let first = place.database.file("first", patients::lines(0..6, 0));
        run(client, &format!("SET fhir_bulk.data_schema = '{table}'; SELECT bulk_load('{first}', 'Patient')"));
        run(
            client,
            &format!("ALTER TABLE {table}.patient OWNER TO owner; ALTER TABLE {table}.patient_history OWNER TO owner"),
        );
    }
    run(client, "RESET ALL");
    (place.database.file("new", patients::lines(6..8, 1)), place.database.file("known", patients::lines(0..2, 1)))
}

impl Cell {
    /// How many there are of so many operations.
    pub const fn count(operations: usize) -> u64 {
        (ROLES.len() * TABLES.len() * operations * 8 * 3 * 32) as u64
    }

    /// One of them by choices among so many; of two, the second is that something is granted.
    pub fn of(operations: &[Operation], mut choose: impl FnMut(usize) -> usize) -> Cell {
        Cell {
            role: ROLES[choose(ROLES.len())],
            table: TABLES[choose(TABLES.len())],
            operation: operations[choose(operations.len())],
            select: choose(2) == 1,
            insert: choose(2) == 1,
            update: choose(2) == 1,
            columns: [Columns::Table, Columns::All, Columns::WithoutResource][choose(3)],
            history: choose(2) == 1,
            sequence: choose(2) == 1,
            schema: choose(2) == 1,
            function: choose(2) == 1,
            files: choose(2) == 1,
        }
    }

    /// The role whose rights count.
    pub fn actor(&self) -> &'static str {
        if self.role == "definer" { "granted" } else { self.role }
    }

    /// What is granted, and the setting that says where the table is, in a transaction.
    pub fn grants(&self) -> String {
        let grants: String = self.rights().iter().map(|(what, to)| format!("GRANT {what} TO {to}; ")).collect();
        format!("{grants}SET LOCAL fhir_bulk.data_schema = '{}'", self.table)
    }

    /// Takes it back.
    pub fn revokes(&self) -> String {
        let revokes: String = self.rights().iter().map(|(what, of)| format!("REVOKE {what} FROM {of}; ")).collect();
        // An owner may take rights from itself.
        format!("{revokes}GRANT ALL ON {0}.patient, {0}.patient_history TO owner", self.table)
    }

    /// Each right, and who has it.
    fn rights(&self) -> Vec<(String, &'static str)> {
        // Members have what the role has in which they are.
        let to = if matches!(self.role, "member" | "outsider" | "definer") { "granted" } else { self.role };
        let table = format!("{}.patient", self.table);
        let columns = match self.columns {
            Columns::Table => "",
            Columns::All => "(id, txid, cts, ts, resource_type, status, resource)",
            Columns::WithoutResource => "(id, txid, cts, ts, resource_type, status)",
        };
        let all = [
            (self.select, format!("SELECT {columns} ON {table}")),
            (self.insert, format!("INSERT {columns} ON {table}")),
            (self.update, format!("UPDATE {columns} ON {table}")),
            (self.history, format!("INSERT ON {table}_history")),
            (self.sequence, format!("USAGE ON SEQUENCE {}.transaction_id_seq", self.table)),
            (self.schema, format!("USAGE ON SCHEMA {}", self.table)),
            (self.function, "EXECUTE ON FUNCTION bulk_load, bulk_import, bulk_export".to_owned()),
            (self.files, "pg_read_server_files".to_owned()),
        ];
        all.into_iter().filter(|(is_granted, _)| *is_granted).map(|(_, what)| (what, to)).collect()
    }

    /// What a statement returned or made, without times and numbers of transactions; or its SQLSTATE.
    pub fn outcome(&self, client: &mut Client, sql: &str) -> Result<String, String> {
        let done = client
            .simple_query(&format!("SET LOCAL SESSION AUTHORIZATION {}", self.role))
            .and_then(|_| client.simple_query(&self.call(sql)));
        let outcome = match done {
            Err(error) => Err(error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())),
            Ok(messages) if self.reads() => {
                let lines = messages.iter().filter_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                let mut lines: Vec<String> = lines.collect();
                lines.sort();
                Ok(lines.join(","))
            }
            Ok(_) => {
                run(client, "SET LOCAL SESSION AUTHORIZATION DEFAULT");
                Ok(self.stored(client))
            }
        };
        run(client, "ROLLBACK TO here");
        outcome
    }

    /// A statement as the role makes it.
    pub fn call(&self, sql: &str) -> String {
        if self.role == "definer" { format!("SELECT * FROM do_as_granted($sql${sql}$sql$)") } else { sql.to_owned() }
    }

    /// What the table and its history have, to the superuser.
    pub fn stored(&self, client: &mut Client) -> String {
        let sql = format!(
            "SELECT id, status::text, secret, resource #>> '{{name,0,family}}' FROM {0}.patient
             UNION ALL SELECT 'history of ' || id, status::text, '', '' FROM {0}.patient_history ORDER BY 1",
            self.table
        );
        rows(client, &sql).join(",")
    }

    /// Whether it returns rows, and writes none.
    pub fn reads(&self) -> bool {
        matches!(
            self.operation,
            Operation::Dump | Operation::DumpSince | Operation::View | Operation::Csv | Operation::Read
        )
    }

    /// Whether loads write the table by INSERT … ON CONFLICT, which needs more than INSERT also for new ids (docs/loading.md).
    fn by_statements(&self) -> bool {
        let has_policies_for = match self.actor() {
            "super" | "bypass" => false,
            "owner" => self.table == "narrow_policy",
            _ => self.table.ends_with("_policy"),
        };
        matches!(self.table, "triggered" | "partitioned") || has_policies_for
    }

    /// PostgreSQL's own statement.
    pub fn plain(&self) -> String {
        let table = self.table;
        let values = |ids: [usize; 2], status: &str| {
            let row = |id: usize| {
                let resource = r#"{"name": [{"family": "1"}]}"#;
                format!(
                    "('p-{id}', nextval('{table}.transaction_id_seq'), now(), now(), 'Patient', '{status}', '{resource}'::jsonb)"
                )
            };
            format!("VALUES {}, {}", row(ids[0]), row(ids[1]))
        };
        let insert = format!("INSERT INTO {table}.patient (id, txid, cts, ts, resource_type, status, resource)");
        let on_conflict = "ON CONFLICT (id) DO UPDATE SET txid = excluded.txid, ts = excluded.ts, status = 'updated', resource = excluded.resource";
        match self.operation {
            Operation::LoadNew | Operation::CopyNew => {
                let on_conflict = if self.by_statements() { on_conflict } else { "" };
                format!("{insert} {} {on_conflict}", values([6, 7], "created"))
            }
            Operation::LoadKnown | Operation::CopyKnown => format!("{insert} {} {on_conflict}", values([0, 1], "created")),
            Operation::LoadUpdate => format!(
                "WITH old AS (INSERT INTO {table}.patient_history (id, txid, cts, ts, resource_type, status, resource)
                     SELECT id, txid, cts, ts, resource_type, status, resource FROM {table}.patient WHERE id IN ('p-0', 'p-1'))
                 {insert} {} {on_conflict}",
                values([0, 1], "created")
            ),
            Operation::Dump | Operation::DumpSince => {
                format!("SELECT id FROM (SELECT id, txid, cts, ts, resource_type, status, resource FROM {table}.patient) p")
            }
            Operation::View | Operation::Csv => format!("SELECT id FROM (SELECT id, status, resource FROM {table}.patient) p"),
            Operation::Read => {
                format!("SELECT (SELECT id FROM (SELECT id, txid, cts, ts, resource_type, status, resource FROM {table}.patient) p WHERE id = 'p-1')")
            }
        }
    }
}
