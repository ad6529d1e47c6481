//! A table with a column of every built-in type, and of every kind that types can be made of.

use crate::support::{rows, run};
use fhir_bulk_tests::{Client, Database, is_without};

/// Column, type, and its values in rows 1 and 2.
const COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("boolean", "boolean", "true", "false"),
    ("bytea", "bytea", r"'\x00ff5c270a22'", "''"),
    ("char", "\"char\"", "'x'", r"'\'"),
    ("name", "name", "'a name'", r#"'a,"b'"#),
    ("int8", "bigint", "9223372036854775807", "-9223372036854775808"),
    ("int2", "smallint", "32767", "-32768"),
    ("int2vector", "int2vector", "'1 2 3'", "''"),
    ("int4", "integer", "2147483647", "-2147483648"),
    ("regproc", "regproc", "'now'", "0"),
    ("text", "text", r#"E'a "quoted", text;\nit''s\r\n\t\\N Zoë 𝄞'"#, "''"),
    ("oid", "oid", "4294967295", "0"),
    ("tid", "tid", "'(1,2)'", "'(4294967295,65535)'"),
    ("xid", "xid", "'123'", "'4294967295'"),
    ("cid", "cid", "'1'", "'0'"),
    ("oidvector", "oidvector", "'1 2'", "''"),
    ("json", "json", r#"'{"a":  [1, 2.50, null], "b": "x\ny"}'"#, "E'[1,\\n 2]'"),
    ("xml", "xml", "'<a b=\"c\">d</a>'", "'<a/>\n'"),
    ("xid8", "xid8", "'1'", "'18446744073709551615'"),
    ("point", "point", "'(1.5,2)'", "'(1e+300,-0)'"),
    ("lseg", "lseg", "'[(0,0),(1,1)]'", "'[(1e-300,0),(1,1)]'"),
    ("path", "path", "'((0,0),(1,1),(2,0))'", "'[(0,0),(1,1)]'"),
    ("box", "box", "'(1,1),(0,0)'", "'(2,2),(1,1)'"),
    ("polygon", "polygon", "'((0,0),(1,1),(2,0))'", "'((0,0))'"),
    ("line", "line", "'{1,2,3}'", "'{1,-1,0.1}'"),
    ("circle", "circle", "'<(0,0),1>'", "'<(1.5,2),0>'"),
    ("float4", "real", "1.1", "'NaN'"),
    ("float8", "double precision", "0.1::double precision + 0.2::double precision", "'-Infinity'"),
    ("float8_small", "double precision", "'-0'", "'5e-324'"),
    ("money", "money", "'12.34'", "'-92233720368547758.08'"),
    ("macaddr", "macaddr", "'08:00:2b:01:02:03'", "'00:00:00:00:00:00'"),
    ("inet", "inet", "'192.168.1.1/24'", "'::1'"),
    ("cidr", "cidr", "'10.0.0.0/8'", "'2001:db8::/32'"),
    ("macaddr8", "macaddr8", "'08:00:2b:01:02:03:04:05'", "'00:00:00:ff:fe:00:00:00'"),
    ("aclitem", "aclitem", "'postgres=r/postgres'", "'=r/postgres'"),
    ("bpchar", "character(5)", "'ab'", "''"),
    ("varchar", "varchar(20)", r"'\.'", "'NULL'"),
    ("date", "date", "'2024-02-29'", "'infinity'"),
    ("date_past", "date", "'0044-03-15 BC'", "'9999-12-31'"),
    ("time", "time", "'23:59:59.999999'", "'00:00'"),
    ("timestamp", "timestamp", "'2024-02-29 12:34:56.789'", "'-infinity'"),
    ("timestamptz", "timestamptz", "'2024-07-01 12:00:00.000001+00'", "'infinity'"),
    ("timestamptz_past", "timestamptz", "'1890-01-01 00:00:00+00'", "'1999-12-31 23:59:59.9+00'"),
    ("interval", "interval", "'1 year 2 mons -3 days +04:05:06.789'", "'-00:00:01'"),
    ("timetz", "timetz", "'12:34:56.789+05:30'", "'00:00-12'"),
    ("bit", "bit(3)", "B'101'", "B'000'"),
    ("varbit", "varbit", "B'10101'", "B''"),
    ("numeric", "numeric", "1234567890123456789012345678901234567890.10", "'NaN'"),
    ("numeric_small", "numeric", "0.00000000000000000000000000000000000000010", "'-Infinity'"),
    ("refcursor", "refcursor", "'a cursor'", "''"),
    ("regprocedure", "regprocedure", "'upper(text)'", "0"),
    ("regoper", "regoper", "'||/'", "0"),
    ("regoperator", "regoperator", "'+(integer,integer)'", "0"),
    ("regclass", "regclass", "'pg_class'", "0"),
    ("regcollation", "regcollation", "'\"C\"'", "0"),
    ("regtype", "regtype", "'double precision'", "0"),
    ("regrole", "regrole", "'postgres'", "0"),
    ("regnamespace", "regnamespace", "'pg_catalog'", "0"),
    ("uuid", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"),
    ("pg_lsn", "pg_lsn", "'16/B374D848'", "'0/0'"),
    ("tsvector", "tsvector", "'''it''''s'':1 b:2A'", "''"),
    ("tsquery", "tsquery", "'a & ''b c'''", "'!a | b:*'"),
    ("regconfig", "regconfig", "'english'", "0"),
    ("regdictionary", "regdictionary", "'simple'", "0"),
    ("jsonb", "jsonb", r#"'{"a": [1, 2.50, null, 1e3], "größe": "x\n\"y\" \\ \u0001", "b": {}}'"#, "'\"text\"'"),
    ("jsonpath", "jsonpath", "'$.a[*] ? (@ > 1)'", "'strict $'"),
    ("txid_snapshot", "txid_snapshot", "'10:20:10,14'", "'1:1:'"),
    ("pg_snapshot", "pg_snapshot", "'10:20:10,14'", "'1:1:'"),
    ("int4range", "int4range", "'[1,10)'", "'empty'"),
    ("numrange", "numrange", "'(1.10,)'", "'[1,1]'"),
    ("tsrange", "tsrange", "'[2024-01-01 00:00,2024-01-02 12:30)'", "'(,infinity]'"),
    ("tstzrange", "tstzrange", "'[2024-01-01 00:00+00,)'", "'(,)'"),
    ("daterange", "daterange", "'[2024-01-01,2024-02-01)'", "'(,2024-01-01)'"),
    ("int8range", "int8range", "'[1,9223372036854775807)'", "'(,)'"),
    ("int4multirange", "int4multirange", "'{[1,2),[5,7)}'", "'{}'"),
    ("nummultirange", "nummultirange", "'{[1.1,2.2]}'", "'{}'"),
    ("tsmultirange", "tsmultirange", "'{[2024-01-01,2024-01-02)}'", "'{}'"),
    ("tstzmultirange", "tstzmultirange", "'{[2024-01-01 00:00+00,)}'", "'{}'"),
    ("datemultirange", "datemultirange", "'{[2024-01-01,2024-01-02)}'", "'{}'"),
    ("int8multirange", "int8multirange", "'{[1,2)}'", "'{}'"),
    // What types are made of.
    ("enum", "mood", "'so, so'", "'fine'"),
    ("domain", "percent", "99.50", "0"),
    ("domain_of_json", "document", "'{\"a\": 1}'", "'null'"),
    ("composite", "pair", r#"ROW(1, 'a,"b')"#, "ROW(NULL, '')"),
    ("composite_nested", "nest", "ROW(ROW(1, 'x'), ARRAY[1, NULL], '{\"a\": 1}')", "ROW(NULL, '{}', NULL)"),
    ("array_int", "integer[]", "'{1,NULL,3}'", "'{}'"),
    ("array_two", "integer[][]", "'{{1,2},{3,4}}'", "'[0:1]={5,6}'"),
    ("array_text", "text[]", r#"ARRAY['a,b', '"', '', NULL, 'NULL', '{}', E'\\', 'x y']"#, "ARRAY['']"),
    ("array_jsonb", "jsonb[]", r#"ARRAY['{"a": [1]}'::jsonb, 'null', NULL]"#, "'{}'"),
    ("array_bytea", "bytea[]", r#"ARRAY['\x00ff'::bytea, '']"#, "'{}'"),
    ("array_time", "timestamptz[]", "ARRAY['2024-07-01 12:00+00'::timestamptz, 'infinity']", "'{}'"),
    ("array_pair", "pair[]", "ARRAY[ROW(1, 'x')::pair, NULL, ROW(2, NULL)::pair]", "'{}'"),
    ("array_domain", "percent[]", "ARRAY[1.10, 2]::percent[]", "'{}'"),
    ("array_enum", "mood[]", "ARRAY['fine', 'so, so']::mood[]", "'{}'"),
];

/// The database with table `every_type`: rows 1 and 2 with values, 3 with NULLs, 4 with row 2's once more.
pub fn database() -> (Database, Client) {
    let database = Database::new();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TYPE mood AS ENUM ('fine', 'so, so');
         CREATE DOMAIN percent AS numeric CHECK (VALUE BETWEEN 0 AND 100);
         CREATE DOMAIN document AS jsonb;
         CREATE TYPE pair AS (number integer, \"a text\" text);
         CREATE TYPE nest AS (inner_pair pair, numbers integer[], dropped text, document jsonb);
         ALTER TYPE nest DROP ATTRIBUTE dropped;
         SET TimeZone = 'Europe/Berlin'",
    );
    let column = |(name, kind, ..): &(&str, &str, &str, &str)| format!("\"a {name}\" {kind}");
    let columns: Vec<_> = COLUMNS.iter().map(column).collect();
    run(&mut client, &format!("CREATE TABLE every_type (n integer, {})", columns.join(", ")));
    let value = |kind: &str, value| if kind == "xml" && is_without("libxml") { "NULL" } else { value };
    let first: Vec<_> = COLUMNS.iter().map(|column| value(column.1, column.2)).collect();
    let second: Vec<_> = COLUMNS.iter().map(|column| value(column.1, column.3)).collect();
    run(&mut client, &format!("INSERT INTO every_type VALUES (1, {})", first.join(", ")));
    run(&mut client, &format!("INSERT INTO every_type VALUES (2, {})", second.join(", ")));
    run(&mut client, "INSERT INTO every_type (n) VALUES (3)");
    run(&mut client, &format!("INSERT INTO every_type VALUES (4, {})", second.join(", ")));
    (database, client)
}

#[test]
fn no_built_in_type_is_missing_here() {
    let (_database, mut client) = database();
    let missing = rows(
        &mut client,
        "SELECT typname FROM pg_type
         WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typisdefined
           AND typname !~ '^_' AND typname !~ '^(pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_.*|gtsvector)$'
           AND oid NOT IN (SELECT atttypid FROM pg_attribute WHERE attrelid = 'every_type'::regclass)",
    );
    assert_eq!(missing, Vec::<String>::new());
}
