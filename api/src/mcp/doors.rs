//! Which names a request may use for this server, and which pages may send one: the guard against DNS rebinding, where
//! a hostile page points a name of its own at our address. A name is ours when `PUBLIC_URL` has it, or when an operator has
//! mapped it to a tenant; who knows the latter is asked by [`super::endpoint`].

use http::{HeaderMap, header, uri::Authority};
use shared::{
    config::{AppEnv, Config},
    error::{Code, Error, Result},
    tenancy::control::HostName,
};
use url::{Host, Url};

/// Whose a name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// Ours, and the address with it.
    Ours(Url),
    /// Ours with this address, if the name stands for a tenant.
    Perhaps(HostName, Url),
    /// Somebody else's.
    Others,
}

/// The names and origins that are ours.
pub(super) struct Doors {
    public: Url,
    /// Origins that the operator lists.
    origins: Vec<String>,
    /// In development, this machine under any port.
    loopback: bool,
}

impl Doors {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            public: config.public_url.clone(),
            origins: config.cors_origins.clone(),
            loopback: config.app_env != AppEnv::Prod,
        }
    }

    /// Lets a request in that came by this address of ours, and whose Origin, if it has one, may call us.
    ///
    /// # Errors
    /// 403 naming the variable that would allow the origin.
    pub(super) fn check_origin(&self, headers: &HeaderMap, base: &Url) -> Result<()> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let allowed = origin
            .to_str()
            .ok()
            .and_then(|text| Url::parse(text).ok())
            .is_some_and(|url| url.origin() == base.origin() || self.is_ours(&url));
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            Code::Forbidden,
            "Origin: pages of this origin may not call /mcp; CORS_ORIGINS lists those that may",
        ))
    }

    /// By which of our names this request came.
    pub(super) fn name(&self, headers: &HeaderMap) -> Name {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let named = host.and_then(|host| host.parse::<Authority>().ok()).and_then(|host| {
            // Userinfo has no place in Host, and a URL of ours has no other parts to smuggle a name into.
            if host.as_str().contains('@') {
                return None;
            }
            Url::parse(&format!("{}://{host}/", self.public.scheme())).ok()
        });
        match named {
            Some(named) if named.origin() == self.public.origin() => Name::Ours(self.public.clone()),
            Some(mut named) if self.loopback && is_loopback(&named) => {
                // A loopback name has no certificate, whatever PUBLIC_URL has.
                if named.scheme() != "http" {
                    named = Url::parse(&format!("http://{}/", host.unwrap_or_default())).unwrap_or(named);
                }
                Name::Ours(named)
            }
            Some(named) => self.perhaps(&named),
            None => Name::Others,
        }
    }

    /// A name at the port and below the path of `PUBLIC_URL` is ours if it stands for a tenant.
    fn perhaps(&self, named: &Url) -> Name {
        let is_at_port = named.port_or_known_default() == self.public.port_or_known_default();
        let host = named.host_str().and_then(HostName::of_header).filter(|_| is_at_port);
        let base = Url::parse(named.as_str()).ok().map(|mut base| {
            base.set_path(self.public.path());
            base
        });
        host.zip(base).map_or(Name::Others, |(host, base)| Name::Perhaps(host, base))
    }

    /// Whether this is the address of our `/mcp`, and by which name.
    pub(super) fn resource(&self, text: &str) -> Name {
        let Ok(url) = Url::parse(text) else { return Name::Others };
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let path = url.path().strip_prefix(self.public.path());
        if !plain || !matches!(path, Some("mcp" | "mcp/")) {
            return Name::Others;
        }
        if url.origin() == self.public.origin() || self.loopback && is_loopback(&url) {
            return Name::Ours(url);
        }
        if url.scheme() == self.public.scheme() { self.perhaps(&url) } else { Name::Others }
    }

    fn is_ours(&self, origin: &Url) -> bool {
        matches!(origin.scheme(), "http" | "https")
            && (origin.origin() == self.public.origin()
                || self.loopback && is_loopback(origin)
                || self.origins.iter().any(|listed| *listed == origin.origin().ascii_serialization()))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(loopback: bool) -> Doors {
        Doors {
            public: "https://alfred.example/".parse().unwrap(),
            origins: vec!["https://app.example".to_owned()],
            loopback,
        }
    }

    fn opens(doors: &Doors, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        match doors.name(&headers) {
            Name::Ours(base) => doors.check_origin(&headers, &base).is_ok(),
            Name::Perhaps(..) | Name::Others => false,
        }
    }

    #[test]
    fn only_our_names_open() {
        let production = doors(false);
        for ours in ["alfred.example", "alfred.example:443", "ALFRED.example"] {
            assert!(opens(&production, ours, None), "{ours}");
        }
        for other in [
            "evil.example",
            "alfred.example:8080",
            "alfred.example.evil.example",
            "evil@alfred.example",
            "localhost:8080",
            "127.0.0.1",
            "",
        ] {
            assert!(!opens(&production, other, None), "{other}");
        }
        for machine in ["localhost:8080", "127.0.0.1:1", "[::1]:8080", "localhost"] {
            assert!(opens(&doors(true), machine, None), "{machine}");
        }
        for other in ["localhost.evil.example", "10.0.0.1:8080", "0.0.0.0:8080"] {
            assert!(!opens(&doors(true), other, None), "{other}");
        }
        assert_eq!(doors(true).name(&HeaderMap::new()), Name::Others);
    }

    #[test]
    fn only_our_pages_open() {
        let production = doors(false);
        for ours in ["https://alfred.example", "https://app.example", "https://app.example:443"] {
            assert!(opens(&production, "alfred.example", Some(ours)), "{ours}");
        }
        for other in [
            "null",
            "http://alfred.example",
            "https://evil.example",
            "file:///x",
            "http://localhost:6274",
            "x",
        ] {
            assert!(!opens(&production, "alfred.example", Some(other)), "{other}");
        }
        assert!(opens(&doors(true), "localhost:8080", Some("http://localhost:6274")));
        assert!(!opens(&doors(true), "localhost:8080", Some("http://evil.example")));
    }

    #[test]
    fn the_resource_is_ours() {
        for ours in
            ["https://alfred.example/mcp", "https://alfred.example/mcp/", "HTTPS://Alfred.example:443/mcp"]
        {
            assert!(matches!(doors(false).resource(ours), Name::Ours(_)), "{ours}");
        }
        for other in [
            "https://alfred.example/",
            "https://alfred.example/mcpx",
            "https://alfred.example/mcp?x",
            "https://alfred.example/mcp#x",
            "https://evil.example/mcp",
            "http://localhost/mcp",
            "mcp",
        ] {
            assert!(!matches!(doors(false).resource(other), Name::Ours(_)), "{other}");
        }
        assert!(matches!(doors(true).resource("http://127.0.0.1:8080/mcp"), Name::Ours(_)));
    }

    #[test]
    fn a_request_tells_by_which_name_it_came() {
        let base = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            match doors(true).name(&headers) {
                Name::Ours(base) => base.to_string(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(base("alfred.example:443"), "https://alfred.example/");
        assert_eq!(base("127.0.0.1:8080"), "http://127.0.0.1:8080/");
    }

    #[test]
    fn other_names_are_ours_only_if_they_stand_for_a_tenant() {
        let name = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            doors(true).name(&headers)
        };
        let acme = Name::Perhaps("acme.example".parse().unwrap(), "https://acme.example/".parse().unwrap());
        assert_eq!(name("acme.example"), acme);
        assert_eq!(name("ACME.example:443"), acme);
        for other in ["acme.example:8080", "acme", "10.0.0.1", "evil@acme.example", ""] {
            assert_eq!(name(other), Name::Others, "{other}");
        }
        assert!(matches!(doors(false).resource("https://acme.example/mcp"), Name::Perhaps(..)));
        for other in ["http://acme.example/mcp", "https://acme.example/", "https://acme.example:1/mcp"] {
            assert_eq!(doors(false).resource(other), Name::Others, "{other}");
        }
    }
}
