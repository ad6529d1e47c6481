//! Scopes of SMART: `system/Patient.rs`, `system/*.cruds`, and version 1's `system/Patient.read`, `.write`, `.*`.

use std::collections::BTreeMap;

/// What may be done with the resources of a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u8);

/// The letters of version 2, in their order.
const LETTERS: &str = "cruds";

impl Permissions {
    /// One resource by its id.
    pub const READ: Permissions = Permissions(0b00010);
    /// All resources of a type, or those that a search finds.
    pub const READ_ALL: Permissions = Permissions(0b10010);
    /// New resources, and new content of known ones.
    pub const LOAD: Permissions = Permissions(0b00101);

    /// Reads `read`, `write`, `*`, or letters of `cruds` in their order.
    fn parse(text: &str) -> Option<Permissions> {
        match text {
            "read" => return Some(Permissions::READ_ALL),
            "write" => return Some(Permissions(0b01101)),
            "*" => return Some(Permissions(0b11111)),
            _ => {}
        }
        let (mut bits, mut next) = (0, 0);
        for letter in text.chars() {
            let at = LETTERS.find(letter).filter(|at| *at >= next)?;
            bits |= 1 << at;
            next = at + 1;
        }
        (bits != 0).then_some(Permissions(bits))
    }

    fn has(self, needed: Permissions) -> bool {
        self.0 & needed.0 == needed.0
    }

    fn and(self, other: Permissions) -> Permissions {
        Permissions(self.0 & other.0)
    }

    fn or(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

/// In the letters of version 2.
impl std::fmt::Display for Permissions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let letters = LETTERS.chars().enumerate().filter(|(at, _)| self.0 & 1 << at != 0);
        f.write_str(&letters.map(|(_, letter)| letter).collect::<String>())
    }
}

/// The scope of submissions, which are of any types.
pub const SUBMIT: &str = "system/bulk-submit";

/// The permissions of some scopes: of all types, and of single ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    of_all: Permissions,
    /// Whether submissions are permitted.
    submits: bool,
    /// By the type's name in lower case, because its table is the same in any spelling; with the name as it was written.
    of_types: BTreeMap<String, (String, Permissions)>,
}

impl Scopes {
    /// Reads scopes that are separated by spaces. Those that are no scopes of resources here are left out: other services may
    /// know them.
    pub fn of_known(text: &str) -> Scopes {
        let mut scopes = Scopes { submits: words(text).any(|word| word == SUBMIT), ..Scopes::default() };
        words(text).filter_map(parse).for_each(|(name, permissions)| scopes.add(name, permissions));
        scopes
    }

    /// Reads scopes that are separated by spaces.
    ///
    /// # Errors
    /// The first one that is none.
    pub fn of_all(text: &str) -> Result<Scopes, &str> {
        match words(text).find(|word| *word != SUBMIT && parse(word).is_none()) {
            Some(word) => Err(word),
            None => Ok(Scopes::of_known(text)),
        }
    }

    fn add(&mut self, name: &str, permissions: Permissions) {
        if permissions == Permissions::default() {
            return;
        }
        if name == "*" {
            self.of_all = self.of_all.or(permissions);
        } else {
            let (_, known) = self
                .of_types
                .entry(name.to_ascii_lowercase())
                .or_insert_with(|| (name.to_owned(), Permissions::default()));
            *known = known.or(permissions);
        }
    }

    /// Whether nothing is permitted.
    pub fn is_empty(&self) -> bool {
        self.of_all == Permissions::default() && self.of_types.is_empty() && !self.submits
    }

    /// What both permit.
    pub fn and(&self, other: &Scopes) -> Scopes {
        let (of_all, submits) = (self.of_all.and(other.of_all), self.submits && other.submits);
        let mut both = Scopes { of_all, submits, of_types: BTreeMap::new() };
        for (name, _) in self.of_types.values().chain(other.of_types.values()) {
            let permissions = self.of(name).and(other.of(name));
            if !both.of(name).has(permissions) {
                both.add(name, permissions);
            }
        }
        both
    }

    /// Their text, separated by spaces. Where a scope of `asked` says the same, it is spelt as there.
    pub fn text(&self, asked: &str) -> String {
        let all = (self.of_all != Permissions::default()).then_some(("*", self.of_all));
        let each = self.of_types.values().map(|(name, permissions)| (name.as_str(), *permissions));
        let spelt = |(name, permissions): (&str, Permissions)| {
            let is_same = |word: &&str| {
                parse(word).is_some_and(|(other, same)| same == permissions && other.eq_ignore_ascii_case(name))
            };
            words(asked).find(is_same).map_or_else(|| format!("system/{name}.{permissions}"), str::to_owned)
        };
        let submits = self.submits.then(|| SUBMIT.to_owned());
        all.into_iter().chain(each).map(spelt).chain(submits).collect::<Vec<_>>().join(" ")
    }

    fn of(&self, name: &str) -> Permissions {
        let own = self.of_types.get(&name.to_ascii_lowercase()).map(|(_, permissions)| *permissions);
        self.of_all.or(own.unwrap_or_default())
    }

