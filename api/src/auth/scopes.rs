//! Which scope a route wants: the first family whose paths the route is among decides.

use axum::extract::MatchedPath;
use http::{Method, request::Parts};
use shared::identity::Scope;

/// Routes that want the same scopes.
struct Family {
    /// What their paths begin with.
    paths: &'static str,
    /// For GET and HEAD.
    reading: Scope,
    /// For all other methods.
    changing: Scope,
}

const FAMILIES: &[Family] = &[
    Family { paths: "/admin/", reading: Scope::Admin, changing: Scope::Admin },
    Family { paths: "/api/v1/auth/keys", reading: Scope::Admin, changing: Scope::Admin },
    // A program that was let in for some things is not to see where its user is, nor to put them out elsewhere.
    Family { paths: "/api/v1/auth/password", reading: Scope::Admin, changing: Scope::Admin },
    Family { paths: "/api/v1/auth/sign-ins", reading: Scope::Admin, changing: Scope::Admin },
    // Neither is it to take its user into a tenant.
    Family { paths: "/api/v1/auth/invitations", reading: Scope::Admin, changing: Scope::Admin },
    // About the person themselves: any credential may ask, and may end its own sign-in.
    Family { paths: "/api/v1/auth/", reading: Scope::Read, changing: Scope::Read },
    // Nor may such a program take its user out of a tenant.
    Family { paths: "/v1/auth/", reading: Scope::Read, changing: Scope::Admin },
    Family { paths: "/api/{user_id}/chat", reading: Scope::Chat, changing: Scope::Chat },
    Family { paths: "/chat", reading: Scope::Read, changing: Scope::Chat },
    Family { paths: "/jobs/", reading: Scope::Read, changing: Scope::Chat },
    Family { paths: "/sessions", reading: Scope::Read, changing: Scope::Chat },
    // Looking at one's connections is reading; going off to make one is not.
    Family { paths: "/connect/", reading: Scope::Write, changing: Scope::Write },
    // A message may call any tool; the tools that write ask for `write` themselves.
    Family { paths: "/mcp", reading: Scope::Read, changing: Scope::Read },
    Family { paths: "/", reading: Scope::Read, changing: Scope::Write },
];

/// What the request's route wants of a credential.
pub(super) fn wanted(parts: &Parts) -> Scope {
    let route = parts.extensions.get::<MatchedPath>().map_or_else(|| parts.uri.path(), MatchedPath::as_str);
    let family = FAMILIES.iter().find(|family| route.starts_with(family.paths));
    let is_reading = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    family.map_or(Scope::Admin, |family| if is_reading { family.reading } else { family.changing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, path: &str) -> Scope {
        let (parts, ()) = http::Request::builder().method(method).uri(path).body(()).unwrap().into_parts();
        wanted(&parts)
    }

    #[test]
    fn families_say_what_a_route_wants() {
        assert_eq!(of("GET", "/jobs/1/events"), Scope::Read);
        assert_eq!(of("POST", "/jobs/1/cancel"), Scope::Chat);
        assert_eq!(of("POST", "/chat"), Scope::Chat);
        assert_eq!(of("PUT", "/v1/tasks/1"), Scope::Write);
        assert_eq!(of("GET", "/v1/chats"), Scope::Read);
        assert_eq!((of("GET", "/connect"), of("GET", "/connect/{server}")), (Scope::Read, Scope::Write));
        assert_eq!(of("GET", "/admin/settings"), Scope::Admin);
        assert_eq!(of("POST", "/api/v1/auth/keys"), Scope::Admin);
        assert_eq!(of("GET", "/api/v1/auth/sign-ins"), Scope::Admin);
        assert_eq!(of("POST", "/api/v1/auth/password"), Scope::Admin);
        assert_eq!(of("POST", "/api/v1/auth/invitations/accept"), Scope::Admin);
        assert_eq!(of("DELETE", "/v1/auth/tenant"), Scope::Admin);
        assert_eq!(of("GET", "/api/v1/auth/me"), Scope::Read);
    }
}
