//! Patients whose content says who wrote them, and a model of what table `patient` has.

use std::fmt::Write as _;
use std::ops::Range;

use fhir_bulk_tests::Client;
use fhir_bulk_tests::support::value;

/// Lines of some patients, with the mark of their writer.
pub fn lines(ids: Range<usize>, mark: u64) -> String {
    let mut lines = String::with_capacity(ids.len() * 160);
    for id in ids {
        line(&mut lines, id, mark);
    }
    lines
}

/// One of them.
pub fn line(out: &mut String, id: usize, mark: u64) {
    let _ = writeln!(
        out,
        "{{\"resourceType\":\"Patient\",\"id\":\"p-{id}\",\"active\":true,\"name\":[{{\"family\":\"{mark}\",\
         \"given\":[\"Zoë\",\"Ødegård\"]}}],\"birthDate\":\"1970-01-01\",\"multipleBirthInteger\":{id}}}"
    );
}

/// What table `patient` must have: the mark of each id, and how many rows of history there are.
#[derive(Clone, Default)]
pub struct Model {
    marks: Vec<Option<u64>>,
    pub history: u64,
}

impl Model {
    /// These ids have been written; what was there before went into the history.
    pub fn write(&mut self, ids: Range<usize>, mark: u64) {
        if self.marks.len() < ids.end {
            self.marks.resize(ids.end, None);
        }
        for mark_of in &mut self.marks[ids] {
            self.history += u64::from(mark_of.is_some());
            *mark_of = Some(mark);
        }
    }

    /// Rows, sums over ids and marks, and rows of history, as [`stored`] finds them.
    pub fn digest(&self) -> String {
        let there = self.marks.iter().enumerate().filter_map(|(id, mark)| Some((id as u64, (*mark)?)));
        let (mut count, mut ids, mut marks) = (0, 0, 0);
        for (id, mark) in there {
            (count, ids, marks) = (count + 1, ids + id, marks + (id % 1009 + 1) * (mark + 1));
        }
        format!("{count}|{count}|{ids}|{marks}|{}", self.history)
    }
}

/// The same of the table.
pub fn stored(client: &mut Client) -> String {
    value(
        client,
        "SELECT count(*), count(DISTINCT id), coalesce(sum(n), 0),
                coalesce(sum((n % 1009 + 1) * ((resource #>> '{name,0,family}')::bigint + 1)), 0),
                (SELECT count(*) FROM patient_history)
         FROM (SELECT *, substring(id FROM 3)::bigint AS n FROM patient) p",
    )
}
