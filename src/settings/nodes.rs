//! The setting of jobs that the nodes of Citus do.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

/// What the nodes of Citus do of background jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum UseNodes {
    /// Nothing: the server that has the job does all of it.
    #[name = c"off"]
    Off,
    /// What all of them reach: sources of HTTP and S3, exports to S3.
    #[name = c"remote"]
    Remote,
    /// Also what is in files: they have the same folders.
    #[name = c"files"]
    Files,
}

static USE_NODES: GucSetting<UseNodes> = GucSetting::<UseNodes>::new(UseNodes::Off);

/// Defines the setting.
pub fn define() {
    GucRegistry::define_enum_guc(
        c"fhir_bulk.use_nodes",
        c"What the nodes of Citus do of imports and exports: off, remote (HTTP and S3) or files (files, too).",
        c"With it they become faster with each node. Each node needs the rights and settings that the job needs.",
        &USE_NODES,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// `fhir_bulk.use_nodes`.
pub fn use_nodes() -> UseNodes {
    USE_NODES.get()
}
