//! The files of an export that are final while it still runs (`allowPartialManifests`). The processes of the export announce
//! each by a text at the sink; whoever asks for the status reads them there.

use super::target::Target;
use super::written::Written;
use crate::sink::Tries;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use std::collections::HashMap;

/// What an export has announced.
pub struct Announced {
    /// In microseconds since 2000-01-01T00:00:00Z.
    pub transaction_time: i64,
    /// In the order in which they were announced. What is here stays as it is; more comes after it.
    pub files: Vec<Written>,
}

impl Announced {
    /// What there is of an export that runs, or that has just ended; `None` before its snapshot is taken.
    ///
    /// # Errors
    /// The errors of the location.
    pub fn of(target: &Target, tries: Tries) -> Result<Option<Announced>> {
        if !target.announces {
            return Ok(None);
        }
        Ok(read(&target.location()?.announced(&target.folder, tries)?))
    }

    /// Refuses to begin an export anew after files of it were announced: their content must not change.
    ///
    /// # Errors
    /// 55000 if there are such files, and the errors of the location.
    pub fn check_none(target: &Target) -> Result<()> {
        if Announced::of(target, Tries::Several)?.is_none_or(|announced| announced.files.is_empty()) {
            return Ok(());
        }
        // A status shows nothing but the message.
        let message = "the export was interrupted after it had announced files, which must not change: start another one, \
                       or one without allowPartialManifests, which begins anew by itself";
        Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message))
    }

    /// Brings files, with their types, into the order in which they were announced.
    pub fn sort(&self, files: &mut [(String, Written)]) {
        let places: HashMap<&str, usize> = self.files.iter().map(|file| file.name.as_str()).zip(0..).collect();
        files.sort_by_key(|(_, file)| places.get(file.name.as_str()).copied());
    }
}

/// The announcement of an export's snapshot.
pub fn of_time(transaction_time: i64) -> String {
    format!("{TIME}{transaction_time}")
}

const TIME: &str = "time,";

/// Reads announcements. Several processes make them, so a file's may be there before an earlier one's: then it waits.
fn read(texts: &[String]) -> Option<Announced> {
    let transaction_time = texts.iter().find_map(|text| text.strip_prefix(TIME)?.parse().ok())?;
    let mut numbered: Vec<(u64, Written)> = texts.iter().filter_map(|text| Written::announced(text)).collect();
    numbered.sort_by_key(|(number, _)| *number);
    let in_order = (1..).zip(numbered).take_while(|(wanted, (number, _))| wanted == number);
    Some(Announced { transaction_time, files: in_order.map(|(_, (_, file))| file).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, continues_in: Option<&str>) -> Written {
        Written { name: name.into(), count: 3, bytes: Some(7), continues_in: continues_in.map(str::to_owned) }
    }

    #[test]
    fn files_are_read_in_their_order_up_to_the_first_that_is_missing() {
        let (first, second) = (file("b.1.ndjson.gz", None), file("b.3.ndjson.gz", Some("b.5.ndjson.gz")));
        let texts = [second.announcement(2), of_time(-12), first.announcement(1), file("c", None).announcement(4)];
        let announced = read(&texts).unwrap();
        assert_eq!((announced.transaction_time, announced.files), (-12, vec![first, second]));
    }

    #[test]
    fn nothing_is_announced_before_the_snapshot_or_by_others() {
        let first = file("a", None).announcement(1);
        assert!(read(&[]).is_none());
        assert!(read(std::slice::from_ref(&first)).is_none());
        let with_others = ["x".to_owned(), of_time(1), "1,2".to_owned(), first];
        assert_eq!(read(&with_others).unwrap().files, [file("a", None)]);
    }
}
