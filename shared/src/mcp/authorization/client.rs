//! Programs: what they say about themselves, and where their codes may be sent.

use serde::Deserialize;
use url::{Host, Url};
use uuid::Uuid;

/// The longest of what a client says about itself.
const LONGEST: usize = 2000;
const LONGEST_NAME: usize = 100;
const MOST_URIS: usize = 20;
/// Bytes of all of them together.
const MOST_URI_BYTES: usize = 4096;
/// What a browser would run or read instead of sending somewhere.
const NEVER: &[&str] = &[
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Somebody's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Ours, or the address of its document.
    pub id: String,
    /// As it calls itself, which nobody has checked.
    pub name: String,
    /// Where its codes may be sent.
    pub redirect_uris: Vec<String>,
    /// Who vouches for it: the host of its document; none when it registered itself.
    pub host: Option<String>,
}

/// What a program asks to be registered with (RFC 7591). What is not here is not used.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Registration {
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    pub client_name: Option<String>,
    #[serde(default)]
    pub grant_types: Option<Vec<String>>,
    #[serde(default)]
    pub response_types: Option<Vec<String>>,
}

/// Why a program is not registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationProblem {
    /// RFC 7591's word.
    pub error: &'static str,
    /// A sentence.
    pub description: String,
}

impl Registration {
    /// The client that this registers.
    pub(super) fn check(&self) -> Result<Client, RegistrationProblem> {
        let wrong =
            |error, description: &str| RegistrationProblem { error, description: description.to_owned() };
        check_uris(&self.redirect_uris).map_err(|description| wrong("invalid_redirect_uri", &description))?;
        let has = |given: &Option<Vec<String>>, word: &str| {
            given.as_ref().is_none_or(|given| given.iter().any(|given| given == word))
        };
        if !has(&self.grant_types, "authorization_code") || !has(&self.response_types, "code") {
            let sentence = "grant_types must have authorization_code, and response_types code";
            return Err(wrong("invalid_client_metadata", sentence));
        }
        Ok(Client {
            id: format!("mcp_{}", Uuid::new_v4().simple()),
            name: name(self.client_name.as_deref()).unwrap_or_else(|| "A program without a name".to_owned()),
            redirect_uris: self.redirect_uris.clone(),
            host: None,
        })
    }
}

/// A name as people can be shown it: one line, without letters that hide or turn others.
pub(super) fn name(given: Option<&str>) -> Option<String> {
    let visible = |letter: &char| {
        !letter.is_control()
            && !matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let name: String = given?.chars().filter(visible).take(LONGEST_NAME).collect();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// # Errors
/// A sentence that names the address that cannot be one.
pub(super) fn check_uris(uris: &[String]) -> Result<(), String> {
    if uris.is_empty() || uris.len() > MOST_URIS {
        return Err(format!("redirect_uris must have one to {MOST_URIS} addresses"));
    }
    if uris.iter().map(String::len).sum::<usize>() > MOST_URI_BYTES {
        return Err(format!("redirect_uris must have {MOST_URI_BYTES} bytes at most, all together"));
    }
    match uris.iter().find(|uri| !may_be_sent_to(uri)) {
        None => Ok(()),
        Some(uri) => Err(format!(
            "{}: must be https, http on this machine, or a scheme of the program's own, without a fragment",
            uri.chars().take(200).collect::<String>()
        )),
    }
}

fn may_be_sent_to(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    let plain = uri.len() <= LONGEST
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && uri.bytes().all(|byte| byte.is_ascii_graphic());
    plain
        && match url.scheme() {
            "https" => url.host().is_some(),
            "http" => is_this_machine(&url),
            scheme => !NEVER.contains(&scheme),
        }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Client {
    /// Whether codes may be sent there: letter by letter, but for the port on the user's own machine, which a program gets
    /// when it starts (RFC 8252, section 7.3).
    #[must_use]
    pub fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|known| known == uri || differ_in_port_alone(known, uri))
    }
}

fn differ_in_port_alone(known: &str, given: &str) -> bool {
    let (Ok(mut known), Ok(mut given_url)) = (Url::parse(known), Url::parse(given)) else { return false };
    let local = |url: &Url| url.scheme() == "http" && is_this_machine(url);
    // What was normalised on the way is not letter by letter.
    local(&known)
        && local(&given_url)
        && given_url.as_str() == given
        && known.set_port(None).is_ok()
        && given_url.set_port(None).is_ok()
        && known == given_url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_where_a_program_can_be() {
        for good in [
            "https://app.example/callback?x=1",
            "http://localhost:33418/",
            "http://127.0.0.1/callback",
            "http://[::1]:3000/cb",
            "cursor://anysphere.cursor-retrieval/oauth/callback",
            "com.example.app:/callback",
        ] {
            assert!(may_be_sent_to(good), "{good}");
        }
        for bad in [
            "http://app.example/callback",
            "https://app.example/#x",
            "https://user@app.example/",
            "javascript:alert(1)",
            "data:text/html,x",
            "/callback",
            "",
            "https://app.example/ x",
            "http://localhost.evil.example/",
        ] {
            assert!(!may_be_sent_to(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_are_compared_letter_by_letter() {
        let client = Client {
            id: String::new(),
            name: String::new(),
            redirect_uris: vec!["https://app.example/cb".to_owned(), "http://127.0.0.1/cb".to_owned()],
            host: None,
        };
        for good in ["https://app.example/cb", "http://127.0.0.1/cb", "http://127.0.0.1:4711/cb"] {
            assert!(client.may_redirect_to(good), "{good}");
        }
        for bad in [
            "https://app.example/cb/",
            "https://app.example:444/cb",
            "https://app.example/cb?x",
            "http://127.0.0.1:4711/other",
            "http://localhost:4711/cb",
            "http://127.0.0.1:4711/cb#x",
            "http://127.0.0.1:4711/x/../cb",
            "http://evil@127.0.0.1:4711/cb",
        ] {
            assert!(!client.may_redirect_to(bad), "{bad}");
        }
    }

    #[test]
    fn a_registration_says_enough() {
        let asked =
            |uri: &str| Registration { redirect_uris: vec![uri.to_owned()], ..Registration::default() };
        let client =
            Registration { client_name: Some("A\u{202e}b\n ".to_owned()), ..asked("https://a.example/cb") };
        assert_eq!(client.check().unwrap().name, "Ab");
        assert_eq!(asked("javascript:x").check().unwrap_err().error, "invalid_redirect_uri");
        let other =
            Registration { grant_types: Some(vec!["implicit".to_owned()]), ..asked("https://a.example/cb") };
        assert_eq!(other.check().unwrap_err().error, "invalid_client_metadata");
    }
}
