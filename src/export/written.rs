//! A finished file of an export.

use serde::{Deserialize, Serialize};

/// A finished file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    pub name: String,
    /// How many lines it has.
    pub count: u64,
    /// Its size, compressed if it is; `None` if an earlier version of the extension wrote it.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// The file that has the rest of this one's last block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues_in: Option<String>,
}

/// A file with its resource type and number.
pub type Numbered = (String, usize, Written);

impl Written {
    /// Its name up to the number: the type in files of one type.
    pub fn stem(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The announcement of the file, the `number`-th of its export: `number,count,bytes,name[,continues_in]`.
    pub fn announcement(&self, number: u64) -> String {
        let Written { name, count, bytes, continues_in } = self;
        let next = continues_in.as_deref().map_or(String::new(), |next| format!(",{next}"));
        format!("{number},{count},{},{name}{next}", bytes.unwrap_or(0))
    }

    /// Reads an announcement.
    pub fn announced(text: &str) -> Option<(u64, Written)> {
        let mut parts = text.split(',');
        let mut number = || parts.next()?.parse().ok();
        let (place, count, bytes) = (number()?, number()?, Some(number()?));
        let (name, continues_in) = (parts.next()?.to_owned(), parts.next().map(str::to_owned));
        Some((place, Written { name, count, bytes, continues_in }))
    }
}
