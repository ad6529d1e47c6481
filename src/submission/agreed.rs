//! What submitters and consumers agree on beside HL7's parameters: `metadata`, which is kept, and `import`, options of how the
//! resources of a manifest are stored.

use super::object::{text, wrong};
use crate::load;
use crate::store::Known;
use fhir_bulk_pg::error::{Error, Result};
use pgrx::PgSqlErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most of each for a manifest.
const MOST: usize = 50;
/// The beginning of the URLs of options; then comes the name that the option has in `bulk_import`.
const OPTIONS: &str = "urn:fhir-bulk:import:";
const NAMES: [&str; 3] = ["onConflict", "skipUnchanged", "update"];

/// One of either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreed {
    pub parameter_url: String,
    pub parameter_value: String,
}

/// Reads a list of them.
///
/// # Errors
/// 22023 for anything else.
pub fn list(name: &str, given: Option<Value>) -> Result<Vec<Agreed>> {
    let given = match given {
        None => return Ok(Vec::new()),
        Some(Value::Array(given)) if given.len() <= MOST => given,
        Some(_) => return Err(wrong(name, &format!("an array of up to {MOST} objects"))),
    };
    let one = |value: Value| match value {
        Value::Object(mut members) => {
            let mut member = |of: &str| text(&format!("{name}.{of}"), members.remove(of).unwrap_or_default());
            let (parameter_url, parameter_value) = (member("parameterUrl")?, member("parameterValue")?);
            if members.is_empty() {
                return Ok(Agreed { parameter_url, parameter_value });
            }
            Err(wrong(name, "an array of objects with parameterUrl and parameterValue alone"))
        }
        _ => Err(wrong(name, "an array of objects with parameterUrl and parameterValue")),
    };
    given.into_iter().map(one).collect()
}

/// Whether an option is one of ours.
pub fn is_option(agreed: &Agreed) -> bool {
    agreed.parameter_url.strip_prefix(OPTIONS).is_some_and(|name| NAMES.contains(&name))
}

/// What happens to ids that are known.
///
/// # Errors
/// 0A000 for an option that is none of ours; 22023 for a wrong value, and for options that do not go together.
pub fn rule(options: &[Agreed]) -> Result<Known> {
    let (mut refuse, mut update, mut skip) = (false, false, false);
    for Agreed { parameter_url, parameter_value } in options {
        let value = parameter_value.as_str();
        let flag = || match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("import", &format!("true or false for {parameter_url}"))),
        };
        match parameter_url.strip_prefix(OPTIONS) {
            Some("onConflict") if matches!(value, "update" | "error") => refuse = value == "error",
            Some("onConflict") => return Err(wrong("import", &format!("update or error for {parameter_url}"))),
            Some("skipUnchanged") => skip = flag()?,
            Some("update") => update = flag()?,
            _ => {
                let shown: String = parameter_url.chars().take(200).collect();
                let message = format!("\"import\" of the request is not supported: there is no option {shown}");
                return Err(Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
                    .hint(format!("The options are {OPTIONS}{}.", NAMES.join(&format!(", {OPTIONS}")))));
            }
        }
    }
    load::known(refuse, update, skip, ["\"import\" of the request: onConflict", "update", "skipUnchanged"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_of(options: &[(&str, &str)]) -> Result<Known> {
        let agreed = |(name, value): &(&str, &str)| Agreed {
            parameter_url: format!("{OPTIONS}{name}"),
            parameter_value: (*value).to_owned(),
        };
        rule(&options.iter().map(agreed).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_those_of_imports() {
        assert_eq!(rule_of(&[]).unwrap(), Known::default());
        assert_eq!(rule_of(&[("onConflict", "error")]).unwrap(), Known::Refuse);
        let all = rule_of(&[("onConflict", "update"), ("skipUnchanged", "true"), ("update", "true")]).unwrap();
        assert_eq!(all, Known::Replace { keep_history: true, skip_unchanged: true });
    }
}
