//! What the tests do in a server, and what they see of it.

use fhir_bulk_pg::{session, spi, worker};
use pgrx::{PgMemoryContexts, pg_schema, pg_sys};
use std::cell::RefCell;
use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// How long a test waits for a state that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An error as PL/pgSQL shows it to whoever catches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// Five characters.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// DETAIL.
    pub detail: String,
    /// HINT.
    pub hint: String,
    /// CONTEXT.
    pub context: String,
    /// The name of the constraint.
    pub constraint: String,
}

thread_local! {
    /// What the next calls of `in_server.work()` do; the innermost comes last.
    static WORK: RefCell<Vec<Box<dyn FnOnce()>>> = const { RefCell::new(Vec::new()) };
    static RAISED: RefCell<Option<Raised>> = const { RefCell::new(None) };
}

#[pg_schema]
mod in_server {
    use super::{RAISED, Raised, WORK};
    use pgrx::pg_extern;

    #[pg_extern]
    fn work() {
        let work = WORK.with_borrow_mut(Vec::pop).expect("called by a block");
        work();
    }

    #[pg_extern]
    fn raised(sqlstate: String, message: String, detail: String, hint: String, context: String, constraint: String) {
        RAISED.set(Some(Raised { sqlstate, message, detail, hint, context, constraint }));
    }
}

/// Runs `work` as users' functions run: in a block of PL/pgSQL that has EXCEPTION, which is a subtransaction. An error
/// undoes it, and the transaction goes on.
fn block(work: impl FnOnce() + 'static, afterwards: &str) -> Option<Raised> {
    WORK.with_borrow_mut(|waiting| waiting.push(Box::new(work)));
    RAISED.set(None);
    sql(&format!(
        "DO $do$ DECLARE s text; m text; d text; h text; c text; n text; BEGIN \
           BEGIN PERFORM in_server.work(); {afterwards} \
           EXCEPTION WHEN query_canceled OR assert_failure OR OTHERS THEN \
             GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, \
               h = PG_EXCEPTION_HINT, c = PG_EXCEPTION_CONTEXT, n = CONSTRAINT_NAME; \
             PERFORM in_server.raised(s, m, d, h, c, n); \
           END; \
         END $do$"
    ));
    RAISED.take()
}

/// The error that `work` raises, whose subtransaction is rolled back.
pub fn error_of(work: impl FnOnce() + 'static) -> Raised {
    block(work, "").expect("an error")
}

/// The SQLSTATE of that error.
pub fn sqlstate_of(work: impl FnOnce() + 'static) -> String {
    error_of(work).sqlstate
}

/// Runs `work` in a subtransaction that is rolled back after it.
pub fn undone(work: impl FnOnce() + 'static) {
    let raised = block(work, "RAISE 'undo' USING ERRCODE = 'UNDO0';").expect("an error");
    assert_eq!(raised.sqlstate, "UNDO0", "{raised:?}");
}

/// Runs `work` in a subtransaction that is kept.
pub fn kept(work: impl FnOnce() + 'static) {
    assert_eq!(block(work, ""), None);
}

/// Runs a statement.
pub fn sql(statement: &str) {
    spi::execute(&CString::new(statement).unwrap(), &[]);
}

/// The rows of a query of one column.
pub fn texts(query: &str) -> Vec<String> {
    spi::texts(&CString::new(query).unwrap(), &[])
}

/// The one row of it.
pub fn text(query: &str) -> String {
    texts(query).into_iter().next().expect(query)
}

/// Raises 22012.
pub fn fail() {
    sql("SELECT 1/0");
}

/// What `pg_cancel_backend` does to this session: the next look for interrupts raises 57014.
pub fn cancel() {
    worker::interrupt(worker::pid());
}

/// Raises 57014.
pub fn be_cancelled() {
    cancel();
    session::check_for_interrupts();
}

/// Waits for a state that must come.
pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < PATIENCE, "waited for {what}");
        session::wait_for_latch(Duration::from_millis(5));
    }
}

/// The current memory context.
pub fn memory() -> pg_sys::MemoryContext {
    PgMemoryContexts::CurrentMemoryContext.value()
}

/// Runs `work`, which fails, and looks at the session on the way of its error, before anybody else puts anything back.
pub fn on_its_way(work: impl FnOnce(), look: impl FnOnce()) -> ! {
    let error = catch_unwind(AssertUnwindSafe(work)).expect_err("an error");
    look();
    resume_unwind(error)
}

/// How many memory contexts of ours there are.
pub fn contexts() -> String {
    text("SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'fhir_bulk'")
}

/// Asserts that the session is as users have it: it may become another role, change settings and write.
pub fn assert_free() {
    kept(|| {
        sql("CREATE ROLE somebody; SET LOCAL ROLE somebody; RESET ROLE; DROP ROLE somebody");
        sql("SELECT set_config('work_mem', '5MB', true)");
        sql("CREATE TABLE public.written (id int); INSERT INTO public.written VALUES (1); DROP TABLE public.written");
        sql("SET LOCAL work_mem = DEFAULT");
    });
}
