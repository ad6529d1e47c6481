//! One set of checks over all kinds of tables: whatever way a load takes, the rows and counts are the same.

mod checks;
mod kind;
mod particular;
mod tables;

use kind::Kind;

/// A test for each kind, named after it.
macro_rules! same_rows_and_counts {
    ($($name:ident: $kind:expr;)*) => {
        $(
            #[test]
            fn $name() {
                checks::all(&mut $kind.make());
            }
        )*
    };
}

same_rows_and_counts! {
    plain_tables_load: Kind::new("direct: it is a plain table", "");
    fhirbase_tables_without_cts_load:
        Kind::new("direct: it is a plain table", tables::WITHOUT_CTS);
    tables_with_columns_of_their_own_load:
        Kind::new("direct: it is a plain table", tables::EXTRA_COLUMNS).also(tables::extra_columns_have_defaults);
    unlogged_tables_load: Kind::new("direct: it is a plain table", "ALTER TABLE patient SET UNLOGGED");
    tables_with_row_triggers_before_load:
        Kind::new("set: it has triggers or foreign keys", tables::BEFORE_TRIGGER).also(tables::trigger_changed_rows);
    tables_with_row_triggers_after_load:
        Kind::new("set: it has triggers or foreign keys", tables::AFTER_TRIGGER).also(tables::trigger_saw_rows);
    tables_with_statement_triggers_load:
        Kind::new("set: it has triggers or foreign keys", tables::STATEMENT_TRIGGERS).also(tables::trigger_saw_rows);
    tables_with_foreign_keys_load: Kind::new("set: it has triggers or foreign keys", tables::FOREIGN_KEYS);
    tables_with_also_rules_load:
        Kind::new("update-insert: it has rules", tables::ALSO_RULE).also(tables::rule_saw_rows);
    tables_with_policies_load_for_an_ordinary_role:
        Kind::new("set: row level security applies to the current role", tables::POLICY).by_role();
    tables_with_forced_policies_load_for_their_owner:
        Kind::new("set: row level security applies to the current role", tables::FORCED_POLICY).by_owner();
    tables_with_policies_load_directly_for_an_owner_not_bound_by_them:
        Kind::new("direct: it is a plain table", tables::POLICY).by_owner();
    tables_with_generated_columns_load:
        Kind::new("set: it has generated columns", tables::GENERATED).also(tables::generated_is_right);
    tables_with_domain_columns_load: Kind::new("set: it has columns of domain types", tables::DOMAIN);
    tables_whose_status_is_text_load: Kind::new("set: its status is not an enumerated type", tables::STATUS_OF_TEXT);
    tables_whose_status_is_a_domain_load: Kind::new("set: it has columns of domain types", tables::STATUS_OF_DOMAIN);
    tables_with_a_deferrable_key_beside_an_index_load:
        Kind::new("update-insert: ON CONFLICT does not work with its deferrable key on id", tables::DEFERRABLE_KEY_AND_INDEX);
    tables_with_a_deferrable_key_beside_another_load:
        Kind::new("set: it has triggers or foreign keys", tables::KEY_AND_DEFERRABLE_ONE);
    tables_with_a_deferrable_key_beside_another_load_staged:
        Kind::new("staged: fhir_bulk.write_path asks for it", tables::KEY_AND_DEFERRABLE_ONE)
            .with("SET fhir_bulk.write_path = 'staged'");
    tables_in_which_different_ids_are_equal_load:
        Kind::new("set: its collation may treat different ids as equal", tables::IDS_WITHOUT_CASE).also(tables::case_makes_no_other_id);
    tables_with_room_for_new_versions_beside_the_old_load:
        Kind::new("direct: it is a plain table", "ALTER TABLE patient SET (fillfactor = 40)");
    tables_with_indexes_of_their_own_load:
        Kind::new("direct: it is a plain table", tables::INDEXES).also(tables::indexes_are_sound);
    tables_whose_only_key_includes_other_columns_load:
        Kind::new("direct: it is a plain table", tables::KEY_WITH_COLUMNS).also(tables::key_is_sound);
    tables_partitioned_by_hash_load: Kind::new("set: it is partitioned", tables::HASH);
    tables_partitioned_by_range_load: Kind::new("set: it is partitioned", tables::RANGE);
    a_partition_under_a_types_name_loads:
        Kind::new("set: it is a partition", tables::LEAF).in_schema("leaves");
    other_schemas_load: Kind::new("direct: it is a plain table", tables::MOVED).in_schema("Other \"schema\"");
    plain_tables_load_when_set_is_asked_for:
        Kind::new("set: fhir_bulk.write_path asks for it", "").with("SET fhir_bulk.write_path = 'set'");
    plain_tables_load_when_staged_is_asked_for:
        Kind::new("staged: fhir_bulk.write_path asks for it", "").with("SET fhir_bulk.write_path = 'staged'");
    fhirbase_tables_load_staged:
        Kind::new("staged: fhir_bulk.write_path asks for it", tables::WITHOUT_CTS).with("SET fhir_bulk.write_path = 'staged'");
    partitioned_tables_load_staged:
        Kind::new("staged: fhir_bulk.write_path asks for it", tables::HASH).with("SET fhir_bulk.write_path = 'staged'");
    tables_with_policies_load_staged:
        Kind::new("staged: fhir_bulk.write_path asks for it", tables::POLICY).by_role().with("SET fhir_bulk.write_path = 'staged'");
    tables_that_citus_lists_load_by_inserts:
        Kind::new("shards: Citus distributes it to other servers", tables::LISTED_BY_CITUS);
    foreign_tables_load: Kind::foreign("update-insert: it is a foreign table", tables::foreign_table);
    foreign_tables_load_in_batches_of_their_wrapper:
        Kind::foreign("update-insert: it is a foreign table", tables::foreign_table_batched);
    partitions_on_two_other_servers_load:
        Kind::foreign("update-insert: some of its partitions are foreign tables", tables::foreign_partitions);
    plain_tables_load_under_logical_decoding:
        Kind::new("direct: it is a plain table", "").decoded();
    fhirbase_tables_load_under_logical_decoding:
        Kind::new("direct: it is a plain table", tables::WITHOUT_CTS).decoded();
    unlogged_tables_load_under_logical_decoding:
        Kind::new("direct: it is a plain table", "ALTER TABLE patient SET UNLOGGED").decoded();
    tables_with_triggers_load_under_logical_decoding:
        Kind::new("set: it has triggers or foreign keys", tables::AFTER_TRIGGER).decoded().also(tables::trigger_saw_rows);
}
