//! The pages of the manifest of an export with `allowPartialManifests`. A page that was returned stays as it is, while the
//! export runs and after it, so each page has a number of files that is known before they are.

use serde_json::{Value, json};

/// The most files on a page. The first page has one, so that it comes early, and each other one twice as many as the one
/// before it.
const MOST: usize = 1000;

/// Keeps those files of a status that are on a page, counted from 1, and adds the link to the next one. Returns false if the
/// page does not exist, or not yet: a page is shown when it is full, or when the export has ended. The status of an export
/// without `allowPartialManifests` has one page when it has ended.
pub fn keep(status: &mut Value, number: usize, has_ended: bool, next: impl FnOnce() -> String) -> bool {
    if status["allowPartialManifests"] != true {
        return has_ended && number == 1;
    }
    let Some(output) = status["output"].as_array_mut() else { return false };
    let (start, end) = range(number);
    let is_full = end <= output.len();
    if start > output.len() || !(is_full || has_ended) {
        return false;
    }
    output.truncate(end);
    output.drain(..start);
    if is_full {
        // What ends the manifest is on the last page, which has room.
        status["deleted"] = json!([]);
        status["error"] = json!([]);
        status["link"] = json!([{"relation": "next", "url": next()}]);
    }
    true
}

/// Where a page's files begin and end.
fn range(number: usize) -> (usize, usize) {
    let (mut start, mut size) = (0_usize, 1);
    for _ in 1..number {
        start = start.saturating_add(size);
        if start > u32::MAX as usize {
            break;
        }
        size = (size * 2).min(MOST);
    }
    (start, start.saturating_add(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(files: usize) -> Value {
        json!({"allowPartialManifests": true, "output": (0..files).collect::<Vec<_>>(), "deleted": ["d"], "error": ["e"]})
    }

    fn page(files: usize, number: usize, has_ended: bool) -> Option<Value> {
        let mut status = status(files);
        keep(&mut status, number, has_ended, || "u".to_owned()).then_some(status)
    }

    #[test]
    fn a_page_is_the_same_while_the_export_runs_and_after_it() {
        for files in 0..40 {
            let mut all = Vec::new();
            let mut number = 1;
            loop {
                let (running, ended) = (page(files, number, false), page(files, number, true).unwrap());
                all.extend(ended["output"].as_array().unwrap().clone());
                let is_last = ended["link"].is_null();
                let rest = if is_last { (json!(["d"]), json!(["e"])) } else { (json!([]), json!([])) };
                assert_eq!((ended["deleted"].clone(), ended["error"].clone()), rest);
                if is_last {
                    assert_eq!(running, None);
                    break;
                }
                assert_eq!(running, Some(ended));
                number += 1;
            }
            assert_eq!(all, (0..files).map(Value::from).collect::<Vec<_>>());
            assert_eq!(page(files, number + 1, true), None);
        }
        assert_eq!(
            (range(1), range(2), range(3), range(11), range(12)),
            ((0, 1), (1, 3), (3, 7), (1023, 2023), (2023, 3023))
        );
        assert_eq!(page(3, usize::MAX, true), None);
    }

    #[test]
    fn other_manifests_have_one_page() {
        let mut whole = json!({"output": [1, 2]});
        assert!(!keep(&mut whole, 2, true, String::new) && !keep(&mut whole, 1, false, String::new));
        assert!(keep(&mut whole, 1, true, String::new));
        assert_eq!(whole, json!({"output": [1, 2]}));
    }
}
