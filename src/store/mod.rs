//! Resource tables, with the layout of Aidbox and fhirbase: table `patient` has the Patients, `patient_history` their older
//! versions. `id`, `resourceType` and the version in `meta` are columns; column `resource` has the rest.

mod changed;
mod deleted;
mod filter;
mod foreign_code;
mod identifiers;
mod indexes;
mod keys;
mod live;
mod lookup;
mod membership;
mod moment;
mod name;
pub mod parameters;
mod patients;
mod read;
mod rejects;
mod secret;
mod statement;
mod table;
mod types;
mod write;

pub use changed::Changed;
pub use deleted::{Deletions, Telling, deleted, may_read_history, telling};
pub use filter::Filter;
pub use foreign_code::foreign_code;
pub use indexes::make_index;
pub use live::{Blocks, Live, Rows};
pub use lookup::{each_live, each_live_changed, ids_with};
pub use membership::Membership;
pub use moment::written_anew;
pub use name::ResourceType;
pub use parameters::search_parameters;
pub use patients::Patients;
pub use read::{Reader, not_an_object};
pub use rejects::{Reject, add_rejects};
pub use secret::secret;
pub use table::{ResourceTable, make_sequence, next_txid, unknown};
pub use types::{hidden_types, readable_types, type_of_table};
pub use write::{Deletes, Known, Stamp, Stored, TableWriter, check, path_into};
