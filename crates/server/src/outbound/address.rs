//! Which addresses the server may call on behalf of others: those of public hosts, and nothing behind its own back.
//!
//! Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890 and its updates); RFC 4291 for the
//! addresses that carry IPv4 ones, RFC 6052 for NAT64.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

/// The network of the first two segments; the others are zero.
const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

/// What is no public host among the IPv4 addresses.
const REFUSED_V4: [Ipv4Net; 15] = [
    v4([0, 0, 0, 0], 8),       // this network; 0.0.0.0 reaches this machine
    v4([10, 0, 0, 0], 8),      // private
    v4([100, 64, 0, 0], 10),   // behind a provider's address translation
    v4([127, 0, 0, 0], 8),     // loopback
    v4([169, 254, 0, 0], 16),  // link-local, where clouds keep their metadata
    v4([172, 16, 0, 0], 12),   // private
    v4([192, 0, 0, 0], 24),    // protocol assignments
    v4([192, 0, 2, 0], 24),    // documentation
    v4([192, 88, 99, 0], 24),  // 6to4 relays of old
    v4([192, 168, 0, 0], 16),  // private
    v4([198, 18, 0, 0], 15),   // benchmarks
    v4([198, 51, 100, 0], 24), // documentation
    v4([203, 0, 113, 0], 24),  // documentation
    v4([224, 0, 0, 0], 4),     // multicast
    v4([240, 0, 0, 0], 4),     // reserved, and broadcast
];

/// The part of IPv6 that is handed out to hosts. What is outside is loopback, link-local, unique-local, multicast,
/// discarded, or not in use.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What is no public host within that part.
const REFUSED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments, Teredo among them
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4: an IPv4 address in disguise
    v6(0x3fff, 0, 20),     // documentation
];

/// IPv4 addresses behind a NAT64, which is how a network without IPv4 reaches public hosts that have nothing else.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Whether this is the address of one public host.
///
/// An IPv6 address that carries an IPv4 address is judged by that one if packets really go there (mapped, NAT64), and
/// is refused if no host is served that way any more (compatible, 6to4, Teredo).
pub fn is_public_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match carried_v4(address) {
            Some(carried) => is_public_v4(carried),
            None => {
                GLOBAL_V6.contains(&address)
                    && !REFUSED_V6.iter().any(|range| range.contains(&address))
            }
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !REFUSED_V4.iter().any(|range| range.contains(&address))
}

fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let behind_nat64 = NAT64.contains(&address).then(|| Ipv4Addr::new(a, b, c, d));
    address.to_ipv4_mapped().or(behind_nat64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_each(expected: bool, addresses: &[&str]) {
        for text in addresses {
            let address = text.parse().unwrap();
            assert_eq!(is_public_unicast(address), expected, "{text}");
        }
    }

    #[test]
    fn public_hosts_are_allowed() {
        assert_each(
            true,
            &[
                "1.1.1.1",
                "8.8.8.8",
                "9.255.255.255",
                "11.0.0.0",
                "100.63.255.255",
                "100.128.0.0",
                "128.0.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "192.0.1.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2001:200::1",
                "2606:4700:4700::1111",
                "2a00:1450:4001::8a",
                "3ffe::1",
                "::ffff:8.8.8.8",
                "64:ff9b::8.8.8.8",
            ],
        );
    }

    #[test]
    fn both_ends_of_each_special_ipv4_range_are_refused() {
        for range in REFUSED_V4 {
            assert_each(
                false,
                &[&range.network().to_string(), &range.broadcast().to_string()],
            );
        }
        assert_each(
            false,
            &[
                "127.0.0.1",
                "255.255.255.255",
                "169.254.169.254",
                "100.100.100.200",
            ],
        );
    }

    #[test]
    fn special_ipv6_addresses_are_refused() {
        assert_each(
            false,
            &[
                "::",
                "::1",
                "100::1",
                "64:ff9b:1::8.8.8.8",
                "2001::1",
                "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8::1",
                "3fff:fff::1",
                "4000::1",
                "5f00::1",
                "fc00::1",
                "fd12:3456::1",
                "fe80::1",
                "fec0::1",
                "ff02::1",
                "ff0e::1",
            ],
        );
    }

    #[test]
    fn a_special_ipv4_address_is_refused_in_every_ipv6_disguise() {
        for inner in [
            "127.0.0.1",
            "10.0.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
        ] {
            let [a, b, c, d] = inner.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            assert_each(
                false,
                &[
                    &format!("::ffff:{inner}"),
                    &format!("::{inner}"),
                    &format!("64:ff9b::{inner}"),
                    &format!("2002:{high:x}:{low:x}::1"),
                    &format!("2001:0:{high:x}:{low:x}::1"),
                    &format!("2001::{:x}:{:x}", !high, !low),
                ],
            );
        }
    }
}
