//! Networks and hosts, as configuration names them.

use std::{net::IpAddr, str::FromStr};

use super::{AppEnv, reader::Reader};

/// A network such as `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (own, own_width) = number(self.address);
        let (other, other_width) = number(address.to_canonical());
        let differ = u32::from(own_width - self.bits);
        own_width == other_width && own.checked_shr(differ) == other.checked_shr(differ)
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let width = number(address).1;
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| ())?;
        if bits > width { Err(()) } else { Ok(Self { address, bits }) }
    }
}

/// Something inside that may be asked although somebody else named it: an entry of `OUTBOUND_ALLOW`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reachable {
    /// All addresses of a network, at any port.
    Network(Network),
    /// A host by its name, wherever the name leads.
    Host {
        /// In lower case.
        name: String,
        /// At this port alone.
        port: Option<u16>,
    },
}

impl FromStr for Reachable {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        if let (Ok(address), Some(port)) = (name.trim_matches(['[', ']']).parse::<IpAddr>(), port) {
            return Ok(Self::Host { name: address.to_string(), port: Some(port) });
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_name =
            !name.is_empty() && name.bytes().all(fits) && name.contains(|c: char| c.is_ascii_alphabetic());
        if is_name { Ok(Self::Host { name: name.to_ascii_lowercase(), port }) } else { Err(()) }
    }
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// What inside may be asked. In development that is also this machine.
pub(super) fn outbound_allow(reader: &mut Reader<'_>, app_env: AppEnv) -> Vec<Reachable> {
    let expected = "a host, a host and a port, an address or a network such as 10.0.0.0/8";
    let mut allowed = reader.list("OUTBOUND_ALLOW", expected);
    if app_env == AppEnv::Dev {
        let this_machine = ["127.0.0.0/8", "::1", "localhost"];
        allowed.extend(this_machine.iter().filter_map(|entry| entry.parse().ok()));
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("::/0", "2001:db8::1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && contains("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(!contains("127.0.0.1", "::1") && contains("2001:db8::/32", "2001:db8:1::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "x", "::/129"] {
            assert_eq!(wrong.parse::<Network>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_asked_is_a_network_or_a_host() {
        let read = |text: &str| text.parse::<Reachable>();
        let host = |name: &str, port| Ok(Reachable::Host { name: name.to_owned(), port });
        assert_eq!(read("10.0.0.0/8"), Ok(Reachable::Network("10.0.0.0/8".parse().unwrap())));
        assert_eq!(read("::1"), Ok(Reachable::Network("::1".parse().unwrap())));
        assert_eq!(read("Notion.internal"), host("notion.internal", None));
        assert_eq!(read("localhost:3000"), host("localhost", Some(3000)));
        assert_eq!(read("127.0.0.1:3000"), host("127.0.0.1", Some(3000)));
        assert_eq!(read("[::1]:3000"), host("::1", Some(3000)));
        for wrong in ["", "http://x", "x:", "x:99999", "10.0.0.0/33", "10.0.0", "a b"] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }
}
