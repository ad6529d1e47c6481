//! Rows that a statement asks for while it runs.

use crate::server::{assert_free, be_cancelled, error_of, fail, sql, text, undone};
use fhir_bulk_pg::supply::{Supplied, Supply};
use pgrx::iter::SetOfIterator;
use pgrx::pg_schema;

thread_local! { static NUMBERS: Supplied<i64> = const { Supplied::new() } }

/// Gives numbers from 1 on, and then ends by `end`.
struct Numbers {
    given: i64,
    most: i64,
    end: fn(),
}

impl Supply<i64> for Numbers {
    fn next(&mut self) -> Option<i64> {
        if self.given == self.most {
            (self.end)();
            return None;
        }
        self.given += 1;
        Some(self.given)
    }
}

/// How a statement answers that may take some numbers, and how many it has taken.
fn offer(most: i64, end: fn(), statement: &str) -> (String, i64) {
    let mut numbers = Numbers { given: 0, most, end };
    let answer = NUMBERS.with(|supplied| supplied.offer(&mut numbers, || text(statement)));
    (answer, numbers.given)
}

#[pg_schema]
mod tests {
    use super::*;
    use pgrx::{pg_extern, pg_test};

    /// The numbers of the statement that runs; none if it has none for this call.
    #[pg_extern]
    fn given() -> SetOfIterator<'static, i64> {
        let taken = NUMBERS.with(Supplied::take);
        let next = move || taken.as_ref().and_then(|taken| NUMBERS.with(|supplied| supplied.next(taken)));
        SetOfIterator::new(std::iter::from_fn(next))
    }

    const SUM: &str = "SELECT concat(count(n), ' ', sum(n)) FROM (SELECT tests.given() AS n OFFSET 0) t";

    #[pg_test]
    fn a_statement_takes_its_own_rows_and_only_those() {
        assert_eq!(text(SUM), "0 ");
        assert_eq!(offer(3, || (), SUM), ("3 6".to_owned(), 3));
        assert_eq!(text(SUM), "0 ");
        // What it does not ask for is not made; what is asked for again is not given again.
        assert_eq!(offer(100, || (), "SELECT tests.given() LIMIT 1"), ("1".to_owned(), 1));
        let twice = format!("SELECT concat(a, ' and ', b) FROM ({SUM}) AS x (a), ({SUM}) AS y (b)");
        let (answer, given) = offer(4, || (), &twice);
        assert!(["4 10 and 0 ", "0  and 4 10"].contains(&answer.as_str()), "{answer}");
        assert_eq!(given, 4);
        assert_free();
    }

    #[pg_test]
    fn a_row_that_cannot_be_made_ends_the_statement_and_not_the_next_one() {
        for (end, sqlstate) in [(fail as fn(), "22012"), (be_cancelled, "57014"), (|| panic!("ours"), "XX000")] {
            let raised = error_of(move || _ = offer(3, end, SUM));
            assert_eq!(raised.sqlstate, sqlstate, "{raised:?}");
            assert_eq!(text(SUM), "0 ");
            assert_eq!(offer(2, || (), SUM), ("2 3".to_owned(), 2));
            assert_free();
        }
        undone(|| _ = offer(2, || (), SUM));
        assert_eq!(offer(2, || (), SUM), ("2 3".to_owned(), 2));
    }

    #[pg_test]
    fn what_makes_a_row_cannot_take_one() {
        assert_eq!(offer(2, || assert_eq!(text(SUM), "0 "), SUM), ("2 3".to_owned(), 2));
        let other = || sql("SELECT 1");
        assert_eq!(offer(2, other, SUM), ("2 3".to_owned(), 2));
    }
}
