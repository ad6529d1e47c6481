//! Which addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is public: not one of IANA's special-purpose addresses.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded_v4(address) {
            Some(inner) => is_public_v4(inner),
            // Only 2000::/3 is in use; in it 2001:db8::/32 and 3fff::/20 are for documentation, 2001::/23 for protocols.
            None => {
                let [first, second, ..] = address.segments();
                first & 0xE000 == 0x2000
                    && !(first == 0x2001 && (second == 0x0DB8 || second < 0x0200))
                    && !(first == 0x3FFF && second < 0x1000)
            }
        },
    }
}

/// The IPv4 address inside an IPv6 address: mapped, compatible, NAT64, 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xFFFF | 0) | (0x0064, 0xFF9B, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    let benchmarks = a == 198 && (b == 18 || b == 19);
    let relays = a == 192 && b == 88 && c == 99;
    !(a == 0
        || a >= 224
        || shared
        || protocols
        || benchmarks
        || relays
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation())
}
