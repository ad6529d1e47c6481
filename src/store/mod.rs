//! Resource tables, as Aidbox and fhirbase lay them out: `Patient` lives in `patient`, its older versions in
//! `patient_history`, `id`, `resourceType` and what `meta` says of the version in columns, the rest in `resource`.

mod deleted;
mod foreign_code;
mod identifiers;
mod keys;
mod name;
mod read;
mod rejects;
mod secret;
mod statement;
mod table;
mod types;
mod write;

pub use deleted::{deleted, may_read_history};
pub use foreign_code::foreign_code;
pub use name::ResourceType;
pub use read::{Blocks, Reader, Rows, written_anew};
pub use rejects::{Reject, add_rejects};
pub use secret::secret;
pub use table::{ResourceTable, make_sequence, next_txid, unknown};
pub use types::{hidden_types, readable_types, type_of_table};
pub use write::{Stamp, TableWriter, check, path_into};
