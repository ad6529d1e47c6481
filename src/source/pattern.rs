//! Which files a URL means that ends in `/` or holds `*`.

use crate::file_url;

/// A folder or a pattern below it. `*` stands for any characters but `/`; a pattern that ends in `/` means all files in the
/// folders that fit, and one that ends in `**` all whose paths begin as it does. Files and folders whose names begin with a dot
/// need a pattern that begins with one.
pub struct Pattern {
    /// For each part of a path below the root, what its name must be.
    parts: Vec<Part>,
    /// Whether files may also be deeper than that, in any folder.
    deep: bool,
    /// Whether they may also be there.
    flat: bool,
}

/// A name with `*` in it: the pieces between them.
struct Part(Vec<Vec<u8>>);

impl Pattern {
    /// Divides a URL into the folder that is listed, which ends in `/`, and the pattern below it. `None` if it is the URL of
    /// one source.
    pub fn of(url: &str) -> Option<(&str, Pattern)> {
        let start = url.find("://")? + 3;
        let star = url.find('*').unwrap_or(url.len());
        if star == url.len() && !url.ends_with('/') {
            return None;
        }
        let root = start + url[start..star].rfind('/')? + 1;
        let below = &url[root..];
        let (flat, deep) = (!url.ends_with('/'), url.ends_with('/') || url.ends_with("**"));
        let below = below.strip_suffix('/').unwrap_or(below);
        // In the URL of a file `%2A` is a star that stands for itself. Keys of objects are not decoded.
        let is_file = url.starts_with("file:");
        let piece = |text: &str| if is_file { file_url::decoded(text) } else { text.as_bytes().to_vec() };
        let part = |text: &str| Part(text.split('*').map(piece).collect());
        let parts = if below.is_empty() { Vec::new() } else { below.split('/').map(part).collect() };
        Some((&url[..root], Pattern { parts, deep, flat }))
    }

    /// Whether files may be in a folder of this name, `depth` folders below the root.
    pub fn enters(&self, depth: usize, name: &[u8]) -> bool {
        match self.parts.get(depth) {
            Some(part) => part.fits(name) && (depth + 1 < self.parts.len() || self.deep),
            None => self.deep && !is_hidden(name),
        }
    }

    /// Whether a file of this name is meant, `depth` folders below the root. The caller has entered these.
    pub fn takes(&self, depth: usize, name: &[u8]) -> bool {
        match self.parts.get(depth) {
            Some(part) => part.fits(name) && depth + 1 == self.parts.len() && self.flat,
            None => self.deep && !is_hidden(name),
        }
    }

    /// Whether a file with this path below the root is meant.
    pub fn takes_path(&self, path: &str) -> bool {
        let parts: Vec<_> = path.split('/').collect();
        let (name, folders) = parts.split_last().expect("of any text there is one");
        let mut depths = folders.iter().enumerate();
        depths.all(|(depth, folder)| self.enters(depth, folder.as_bytes()))
            && self.takes(folders.len(), name.as_bytes())
    }
}

impl Part {
    fn fits(&self, name: &[u8]) -> bool {
        let Part(pieces) = self;
        let (first, rest) = pieces.split_first().expect("a text has one");
        if is_hidden(name) && !first.starts_with(b".") {
            return false;
        }
        let Some((last, middle)) = rest.split_last() else { return name == first };
        let Some(mut left) = name.strip_prefix(first.as_slice()) else { return false };
        for piece in middle {
            // The first place is as good as any other: the more is left for the pieces after it.
            let at = if piece.is_empty() { Some(0) } else { left.windows(piece.len()).position(|part| part == piece) };
            let Some(at) = at else { return false };
            left = &left[at + piece.len()..];
        }
        left.ends_with(last)
    }
}

fn is_hidden(name: &[u8]) -> bool {
    name.starts_with(b".")
}

/// Whether a name is that of NDJSON, plain or gzip, in any case. Others are passed over, whatever the pattern says.
pub fn is_ndjson(name: &[u8]) -> bool {
    let ends = |end: &[u8]| name.len() > end.len() && name[name.len() - end.len()..].eq_ignore_ascii_case(end);
    ends(b".ndjson") || ends(b".ndjson.gz")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(url: &str, path: &str) -> bool {
        let (root, pattern) = Pattern::of(url).unwrap();
        path.strip_prefix(root).is_some_and(|below| pattern.takes_path(below))
    }

    #[test]
    fn a_pattern_takes_what_it_says_and_nothing_else() {
        for (url, path) in [
            ("file:///srv/", "file:///srv/a.ndjson"),
            ("file:///srv/", "file:///srv/b/c/a.ndjson"),
            ("file:///srv/*", "file:///srv/a.ndjson"),
            ("file:///srv/*/", "file:///srv/b/a.ndjson"),
            ("file:///srv/*/", "file:///srv/b/c/a.ndjson"),
            ("file:///srv/20*-*/P*.ndjson", "file:///srv/2026-11/P.ndjson"),
            ("file:///srv/.b/", "file:///srv/.b/a.ndjson"),
            ("file:///srv/.*/*", "file:///srv/.b/a.ndjson"),
            ("file:///srv/a%2a*", "file:///srv/a*b"),
            ("s3://b/", "s3://b/x/y"),
            ("s3://b/x*", "s3://b/xy"),
            ("s3://b/a*b*c", "s3://b/abbc"),
            ("s3://b/*", "s3://b/*"),
            ("s3://b/**", "s3://b/x"),
            ("s3://b/**", "s3://b/x/y/z"),
            ("s3://b/a/P**", "s3://b/a/P.ndjson"),
            ("s3://b/a/P**", "s3://b/a/Px/y/z"),
            ("file:///srv/*/P**", "file:///srv/a/P/b"),
        ] {
            assert!(takes(url, path), "{url} {path}");
        }
        for (url, path) in [
            ("file:///srv/", "file:///srv2/a"),
            ("file:///srv/", "file:///srv/.a"),
            ("file:///srv/", "file:///srv/.b/a"),
            ("file:///srv/*", "file:///srv/b/a"),
            ("file:///srv/*/", "file:///srv/a"),
            ("file:///srv/*/a", "file:///srv/b/c/a"),
            ("file:///srv/*.ndjson", "file:///srv/.ndjson"),
            ("file:///srv/a%2a*", "file:///srv/ab"),
            ("s3://b/a*b*c", "s3://b/ac"),
            ("s3://b/ab*bc", "s3://b/abc"),
            ("s3://b/x*", "s3://b/x/y"),
            ("s3://b/a/P**", "s3://b/a/Q/P"),
            ("s3://b/a/**", "s3://b/a/.P"),
            ("s3://b/a/P**", "s3://b/a/Px/.y"),
            ("s3://b/a/**/c", "s3://b/a/x/y/c"),
        ] {
            assert!(!takes(url, path), "{url} {path}");
        }
        for url in ["file:///srv/a", "s3://b/a", "https://h/a", "nothing", "file:*"] {
            assert!(Pattern::of(url).is_none(), "{url}");
        }
    }

    #[test]
    fn ndjson_is_known_by_its_end_in_any_case() {
        for name in ["a.ndjson", "Patient.NDJSON.gz", "x.y.ndJson.GZ"] {
            assert!(is_ndjson(name.as_bytes()), "{name}");
        }
        for name in [".ndjson", ".ndjson.gz", "a.json", "a.ndjson.zip", "ndjson", "a.ndjson.gz.part", ""] {
            assert!(!is_ndjson(name.as_bytes()), "{name}");
        }
    }
}
