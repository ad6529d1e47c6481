//! Decides which URLs may be read: by host name, and by the address of the host.

use crate::addresses::is_public;
use crate::object_name::{ObjectName, is_bucket};
use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// The allowlist. Empty, it allows https to public addresses.
///
/// Its text is a comma-separated list of
/// - `scheme://host[:port][/prefix]`: this host on this port (by default the scheme's), and paths that start with exactly
///   this prefix and contain no `%2F`;
/// - `host`: this host, http and https, on any port;
/// - `*.host`, `scheme://*.host[:port][/prefix]`: the subdomains of this host;
/// - an address or a network (`10.1.0.0/16`, `fd00::/8`): hosts whose address is in it;
/// - `s3://bucket[/prefix]`: the objects of this bucket whose keys start with exactly this prefix. No other rule allows an
///   object, because it is read with the server's credentials, not the caller's.
///
/// Addresses that are not public (loopback, link-local, private and so on) need a rule with the exact host or with a
/// network.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    /// Of what these allow, only URLs that one of these rules names, too.
    within: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
enum Rule {
    Name { scheme: Option<String>, host: HostRule, port: Option<u16>, prefix: String },
    Network { address: IpAddr, bits: u32 },
    Objects { bucket: String, prefix: String },
}

#[derive(Clone, Debug)]
enum HostRule {
    Exact(String),
    Below(String),
}

/// An entry of an allowlist that is not a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPolicy(pub String);

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is neither scheme://host[:port][/prefix], nor a host, nor a network, nor s3://bucket[/prefix]",
            self.0
        )
    }
}

impl std::error::Error for InvalidPolicy {}

/// The verdict on a URL by its names, before its host is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByName {
    /// Allowed at any address.
    Anywhere,
    /// Allowed at public addresses only.
    Public,
    /// Allowed only at addresses in a network of the list.
    ByNetwork,
    /// Not allowed, at whatever address.
    Nowhere,
}

impl Policy {
    /// Reads an allowlist.
    ///
    /// # Errors
    /// The first entry that is not a rule.
    pub fn parse(text: &str) -> Result<Policy, InvalidPolicy> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let rules = entries.map(|entry| rule(entry).ok_or_else(|| InvalidPolicy(entry.to_owned())));
        Ok(Policy { rules: rules.collect::<Result<_, _>>()?, within: None })
    }

    /// Allows no more than before, and of that only URLs that begin with one of `prefixes`:
    /// `scheme://host[:port][/prefix]`, with the host perhaps `*.host`.
    ///
    /// # Errors
    /// The first one that is no such beginning of a URL.
    pub fn within(self, prefixes: &[String]) -> Result<Policy, InvalidPolicy> {
        let named = |prefix: &String| match rule(prefix.trim()) {
            Some(named @ Rule::Name { scheme: Some(_), .. }) => Ok(named),
            _ => Err(InvalidPolicy(prefix.clone())),
        };
        Ok(Policy { within: Some(prefixes.iter().map(named).collect::<Result<_, _>>()?), ..self })
    }

    /// Whether this object may be read.
    pub fn allows_object(&self, name: ObjectName<'_>) -> bool {
        self.rules.iter().any(|rule| {
            matches!(rule, Rule::Objects { bucket, prefix } if bucket == name.bucket && name.key.starts_with(prefix))
        })
    }

    /// Also allows a URL and everything below it.
    pub fn and_below(mut self, url: &Url) -> Policy {
        self.rules.push(Rule::Name {
            scheme: Some(url.scheme().to_owned()),
            host: HostRule::Exact(host_text(url)),
            port: url.port_or_known_default(),
            prefix: url.path().to_owned(),
        });
        self
    }

    /// Whether a URL is one of those that the policy was narrowed to.
    pub(crate) fn is_within(&self, url: &Url) -> bool {
        self.within.as_ref().is_none_or(|within| within.iter().any(|rule| rule.names(url)))
    }

    pub(crate) fn by_name(&self, url: &Url) -> ByName {
        if !self.is_within(url) {
            return ByName::Nowhere;
        }
        if self.rules.is_empty() {
            return if url.scheme() == "https" { ByName::Public } else { ByName::ByNetwork };
        }
        let matching = self.rules.iter().filter_map(|rule| match rule {
            Rule::Name { host, .. } if rule.names(url) => Some(host),
            _ => None,
        });
        matching.fold(ByName::ByNetwork, |so_far, host| match (host, so_far) {
            (HostRule::Exact(_), _) | (_, ByName::Anywhere) => ByName::Anywhere,
            (HostRule::Below(_), _) => ByName::Public,
        })
    }

    /// Whether a URL with this verdict may use any address at all.
    pub(crate) fn may_allow(&self, by_name: ByName) -> bool {
        match by_name {
            ByName::Anywhere | ByName::Public => true,
            ByName::ByNetwork => self.rules.iter().any(|rule| matches!(rule, Rule::Network { .. })),
            ByName::Nowhere => false,
        }
    }

    /// Whether a URL with this verdict may use this address.
    pub(crate) fn allows(&self, by_name: ByName, address: IpAddr) -> bool {
        let in_network = || self.rules.iter().any(|rule| rule.contains(address));
        match by_name {
            ByName::Anywhere => true,
            ByName::Public => is_public(address) || in_network(),
            ByName::ByNetwork => in_network(),
            ByName::Nowhere => false,
        }
    }
}

