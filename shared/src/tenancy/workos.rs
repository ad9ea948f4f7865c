//! Memberships as the WorkOS API tells them: `GET /user_management/organization_memberships`, page by page.
//!
//! Nothing is assumed when it does not answer: a failure is a failure of the request that asked.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect::Policy};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use crate::{
    config::WorkosConfig,
    error::{Code, Error, Result},
    identity::Role,
};

const CONNECT: Duration = Duration::from_secs(2);
/// For one page.
const PAGE: Duration = Duration::from_secs(4);
/// For all of them.
const WHOLE: Duration = Duration::from_secs(10);
/// Bytes of a page at most; a hundred memberships are about 60 KiB.
const PAGE_BYTES: usize = 1 << 20;
/// A person in more organisations than this is an error of the directory.
const MOST_PAGES: usize = 50;

/// A person's place in an organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) organization: String,
    pub(super) role: Role,
}

/// The API.
pub struct WorkOs {
    http: Client,
    memberships: Url,
    api_key: SecretString,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<OrganizationMembership>,
    #[serde(default)]
    list_metadata: ListMetadata,
}

#[derive(Deserialize)]
struct OrganizationMembership {
    user_id: String,
    organization_id: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    role: Option<Slug>,
}

#[derive(Deserialize)]
struct Slug {
    slug: String,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    after: Option<String>,
}

/// Why a page did not come.
enum Missed {
    /// It may come when asked for again.
    Now(String),
    /// It will not.
    Always(String),
}

impl WorkOs {
    /// A client of the API at this place.
    ///
    /// # Errors
    /// When the TLS setup of the machine is unusable, or the URL cannot have a path.
    pub fn new(config: &WorkosConfig) -> Result<Self> {
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(PAGE)
            .redirect(Policy::none())
            .user_agent(concat!("alfred/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)?;
        let mut memberships = config.api_url.clone();
        memberships
            .path_segments_mut()
            .map_err(|()| Error::internal("WORKOS_API_URL: cannot have a path"))?
            .pop_if_empty()
            .extend(["user_management", "organization_memberships"]);
        Ok(Self { http, memberships, api_key: config.api_key.clone() })
    }

    /// The organisations that the user is an active member of.
    ///
    /// # Errors
    /// An internal one when the API refuses, is too slow, or answers what cannot be read.
    pub(super) async fn memberships(&self, user: &str) -> Result<Vec<Place>> {
        match tokio::time::timeout(WHOLE, self.all_pages(user)).await {
            Ok(Ok(places)) => Ok(places),
            Ok(Err(why)) => Err(unknown(&why)),
            Err(_) => Err(unknown(&format!("no whole answer within {} seconds", WHOLE.as_secs()))),
        }
    }

    async fn all_pages(&self, user: &str) -> Result<Vec<Place>, String> {
        let mut places = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page = match self.page(user, after.as_deref()).await {
                Ok(page) => page,
                Err(Missed::Always(why)) => return Err(why),
                Err(Missed::Now(_)) => {
                    tokio::time::sleep(Duration::from_millis(rand::random_range(100..300))).await;
                    self.page(user, after.as_deref()).await.map_err(Missed::why)?
                }
            };
            for membership in page.data {
                if membership.user_id != user {
                    return Err("it answered about somebody else".to_owned());
                }
                if membership.status == "active" {
                    let is_admin = membership.role.is_some_and(|role| role.slug == "admin");
                    let role = if is_admin { Role::Admin } else { Role::Member };
                    places.push(Place { organization: membership.organization_id, role });
                }
            }
            match page.list_metadata.after.filter(|next| !next.is_empty()) {
                None => {
                    places.sort_by(|one, other| one.organization.cmp(&other.organization));
                    places.dedup_by(|one, other| one.organization == other.organization);
                    return Ok(places);
                }
                Some(next) if after.as_ref() == Some(&next) => {
                    return Err("its pages do not end".to_owned());
                }
                next => after = next,
            }
        }
        Err("its pages do not end".to_owned())
    }

    async fn page(&self, user: &str, after: Option<&str>) -> Result<Page, Missed> {
        let mut url = self.memberships.clone();
        url.query_pairs_mut().append_pair("user_id", user).append_pair("limit", "100");
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", after);
        }
        let asked = self.http.get(url).bearer_auth(self.api_key.expose_secret()).send().await;
        // The URL in the error's text would tell the user's id to the log.
        let mut response = asked.map_err(|error| Missed::Now(error.without_url().to_string()))?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Missed::Now(format!("it answered {status}")));
            }
            status => return Err(Missed::Always(format!("it answered {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Missed::Now(error.without_url().to_string()))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > PAGE_BYTES {
                return Err(Missed::Always("a page is too large".to_owned()));
            }
        }
        serde_json::from_slice(&body)
            .map_err(|error| Missed::Always(format!("a page cannot be read: {error}")))
    }
}

impl Missed {
    fn why(self) -> String {
        match self {
            Self::Now(why) | Self::Always(why) => why,
        }
    }
}

fn unknown(why: &str) -> Error {
    let message = "who belongs to which tenant cannot be found out at the moment; try again";
    Error::new(Code::Internal, message).with_source(format!("WorkOS: {why}"))
}
