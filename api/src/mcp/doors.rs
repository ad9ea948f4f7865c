//! Which names a request may use for this server, and which pages may send one: the guard against DNS rebinding, where
//! a hostile page points a name of its own at our address.

use http::{HeaderMap, header, uri::Authority};
use shared::{
    config::{AppEnv, Config},
    error::{Code, Error, Result},
};
use url::{Host, Url};

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

    /// Lets a request in whose Host is ours and whose Origin, if it has one, may call us.
    ///
    /// # Errors
    /// 403 naming the header and the variable that would allow it.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<()> {
        self.base(headers)?;
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let allowed =
            origin.to_str().ok().and_then(|text| Url::parse(text).ok()).is_some_and(|url| self.is_ours(&url));
        if allowed {
            return Ok(());
        }
        Err(Error::new(
            Code::Forbidden,
            "Origin: pages of this origin may not call /mcp; CORS_ORIGINS lists those that may",
        ))
    }

    /// The address under which this request reached us: `PUBLIC_URL`, or in development a name of this machine.
    ///
    /// # Errors
    /// 403 for a name that is not ours.
    pub(super) fn base(&self, headers: &HeaderMap) -> Result<Url> {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let named = host.and_then(|host| host.parse::<Authority>().ok()).and_then(|host| {
            // Userinfo has no place in Host, and a URL of ours has no other parts to smuggle a name into.
            if host.as_str().contains('@') {
                return None;
            }
            Url::parse(&format!("{}://{host}/", self.public.scheme())).ok()
        });
        match named {
            Some(named) if named.origin() == self.public.origin() => Ok(self.public.clone()),
            Some(mut named) if self.loopback && is_loopback(&named) => {
                // A loopback name has no certificate, whatever PUBLIC_URL has.
                if named.scheme() != "http" {
                    named = Url::parse(&format!("http://{}/", host.unwrap_or_default())).unwrap_or(named);
                }
                Ok(named)
            }
            _ => Err(Error::new(
                Code::Forbidden,
                "Host: this is not a name of this server; PUBLIC_URL says which one is",
            )),
        }
    }

    /// Whether this is the address of our `/mcp`, by one of our names.
    pub(super) fn is_resource(&self, text: &str) -> bool {
        Url::parse(text).is_ok_and(|url| {
            let plain = url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none();
            let path = url.path().strip_prefix(self.public.path());
            let by_name = url.origin() == self.public.origin() || self.loopback && is_loopback(&url);
            plain && by_name && matches!(path, Some("mcp" | "mcp/"))
        })
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
        doors.check(&headers).is_ok()
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
        assert!(doors(true).check(&HeaderMap::new()).is_err());
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
            assert!(doors(false).is_resource(ours), "{ours}");
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
            assert!(!doors(false).is_resource(other), "{other}");
        }
        assert!(doors(true).is_resource("http://127.0.0.1:8080/mcp"));
    }

    #[test]
    fn a_request_tells_by_which_name_it_came() {
        let base = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            doors(true).base(&headers).unwrap().to_string()
        };
        assert_eq!(base("alfred.example:443"), "https://alfred.example/");
        assert_eq!(base("127.0.0.1:8080"), "http://127.0.0.1:8080/");
    }
}