impl Rule {
    fn names(&self, url: &Url) -> bool {
        let Rule::Name { scheme, host, port, prefix } = self else { return false };
        let asked = host_text(url);
        let host_fits = match host {
            HostRule::Exact(host) => asked == *host,
            HostRule::Below(domain) => {
                asked.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        };
        host_fits
            && scheme.as_deref().is_none_or(|scheme| scheme == url.scheme())
            && (scheme.is_none() || url.port_or_known_default() == *port)
            && url.path().starts_with(prefix.as_str())
            && (prefix == "/" || !has_hidden_separator(url.path()))
    }

    fn contains(&self, address: IpAddr) -> bool {
        let Rule::Network { address: network, bits } = self else { return false };
        // A mapped IPv4 address counts as the IPv4 address.
        match (network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Whether a path has an encoded separator, which some servers decode: `/data/..%2Fother` is below `/data/` only by its
/// text.
fn has_hidden_separator(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    path.contains("%2f") || path.contains("%5c")
}

/// The host in lower case, without a dot at its end.
pub(crate) fn host_text(url: &Url) -> String {
    match url.host() {
        Some(Host::Domain(name)) => name.trim_end_matches('.').to_ascii_lowercase(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => String::new(),
    }
}

fn rule(entry: &str) -> Option<Rule> {
    if let Some(network) = network(entry) {
        return Some(network);
    }
    if let Some(objects) = entry.strip_prefix("s3://") {
        let (bucket, prefix) = objects.split_once('/').unwrap_or((objects, ""));
        return is_bucket(bucket).then(|| Rule::Objects { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
    }
    let (scheme, rest) = match entry.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme.to_owned()), rest),
        Some(_) => return None,
        None => (None, entry),
    };
    let (wildcard, rest) = match rest.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    // Parsed as a URL, so that rule and URL spell a host in the same way.
    let url = Url::parse(&format!("{}://{rest}", scheme.as_deref().unwrap_or("https"))).ok()?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let host = host_text(&url);
    if !plain || host.is_empty() || host.contains('*') || (scheme.is_none() && rest.contains(['/', ':'])) {
        return None;
    }
    let host = if wildcard { HostRule::Below(host) } else { HostRule::Exact(host) };
    Some(Rule::Name { scheme, host, port: url.port_or_known_default(), prefix: url.path().to_owned() })
}

fn network(entry: &str) -> Option<Rule> {
    let (address, bits) = match entry.split_once('/') {
        Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u32>().ok()?)),
        None => (entry.parse::<IpAddr>().ok()?, None),
    };
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some(Rule::Network { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: &str, url: &str, address: &str) -> bool {
        let (policy, url) = (Policy::parse(policy).unwrap(), Url::parse(url).unwrap());
        policy.allows(policy.by_name(&url), address.parse().unwrap())
    }

    #[test]
    fn an_empty_list_allows_https_to_public_addresses_only() {
        assert!(allowed("", "https://example.org/x", "93.184.215.14"));
        assert!(allowed("", "https://example.org/x", "2606:2800:21f:cb07::1"));
        assert!(!allowed("", "http://example.org/x", "93.184.215.14"));
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "fec0::1",
            "64:ff9b:1::1",
            "100::1",
        ] {
            assert!(!allowed("", "https://example.org/x", address), "{address}");
        }
    }

    #[test]
    fn an_exact_host_may_be_private_and_a_wildcard_may_not() {
        assert!(allowed("http://files.local", "http://files.local/a", "10.0.0.1"));
        assert!(allowed("files.local", "https://FILES.local.:8443/a", "10.0.0.1"));
        assert!(!allowed("*.example.org", "https://a.example.org/", "10.0.0.1"));
        assert!(allowed("*.example.org", "https://a.b.example.org/", "93.184.215.14"));
        assert!(!allowed("*.example.org", "https://example.org/", "93.184.215.14"));
        assert!(!allowed("*.example.org", "https://badexample.org/", "93.184.215.14"));
        assert!(allowed("*.example.org, 10.0.0.0/8", "https://a.example.org/", "10.0.0.1"));
    }

    #[test]
    fn scheme_port_and_prefix_of_a_rule_count() {
        let rule = "https://h.org:8443/data/";
        assert!(allowed(rule, "https://h.org:8443/data/x", "10.0.0.1"));
        for url in [
            "https://h.org/data/x",
            "http://h.org:8443/data/x",
            "https://h.org:8443/other",
            "https://h.org:8443/data",
            "https://h.org:8443/data/../other",
            "https://h.org:8443/data/%2e%2e/other",
            "https://h.org:8443/data/..%2Fother",
            "https://h.org:8443/data/..%5cother",
            "https://h.org.evil:8443/data/x",
        ] {
            assert!(!allowed(rule, url, "93.184.215.14"), "{url}");
        }
        assert!(!allowed("https://h.org", "https://h.org:8443/", "93.184.215.14"));
        // A path starts with a prefix; with a slash at its end the prefix is a folder.
        assert!(allowed("https://h.org/data", "https://h.org/data?version=2", "93.184.215.14"));
        assert!(allowed("https://h.org/data", "https://h.org/data-2.ndjson", "93.184.215.14"));
        assert!(!allowed("https://h.org/data/", "https://h.org/data-2.ndjson", "93.184.215.14"));
    }

    #[test]
    fn odd_spellings_of_an_address_are_that_address() {
        for url in ["http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/"] {
            let url = Url::parse(url).unwrap();
            assert_eq!(host_text(&url), "127.0.0.1", "{url}");
        }
    }

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        assert!(allowed("10.1.0.0/16", "http://h/", "10.1.255.255"));
        assert!(allowed("10.1.0.0/16", "http://h/", "::ffff:10.1.2.3"));
        assert!(!allowed("10.1.0.0/16", "http://h/", "10.2.0.0"));
        assert!(allowed("127.0.0.1", "http://h/", "127.0.0.1"));
        assert!(!allowed("127.0.0.1", "http://h/", "127.0.0.2"));
        assert!(allowed("0.0.0.0/0", "http://h/", "10.2.0.0"));
        assert!(!allowed("0.0.0.0/0", "http://h/", "::1"));
        assert!(allowed("fd00::/8", "http://h/", "fd12::1"));
    }

    #[test]
    fn an_object_needs_a_rule_for_its_bucket_and_the_start_of_its_key() {
        let allowed = |list: &str, url| Policy::parse(list).unwrap().allows_object(ObjectName::parse(url).unwrap());
        for (list, url) in [
            ("s3://data", "s3://data/a"),
            ("s3://data/", "s3://data/a"),
            ("https://h, s3://data/in/", "s3://data/in/a"),
            ("s3://data/in", "s3://data/inner/a"),
            ("s3://data//in", "s3://data//in/a"),
        ] {
            assert!(allowed(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "s3://data/a"),
            ("0.0.0.0/0, ::/0, *.amazonaws.com, https://data", "s3://data/a"),
            ("s3://data", "s3://data2/a"),
            ("s3://data", "s3://Data/a"),
            ("s3://data/in/", "s3://data/in"),
            ("s3://data/in/", "s3://data/IN/a"),
            ("s3://data/in/", "s3://data//in/a"),
            ("s3://data/in/", "s3://data/in%2Fa"),
        ] {
            assert!(!allowed(list, url), "{list} {url}");
        }
        // A rule for objects allows no URL.
        assert!(!allowed_url("s3://data", "https://data/a"));
    }

    fn allowed_url(policy: &str, url: &str) -> bool {
        allowed(policy, url, "93.184.215.14")
    }

    #[test]
    fn prefixes_allow_nothing_that_the_list_does_not() {
        let within = |list: &str, prefixes: &[&str], url: &str, address: &str| {
            let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
            let policy = Policy::parse(list).unwrap().within(&prefixes).unwrap();
            let by_name = policy.by_name(&Url::parse(url).unwrap());
            policy.may_allow(by_name) && policy.allows(by_name, address.parse().unwrap())
        };
        let public = "93.184.215.14";
        assert!(within("", &["https://h.org/a/"], "https://h.org/a/x", public));
        assert!(within("", &["https://g.org/", "https://*.h.org/"], "https://x.h.org/a/x", public));
        assert!(within("127.0.0.1", &["http://h.org/"], "http://h.org/x", "127.0.0.1"));
        for (list, prefix, url, address) in [
            ("", "https://h.org/a/", "https://h.org/b/x", public),
            ("", "https://h.org/a/", "https://h.org/a/..%2Fx", public),
            ("", "https://h.org/", "https://h.org:8443/", public),
            ("", "https://h.org/", "https://h.org/", "127.0.0.1"),
            ("", "http://h.org/", "http://h.org/", public),
            ("https://g.org", "https://h.org/", "https://h.org/", public),
            ("0.0.0.0/0", "https://h.org/", "https://g.org/", public),
        ] {
            assert!(!within(list, &[prefix], url, address), "{list} {prefix} {url}");
        }
        assert!(!within("", &[], "https://h.org/", public));
        for prefix in ["h.org", "10.0.0.0/8", "s3://b/", "ftp://h", ""] {
            assert!(Policy::default().within(&[prefix.to_owned()]).is_err(), "{prefix}");
        }
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for entry in [
            "ftp://h",
            "h:80",
            "https://",
            "https://u:p@h",
            "10.0.0.0/33",
            "a*.org",
            "https://h/?q=1",
            "s3://",
            "s3:///a",
            "s3://*",
        ] {
            assert_eq!(Policy::parse(&format!("example.org, {entry}")).unwrap_err().0, entry);
        }
    }
}
