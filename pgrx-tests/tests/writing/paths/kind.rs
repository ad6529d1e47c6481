//! A kind of table: how it is made, who loads it, and the way a load must take.

use crate::servers;
use crate::support::{aidbox_tables, run, value};
use fhir_bulk_tests::{Client, Database};

/// What a check of one kind alone asks after the others.
type Also = fn(&mut Place);
/// Statements that need the names of other servers.
type Statements = fn(&Database) -> String;

enum Role {
    Superuser,
    Ordinary,
    Owner,
}

pub struct Kind {
    path: &'static str,
    setup: &'static str,
    foreign: Option<Statements>,
    settings: &'static str,
    schema: Option<&'static str>,
    role: Role,
    decoded: bool,
    also: Option<Also>,
}

/// A table of the kind.
pub struct Place {
    pub database: Database,
    /// Who loads.
    pub client: Client,
    /// The superuser.
    pub admin: Client,
    pub has_cts: bool,
    pub also: Option<Also>,
}

impl Kind {
    /// `path` is what `bulk_write_path` answers; `setup` changes the tables that Aidbox would make.
    pub fn new(path: &'static str, setup: &'static str) -> Kind {
        let role = Role::Superuser;
        Kind { path, setup, foreign: None, settings: "", schema: None, role, decoded: false, also: None }
    }

    pub fn foreign(path: &'static str, setup: Statements) -> Kind {
        Kind { foreign: Some(setup), ..Kind::new(path, "") }
    }

    /// Loaded by a role with just the rights it needs.
    pub fn by_role(self) -> Kind {
        Kind { role: Role::Ordinary, ..self }
    }

    /// Loaded by the table's owner, an ordinary role.
    pub fn by_owner(self) -> Kind {
        Kind { role: Role::Owner, ..self }
    }

    pub fn with(self, settings: &'static str) -> Kind {
        Kind { settings, ..self }
    }

    /// `fhir_bulk.data_schema`, which `setup` makes.
    pub fn in_schema(self, schema: &'static str) -> Kind {
        Kind { schema: Some(schema), ..self }
    }

    /// On a server with `wal_level = logical`.
    pub fn decoded(self) -> Kind {
        Kind { decoded: true, ..self }
    }

    pub fn also(self, also: Also) -> Kind {
        Kind { also: Some(also), ..self }
    }

    pub fn make(self) -> Place {
        let database = if self.decoded { servers::database_on(servers::decoded()) } else { Database::new() };
        let mut admin = database.connect();
        aidbox_tables(&mut admin, &["Patient"]);
        run(&mut admin, self.setup);
        if let Some(foreign) = self.foreign {
            run(&mut admin, &foreign(&database));
        }
        let mut client = match self.role {
            Role::Superuser => database.connect(),
            Role::Ordinary | Role::Owner => {
                let role = database.role("loader");
                let rights = if matches!(self.role, Role::Owner) {
                    format!("ALTER TABLE patient OWNER TO {role}")
                } else {
                    format!("GRANT SELECT, INSERT, UPDATE ON patient TO {role}")
                };
                run(
                    &mut admin,
                    &format!(
                        "GRANT pg_read_server_files TO {role}; GRANT TEMPORARY ON DATABASE {} TO {role};
                         GRANT EXECUTE ON FUNCTION bulk_load, bulk_write_path TO {role};
                         GRANT USAGE ON SEQUENCE transaction_id_seq TO {role};
                         GRANT INSERT ON patient_history TO {role}; {rights}",
                        database.name()
                    ),
                );
                database.connect_as(&role)
            }
        };
        if let Some(schema) = self.schema {
            let (name, literal) = (schema.replace('"', "\"\""), schema.replace('\'', "''"));
            run(&mut client, &format!("SET fhir_bulk.data_schema = '{literal}'"));
            for session in [&mut client, &mut admin] {
                run(session, &format!("SET search_path = \"{name}\", public"));
            }
        }
        run(&mut client, self.settings);
        let has_cts = value(
            &mut admin,
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'patient'::regclass AND attname = 'cts' AND NOT attisdropped",
        ) == "1";
        assert_eq!(value(&mut client, "SELECT bulk_write_path('Patient')"), self.path);
        Place { database, client, admin, has_cts, also: self.also }
    }
}
