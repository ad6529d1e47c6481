//! Finds where a request comes from: its address, also behind trusted proxies, and whether a page of another site sent it.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::{HeaderMap, Uri, header};

/// The other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// An address or a network: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let wrong = || format!("\"{text}\" is neither an address nor a network, such as 10.0.0.0/8");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if prefix > most { Err(wrong()) } else { Ok(Network { address, prefix }) }
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => u128::from(a.to_bits() ^ b.to_bits()) << 96,
            (IpAddr::V6(a), IpAddr::V6(b)) => a.to_bits() ^ b.to_bits(),
            _ => return false,
        };
        differ.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
    }
}

/// The address that a request comes from. If a trusted proxy sent it, this is the last address in X-Forwarded-For that is
/// not a trusted proxy's.
pub fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.has(address));
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut found = peer;
    for name in named.iter().rev() {
        if !is_trusted(found) {
            break;
        }
        // A trusted proxy writes only addresses.
        let Ok(address) = name.parse() else { break };
        found = address;
    }
    found
}

/// Whether a page of another site made a browser send the request, with the credentials that the browser has stored.
pub fn is_foreign(headers: &HeaderMap, public_url: Option<&str>) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let authority = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let is_default =
            matches!((uri.scheme_str(), uri.port_u16()), (Some("http"), Some(80)) | (Some("https"), Some(443)));
        let port = uri.port_u16().filter(|_| !is_default);
        Some((uri.host()?.to_ascii_lowercase(), port))
    };
    let origin = origin.to_str().ok().and_then(authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // A proxy before this one may end TLS, so both schemes are compared, each with its default port.
    let own = ["http", "https"].map(|scheme| host.and_then(|host| authority(&format!("{scheme}://{host}"))));
    let known = own.into_iter().chain([public_url.and_then(authority)]).flatten();
    !origin.is_some_and(|origin| known.into_iter().any(|own| own == origin))
}

/// Whether a browser sent the request. It would ask its user for a password and store it.
pub fn is_browser(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(all: &[(&str, &str)]) -> HeaderMap {
        let header =
            |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in all.iter().map(header) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn only_trusted_proxies_say_who_is_behind_them() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let of = |forwarded: &[(&str, &str)], trusted: &[&str]| {
            let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
            address(peer, &headers(forwarded), &trusted).to_string()
        };
        let forwarded = [("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-for", "10.0.0.8")];
        assert_eq!(of(&forwarded, &[]), "10.0.0.9");
        assert_eq!(of(&forwarded, &["10.0.0.10"]), "10.0.0.9");
        assert_eq!(of(&forwarded, &["10.0.0.9"]), "10.0.0.8");
        assert_eq!(of(&forwarded, &["10.0.0.0/29", "10.0.0.9/32"]), "10.0.0.8");
        assert_eq!(of(&forwarded, &["10.0.0.0/8"]), "2.2.2.2");
        assert_eq!(of(&forwarded, &["0.0.0.0/0"]), "1.1.1.1");
        assert_eq!(of(&[("x-forwarded-for", "1.1.1.1, unknown")], &["10.0.0.0/8"]), "10.0.0.9");
        for wrong in ["", "10.0.0.0/33", "fd00::/129", "10.0.0", "host", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_origin_is_ours_by_host_and_port() {
        let foreign = |all: &[(&str, &str)]| is_foreign(&headers(all), Some("https://Fhir.example.org/base"));
        let host = ("host", "127.0.0.1:8080");
        assert!(!foreign(&[host]));
        assert!(!foreign(&[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(!foreign(&[host, ("origin", "https://fhir.example.org")]));
        assert!(!foreign(&[("host", "a"), ("origin", "https://a:443")]));
        assert!(!foreign(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")]));
        for origin in ["null", "", "http://127.0.0.1", "http://127.0.0.1:8081", "https://example.org", "x"] {
            assert!(foreign(&[host, ("origin", origin)]), "{origin}");
        }
    }
}
