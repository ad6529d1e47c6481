//! Files are read back by the crate's own reader; those of the extension's tests by others'.

use fhir_bulk_parquet::{Cell, Column, File, Kind};
use parquet::basic::Compression;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

fn columns(kinds: &[(&str, Kind)]) -> Vec<Column> {
    kinds.iter().map(|(name, kind)| Column { name: (*name).to_owned(), kind: *kind }).collect()
}

/// A file of these rows, and how large each piece of it was.
fn written(columns: &[Column], rows: usize, mut cell: impl FnMut(usize, usize, &mut File)) -> (Vec<u8>, Vec<usize>) {
    let mut file = File::new(columns).unwrap();
    let (mut out, mut pieces) = (Vec::new(), Vec::new());
    for row in 0..rows {
        for at in 0..columns.len() {
            cell(row, at, &mut file);
        }
        if file.end_row().unwrap() {
            let before = out.len();
            file.take(&mut out);
            pieces.push(out.len() - before);
        }
    }
    file.finish().unwrap();
    let before = out.len();
    file.take(&mut out);
    pieces.push(out.len() - before);
    (out, pieces)
}

fn reader(bytes: Vec<u8>) -> SerializedFileReader<impl parquet::file::reader::ChunkReader> {
    let path = std::env::temp_dir().join(format!(
        "fhir-bulk-{}-{:?}.parquet",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    SerializedFileReader::new(file).unwrap()
}

#[test]
fn every_kind_is_read_back_with_its_type_and_its_nulls() {
    let kinds = [
        ("bool", Kind::Bool),
        ("int32", Kind::Int32),
        ("int64", Kind::Int64),
        ("float32", Kind::Float32),
        ("float64", Kind::Float64),
        ("date", Kind::Date),
        ("time", Kind::Time),
        ("timestamp", Kind::Timestamp),
        ("instant", Kind::Instant),
        ("small", Kind::Decimal { precision: 9, scale: 2 }),
        ("middle", Kind::Decimal { precision: 18, scale: 0 }),
        ("large", Kind::Decimal { precision: 38, scale: 38 }),
        ("text", Kind::Text),
        ("json", Kind::Json),
        ("bytes", Kind::Bytes),
        ("uuid", Kind::Uuid),
    ];
    let uuid = *b"0123456789abcdef";
    let cells = [
        Cell::Bool(true),
        Cell::Int(i32::MIN.into()),
        Cell::Int(i64::MIN),
        Cell::Float(1.5),
        Cell::Float(-2.5),
        Cell::Int(-1),
        Cell::Int(1),
        Cell::Int(-1),
        Cell::Int(1),
        Cell::Decimal(-150),
        Cell::Decimal(10_i128.pow(18) - 1),
        Cell::Decimal(1 - 10_i128.pow(38)),
        Cell::Bytes("ß".as_bytes()),
        Cell::Bytes(b"{}"),
        Cell::Bytes(&[0, 255]),
        Cell::Bytes(&uuid),
    ];
    let (bytes, pieces) = written(&columns(&kinds), 3, |row, at, file| {
        file.push(if row == 1 { Cell::Null } else { cells[at] });
    });
    assert_eq!(pieces.len(), 1);
    let reader = reader(bytes);
    let rows: Vec<Vec<(String, Field)>> =
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows[1].iter().all(|(_, field)| *field == Field::Null));
    assert_eq!(rows[0], rows[2]);
    let text: Vec<String> = rows[0].iter().map(|(_, field)| field.to_string()).collect();
    assert_eq!(text[..5], ["true", "-2147483648", "-9223372036854775808", "1.5", "-2.5E0"]);
    assert!(matches!(rows[0][5].1, Field::Date(-1)), "{:?}", rows[0][5]);
    assert!(matches!(rows[0][8].1, Field::TimestampMicros(1)), "{:?}", rows[0][8]);
    // The reader writes a decimal of no places with a point.
    assert_eq!(text[9..12], ["-1.50", "999999999999999999.", &format!("-0.{}", "9".repeat(38))]);
    assert_eq!(text[12], "\"ß\"");
    let group = reader.metadata().row_group(0);
    for chunk in group.columns() {
        assert!(matches!(chunk.compression(), Compression::ZSTD(_)), "{chunk:?}");
        assert_eq!(chunk.statistics().unwrap().null_count_opt(), Some(1), "{chunk:?}");
    }
}

#[test]
fn a_file_without_rows_is_whole() {
    let (bytes, _) = written(&columns(&[("a", Kind::Text)]), 0, |_, _, _| unreachable!());
    let reader = reader(bytes);
    assert_eq!(reader.metadata().num_row_groups(), 0);
    assert_eq!(reader.metadata().file_metadata().schema().get_fields()[0].name(), "a");
    assert!(File::new(&[]).is_err());
    for (precision, scale) in [(0, 0), (39, 0), (2, 3)] {
        assert!(File::new(&columns(&[("d", Kind::Decimal { precision, scale })])).is_err());
    }
}

#[test]
fn row_groups_end_by_rows_and_by_bytes() {
    let (bytes, pieces) = written(&columns(&[("n", Kind::Int64), ("s", Kind::Text)]), 300_000, |row, at, file| {
        let text = format!("text {row}");
        file.push(if at == 0 { Cell::Int(row as i64) } else { Cell::Bytes(text.as_bytes()) });
    });
    assert_eq!(pieces.len(), 3);
    let reader = reader(bytes);
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [122_880, 122_880, 54_240]);
    let mut count = 0;
    for (at, row) in reader.get_row_iter(None).unwrap().enumerate() {
        let row = row.unwrap().into_columns();
        assert_eq!((&row[0].1, &row[1].1), (&Field::Long(at as i64), &Field::Str(format!("text {at}"))));
        count += 1;
    }
    assert_eq!(count, 300_000);

    // A string that is larger than a group, among others.
    let huge = "x".repeat(40 << 20);
    let (bytes, pieces) = written(&columns(&[("s", Kind::Text)]), 2000, |row, _, file| {
        let text = format!("{row} {}", "y".repeat(row * 10));
        file.push(Cell::Bytes(if row == 1000 { huge.as_bytes() } else { text.as_bytes() }));
    });
    assert_eq!(pieces.len(), 2);
    let reader = self::reader(bytes);
    let lengths: Vec<usize> = reader
        .get_row_iter(None)
        .unwrap()
        .map(|row| match &row.unwrap().into_columns()[0].1 {
            Field::Str(text) => text.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lengths.len(), 2000);
    assert_eq!((lengths[1000], lengths[1999]), (40 << 20, "1999 ".len() + 19_990));
}

#[test]
#[should_panic(expected = "another kind")]
fn a_cell_of_another_kind_is_a_mistake_of_the_caller() {
    File::new(&columns(&[("n", Kind::Int64)])).unwrap().push(Cell::Bytes(b"1"));
}
