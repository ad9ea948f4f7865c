//! What becomes of open streams when their readers may no longer read.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::{Made, OPERATOR, invitations, provision, signed_in, start};
use crate::{
    app::{MEMBER, TestApp},
    streams::Reader,
};

/// What ends, or narrows, what an admin may read, and what they are answered when they come again.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Demoted,
    Removed,
    Suspended,
    KeyRevoked,
}

impl Loss {
    async fn happen(self, app: &TestApp, acme: &Made) {
        let own = format!("/admin/members/{}", acme.admin_user);
        let (method, path, body) = match self {
            Self::Demoted => (Method::PATCH, own, json!({"role": "member"})),
            Self::Removed => (Method::DELETE, own, json!({})),
            Self::Suspended => (Method::POST, format!("/admin/tenants/{}/suspend", acme.id), json!({})),
            Self::KeyRevoked => {
                let keys = app.get(&acme.admin_key, "/api/v1/auth/keys").await.json();
                (
                    Method::DELETE,
                    format!("/api/v1/auth/keys/{}", keys["keys"][0]["id"].as_str().unwrap()),
                    json!({}),
                )
            }
        };
        let by = if matches!(self, Self::Suspended) { OPERATOR } else { &acme.admin_key };
        let done = app.send_json(by, method, &path, &body).await;
        assert!(done.status.is_success(), "{self:?}: {done:?}");
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Demoted => StatusCode::OK,
            Self::Removed | Self::KeyRevoked => StatusCode::UNAUTHORIZED,
            Self::Suspended => StatusCode::FORBIDDEN,
        }
    }
}

#[tokio::test]
async fn a_stream_ends_with_what_its_reader_may_see() {
    let app = start(|config| config.stream_keepalive = Duration::from_millis(100)).await;
    let ann = signed_in::sign_in(&app, "ann@example.com").await;
    let mut bystander = Reader::open(&app, "/v1/changes", None).await;
    for loss in [Loss::Demoted, Loss::Removed, Loss::Suspended, Loss::KeyRevoked] {
        let acme = provision(&app, &format!("{loss:?}").to_lowercase()).await;
        // A tenant keeps an admin.
        let second = json!({"email": "ann@example.com", "role": "admin"});
        let second = app.post(&acme.admin_key, "/admin/members", &second).await.json();
        let code = second["invitation"]["code"].as_str().unwrap();
        assert_eq!(invitations::accept(&app, &ann, code).await.status, StatusCode::OK);
        let chat = app.chat(&acme.admin_key).await;
        let paths = [
            "/v1/changes?include=items".to_owned(),
            format!("/chat/stream?session={}&follow=true", chat["session"].as_str().unwrap()),
            chat["links"]["events"].as_str().unwrap().to_owned(),
        ];
        let mut open = Vec::new();
        for path in &paths {
            let mut reader = Reader::open_as(&app, &acme.admin_key, path, None).await;
            // Past several looks.
            reader.until_that(|text| text.matches(":keepalive").count() > 6).await;
            open.push(reader);
        }
        loss.happen(&app, &acme).await;
        for (path, mut reader) in paths.iter().zip(open) {
            let text = reader.until(None).await;
            let last = text.trim_end().rsplit("\n\n").next().unwrap();
            assert!(last.starts_with("retry: "), "{loss:?} {path}: {text}");
            let again =
                app.request(Method::GET, path).header("X-API-Key", &acme.admin_key).send().await.unwrap();
            assert_eq!(again.status(), loss.status(), "{loss:?} {path}");
        }
    }
    // Nobody else's stream has ended.
    app.chat(MEMBER).await;
    bystander.until(Some("\"kind\":\"chat_message\"")).await;
}
