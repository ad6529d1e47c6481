//! Memory that outlives what it was used for.

/// An empty vector with the same memory and another lifetime. The standard library collects in place if the types have the
/// same layout.
pub(crate) fn emptied<A, B>(mut items: Vec<A>) -> Vec<B> {
    items.clear();
    items.into_iter().map(|_| unreachable!("cleared")).collect()
}
