//! From which hosts images are fetched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use reqwest::Url;

/// Hosts that an operator allows; none by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Host>);

/// `example.org`, `*.example.org` or `example.org:8443`; without a port, those of http and https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    name: String,
    subdomains: bool,
    port: Option<u16>,
}

/// To which addresses a name may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The operator named this host.
    Anywhere,
    /// The operator named its zone: who owns a name in it decides where it leads.
    PublicOnly,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subdomains, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let url = Url::parse(&format!("http://{rest}/"))
            .map_err(|error| format!("`{text}` is not a host: {error}"))?;
        let is_host = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        match url.host_str() {
            Some(name) if is_host => Ok(Self { name: name.to_owned(), subdomains, port: port_of(rest) }),
            _ => Err(format!("`{text}` is not a host: `example.org`, `*.example.org` or `example.org:8443`")),
        }
    }
}

/// The port as written: parsing a URL would drop the default one.
fn port_of(host: &str) -> Option<u16> {
    host.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

impl Host {
    fn allows(&self, name: &str, port: u16) -> bool {
        let is_named = match self.subdomains {
            true => name.strip_suffix(&self.name).is_some_and(|rest| rest.ends_with('.')),
            false => name == self.name,
        };
        is_named && self.port.map_or(port == 80 || port == 443, |own| own == port)
    }
}

impl Hosts {
    /// These hosts and no others.
    pub fn new(hosts: Vec<Host>) -> Self {
        Self(hosts)
    }

    /// The way to `url`, when it is http or https and on one of the hosts.
    pub fn way_to(&self, url: &Url) -> Option<Way> {
        let (name, port) = (url.host_str()?, url.port_or_known_default()?);
        let mut allowing = self.0.iter().filter(|host| host.allows(name, port)).peekable();
        allowing.peek().filter(|_| ["http", "https"].contains(&url.scheme()))?;
        Some(if allowing.any(|host| !host.subdomains) { Way::Anywhere } else { Way::PublicOnly })
    }
}

/// Whether `address` is one of the public internet: neither this machine nor a network behind it.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    let is_benchmark = first == 198 && (18..20).contains(&second);
    let is_protocol = (first, second, third) == (192, 0, 0);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || first == 0
        || first >= 240
        || is_shared
        || is_benchmark
        || is_protocol)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // 2000::/3 is all that is handed out; of it, documentation and the ways to IPv4 addresses are left out.
    let [first, second, ..] = address.segments();
    let is_tunnel = first == 0x2002 || (first == 0x2001 && second == 0);
    let is_documentation = (first == 0x2001 && second == 0xdb8) || first == 0x3fff;
    first & 0xe000 == 0x2000 && !is_tunnel && !is_documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_hosts_and_ports_are_allowed() {
        let hosts = ["example.org", "*.images.net", "127.0.0.1:9000", "[::1]:9000"];
        let hosts = Hosts::new(hosts.iter().map(|host| host.parse().unwrap()).collect());
        let way = |url: &str| hosts.way_to(&url.parse().unwrap());
        for url in [
            "https://example.org/a.png",
            "http://EXAMPLE.org:80/",
            "https://a.b.images.net/x",
            "http://127.0.0.1:9000/x",
            "http://[::1]:9000/x",
        ] {
            assert!(way(url).is_some(), "{url}");
        }
        for url in [
            "https://example.org:8443/",
            "https://evil-example.org/",
            "https://example.org.evil.com/",
            "https://images.net/",
            "https://xximages.net/",
            "http://127.0.0.1/",
            "ftp://example.org/",
            "file:///etc/passwd",
            "https://example.org@evil.com/",
        ] {
            assert_eq!(way(url), None, "{url}");
        }
        assert_eq!(way("https://a.images.net/"), Some(Way::PublicOnly));
        assert_eq!(way("http://127.0.0.1:9000/"), Some(Way::Anywhere));
        assert_eq!(Hosts::default().way_to(&"https://example.org/".parse().unwrap()), None);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "*.", "https://example.org", "example.org/path", "a@b"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    #[test]
    fn private_addresses_are_not_public() {
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "2606:4700::1111"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
