//! What a listing finds.

/// A source of a listing.
pub struct Found {
    pub url: String,
    /// When it was last modified, in microseconds since 2000-01-01T00:00:00Z. Of a file only
    /// [`Listing::modified`](super::Listing::modified) tells it.
    pub modified: Option<i64>,
}
