//! The gateway's address and what it takes to get in.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;

use super::Arguments;
use crate::client::Client;
use crate::exit::misuse;

/// Settings of the gateway.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// File with the keys that it accepts.
    pub keys: Option<PathBuf>,
    /// Origin whose pages may call it.
    pub cors: Option<String>,
    key: Option<String>,
}

impl Door {
    /// Checks the settings, so that a mistake is found before anything runs.
    pub fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let keys = arguments.api_keys.as_ref().map(|file| {
            let read = || Ok((file.canonicalize()?, std::fs::read_to_string(file)?));
            read().map_err(|error: std::io::Error| misuse(format!("key file `{}`: {error}", file.display())))
        });
        let (keys, text) = keys.transpose()?.unzip();
        let key = text.as_deref().and_then(first_key).map(str::to_owned);
        Ok(Self { address: claim(&arguments.http)?, keys, cors: arguments.cors.clone(), key })
    }

    /// URL for clients on this machine.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// A client that the gateway lets in.
    pub fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.url(), self.key.clone())
    }
}

fn first_key(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The address that `text` names, with a free port for port 0, after a look whether it can be had.
fn claim(text: &str) -> anyhow::Result<SocketAddr> {
    let resolved = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let address = resolved.ok_or_else(|| misuse(format!("`--http {text}`: must be HOST:PORT")))?;
    let refused = |error: std::io::Error| match error.kind() {
        ErrorKind::AddrInUse => misuse(format!(
            "port {} of {} is taken: choose another with `--http {}`",
            address.port(),
            address.ip(),
            SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(8080)),
        )),
        ErrorKind::PermissionDenied => {
            misuse(format!("port {} needs privileges: choose one from 1024 on", address.port()))
        }
        _ => misuse(format!("`--http {text}`: {error}")),
    };
    TcpListener::bind(address).and_then(|listener| listener.local_addr()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = claim(&address.to_string()).unwrap_err();
        assert!(error.is::<crate::exit::Misuse>());
        assert!(error.to_string().contains(&address.port().to_string()));
        assert!(claim("nonsense").unwrap_err().is::<crate::exit::Misuse>());
    }

    #[test]
    fn port_0_becomes_a_free_one() {
        assert_ne!(claim("127.0.0.1:0").unwrap().port(), 0);
    }

    #[test]
    fn the_first_key_is_the_first_line_that_is_one() {
        assert_eq!(first_key("# keys\n\n  k1 \nk2\n"), Some("k1"));
        assert_eq!(first_key("# none\n"), None);
    }
}