    /// Whether this is permitted for a type, in any spelling.
    pub fn permit(&self, name: &str, needed: Permissions) -> bool {
        self.of(name).has(needed)
    }

    /// Whether submissions are permitted.
    pub fn permit_submissions(&self) -> bool {
        self.submits
    }

    /// Whether this is permitted for all types.
    pub fn permit_all(&self, needed: Permissions) -> bool {
        self.of_all.has(needed)
    }

    /// The types for which this is permitted; `None` for all.
    pub fn types(&self, needed: Permissions) -> Option<Vec<String>> {
        if self.permit_all(needed) {
            return None;
        }
        let names = self.of_types.values().map(|(name, _)| name);
        Some(names.filter(|name| self.permit(name, needed)).cloned().collect())
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// A scope's type, or `*`, and its permissions. A scope that is narrowed by a search (`system/Patient.rs?…`) is none: it
/// would permit more than it says.
fn parse(word: &str) -> Option<(&str, Permissions)> {
    let (name, permissions) = word.strip_prefix("system/")?.split_once('.')?;
    let is_type = name.len() <= 55
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (name == "*" || is_type).then_some((name, Permissions::parse(permissions)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_one_of_the_two_spellings_and_nothing_else() {
        let letters = |word| parse(word).map(|(name, permissions)| format!("{name} {permissions}"));
        for (word, meant) in [
            ("system/Patient.read", "Patient rs"),
            ("system/*.write", "* cud"),
            ("system/*.*", "* cruds"),
            ("system/Individual.cruds", "Individual cruds"),
            ("system/Patient.s", "Patient s"),
        ] {
            assert_eq!(letters(word).as_deref(), Some(meant), "{word}");
        }
        for word in [
            "system/Patient.sr",
            "system/Patient.rr",
            "system/Patient.",
            "system/Patient",
            "system/.r",
            "system/Pat*.r",
            "system/Patient.READ",
            "system/patient_history.r",
            "system/Patient.rs?category=a",
            "user/Patient.read",
            "patient/*.rs",
            "openid",
            "",
        ] {
            assert_eq!(letters(word), None, "{word}");
        }
    }

    #[test]
    fn what_is_granted_is_what_both_permit_and_spelt_as_it_was_asked() {
        let granted = |asked, own| Scopes::of_known(asked).and(&Scopes::of_all(own).unwrap()).text(asked);
        assert_eq!(granted("system/*.read", "system/*.cruds"), "system/*.read");
        assert_eq!(granted("system/*.read", "system/Patient.r system/Group.cu"), "system/Patient.r");
        assert_eq!(
            granted("system/Patient.read system/Group.rs openid", "system/*.rs"),
            "system/Group.rs system/Patient.read"
        );
        assert_eq!(granted("system/Patient.r system/Patient.s", "system/Patient.rs"), "system/Patient.rs");
        assert_eq!(granted("system/*.r system/Patient.s", "system/*.s system/Patient.r"), "system/Patient.rs");
        assert_eq!(granted("system/*.rs system/Patient.rs", "system/*.read"), "system/*.rs");
        assert_eq!(granted("system/patient.rs", "system/Patient.read"), "system/patient.rs");
        for (asked, own) in
            [("system/Patient.cu", "system/*.rs"), ("system/Group.rs", "system/Patient.rs"), ("", "system/*.*")]
        {
            assert_eq!(granted(asked, own), "", "{asked}");
            assert!(Scopes::of_known(asked).and(&Scopes::of_all(own).unwrap()).is_empty());
        }
        assert_eq!(Scopes::of_all("system/*.rs system/x y"), Err("system/x"));
    }

    #[test]
    fn submissions_have_a_scope_of_their_own() {
        let own = Scopes::of_all("system/bulk-submit system/Patient.rs").unwrap();
        assert_eq!(Scopes::of_known("system/bulk-submit").and(&own).text(""), "system/bulk-submit");
        assert_eq!(
            Scopes::of_known("system/*.rs system/bulk-submit").and(&own).text(""),
            "system/Patient.rs system/bulk-submit"
        );
        for other in ["system/*.*", "system/bulk-submit.rs", "system/Bulk-Submit", "user/bulk-submit"] {
            assert!(!Scopes::of_known(other).and(&own).permit_submissions(), "{other}");
        }
        assert!(
            Scopes::of_all("system/bulk-submit")
                .unwrap()
                .types(Permissions::READ)
                .is_some_and(|types| types.is_empty())
        );
    }

    #[test]
    fn types_are_those_that_have_all_of_what_is_needed() {
        let scopes = Scopes::of_known("system/*.r system/Patient.s system/Group.cu system/Group.r");
        assert_eq!(scopes.types(Permissions::READ), None);
        assert_eq!(scopes.types(Permissions::READ_ALL), Some(vec!["Patient".to_owned()]));
        assert_eq!(scopes.types(Permissions::LOAD), Some(vec!["Group".to_owned()]));
        assert!(scopes.permit("PATIENT", Permissions::READ_ALL) && !scopes.permit("Patient", Permissions::LOAD));
        assert!(scopes.permit_all(Permissions::READ) && !scopes.permit_all(Permissions::READ_ALL));
        assert!(Scopes::default().is_empty() && !scopes.is_empty());
    }
}
