//! Finds code of other roles that runs when a table is read.
//!
//! A view's query, a policy, a column type's cast: all of them run with the reader's rights. A caller who names a table
//! trusts it. A caller who exports all types does not know which tables other roles have created.

use super::ResourceTable;
use super::statement::sql;
use super::table::RESOURCE_COLUMNS;
use fhir_bulk_pg::guc::{self, Changes};
use fhir_bulk_pg::session::SAFE_SEARCH_PATH;
use fhir_bulk_pg::spi::{Parameter, kept};
use fhir_bulk_pg::transaction;
use std::ffi::CStr;

/// How the catalogue is read: by its indexes. There may be thousands of tables, as where the shards of Citus are, and nobody
/// may have counted their rows. Else PostgreSQL would read most of the catalogue for each look.
const BY_INDEX: [(&CStr, &CStr); 7] = [
    (c"enable_indexscan", c"on"),
    (c"enable_nestloop", c"on"),
    (c"enable_hashjoin", c"off"),
    (c"enable_mergejoin", c"off"),
    (c"enable_seqscan", c"off"),
    // What has no index seems dear then, and would be compiled.
    (c"jit", c"off"),
    // Planning takes longer than a look, and there is one for each type.
    (c"plan_cache_mode", c"force_generic_plan"),
];

/// Describes the first part of a table that would run code of a role other than the current one and superusers. `None` if
/// there is no such part.
pub fn foreign_code(table: &ResourceTable) -> Option<String> {
    foreign_code_of(std::iter::once(table))
}

/// As [`foreign_code`], of any of several tables: one look at the catalogue takes as long as planning it does.
pub fn foreign_code_of<'t>(tables: impl Iterator<Item = &'t ResourceTable>) -> Option<String> {
    // `family`: the tables, their child tables, and the tables that their views read. `parts`: everything else that PostgreSQL
    // evaluates when it plans and reads one of them. Only superusers can create operator classes, table access methods and
    // base types.
    let query = sql(format!(
        "WITH RECURSIVE trusted AS (SELECT oid FROM pg_roles WHERE rolsuper OR rolname = current_user),
         family (oid, is_child, is_asked) AS (
             SELECT asked.oid, false, true FROM unnest($1) AS asked (oid)
             UNION
             SELECT next.oid, next.is_child, false FROM family f, LATERAL (
                 SELECT i.inhrelid, true FROM pg_inherits i WHERE i.inhparent = f.oid
                 UNION ALL
                 SELECT d.refobjid, false FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
                 JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                 WHERE r.ev_class = f.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> f.oid
             ) AS next (oid, is_child)
         ),
         members AS (
             SELECT c.oid, c.relkind, f.is_child, c.relrowsecurity AND (NOT f.is_asked OR row_security_active(c.oid)) AS is_filtered,
                    c.oid::regclass::text AS name,
                    pg_get_userbyid(c.relowner) AS owner, c.relowner IN (TABLE trusted) AS is_trusted
             FROM family f JOIN pg_class c ON c.oid = f.oid
         ),
         parts (class, oid) AS (
             SELECT 'pg_class'::regclass, m.oid FROM members m
             UNION ALL SELECT 'pg_rewrite'::regclass, r.oid FROM members m JOIN pg_rewrite r ON r.ev_class = m.oid
                 WHERE m.relkind = 'v'
             UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM members m JOIN pg_index i ON i.indrelid = m.oid
             UNION ALL SELECT 'pg_constraint'::regclass, k.oid FROM members m JOIN pg_constraint k ON k.conrelid = m.oid
                 WHERE k.contype = 'c'
             UNION ALL SELECT 'pg_statistic_ext'::regclass, s.oid FROM members m
                 JOIN pg_statistic_ext s ON s.stxrelid = m.oid
             UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM members m JOIN pg_policy p ON p.polrelid = m.oid
                 WHERE m.is_filtered
             UNION ALL SELECT 'pg_attrdef'::regclass, e.oid FROM members m, LATERAL (
                     -- OFFSET keeps the planner from looking at the columns of all tables first: few are generated.
                     SELECT x.oid FROM pg_attribute a JOIN pg_attrdef x ON x.adrelid = a.attrelid AND x.adnum = a.attnum
                     WHERE a.attrelid = m.oid AND a.attgenerated = 'v' OFFSET 0
                 ) AS e
         )
         SELECT format('%s %s belongs to role %s', CASE relkind WHEN 'v' THEN 'the view' WHEN 'f' THEN 'the foreign table'
                    ELSE 'its child table' END, name, owner)
         FROM members WHERE NOT is_trusted AND (relkind IN ('v', 'f') OR is_child)
         UNION ALL
         SELECT format('the policies of table %s belong to role %s', name, owner)
         FROM members WHERE NOT is_trusted AND is_filtered
         UNION ALL
         SELECT format('its column %s is of type %s', a.attname, format_type(a.atttypid, a.atttypmod))
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = ANY ($1) AND a.attname = ANY ('{{{RESOURCE_COLUMNS}}}') AND NOT a.attisdropped
           AND t.typnamespace <> 'pg_catalog'::regnamespace
           AND NOT (t.typname = 'resource_status' AND t.typtype = 'e'
                    AND NOT EXISTS (SELECT FROM pg_cast k WHERE k.castsource = t.oid OR k.casttarget = t.oid))
         UNION ALL
         SELECT format('it uses %s of role %s', pg_describe_object(d.refclassid, d.refobjid, 0), pg_get_userbyid(o.owner))
         FROM parts JOIN pg_depend d ON d.classid = parts.class AND d.objid = parts.oid,
         LATERAL (
             SELECT p.proowner FROM pg_proc p WHERE d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
             UNION ALL SELECT x.owner FROM pg_operator x0 JOIN pg_proc p ON p.oid = x0.oprcode,
                 LATERAL (VALUES (x0.oprowner), (p.proowner)) AS x (owner)
                 WHERE d.refclassid = 'pg_operator'::regclass AND x0.oid = d.refobjid
             -- A table depends on the types of all its columns, which are looked at above as far as they are read.
             UNION ALL SELECT t.typowner FROM pg_type t WHERE d.refclassid = 'pg_type'::regclass AND t.oid = d.refobjid
                 AND d.classid <> 'pg_class'::regclass
         ) AS o (owner)
         WHERE o.owner NOT IN (TABLE trusted)
         LIMIT 1"
    ));
    // Read the catalogue as it is now: the planner uses this, not what the transaction's snapshot shows.
    transaction::in_catalog_snapshot(|| {
        let settings: Vec<_> = BY_INDEX.into_iter().chain([(c"search_path", SAFE_SEARCH_PATH)]).collect();
        guc::with(&settings, Changes::Undo, || {
            let tables = Parameter::oids(tables.map(|table| table.oid));
            kept::texts_in_snapshot(&query, &[tables]).into_iter().next()
        })
    })
}
