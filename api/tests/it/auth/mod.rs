//! Signing in, as clients see it.

mod cookies;
mod keys;
mod outside;
mod passwords;
mod sign_ins;
mod tokens;

use http::Method;
use serde_json::{Value, json};

use crate::app::{Answered, TestApp};

pub(super) const PASSWORD: &str = "correct horse battery staple";

impl TestApp {
    pub(super) async fn auth(&self, verb: &str, body: &Value) -> Answered {
        self.send(self.request(Method::POST, &format!("/api/v1/auth/{verb}")).json(body)).await
    }

    pub(super) async fn log_in(&self, email: &str, password: &str) -> Answered {
        self.auth("login", &json!({"email": email, "password": password})).await
    }

    /// Makes an account and signs in to it.
    pub(super) async fn sign_up(&self, email: &str) -> Value {
        let body = json!({"email": email, "password": PASSWORD});
        assert_eq!(self.auth("register", &body).await.status, 202);
        let answered = self.log_in(email, PASSWORD).await;
        assert_eq!(answered.status, 200, "{answered:?}");
        answered.json()
    }

    pub(super) async fn refresh(&self, token: &Value) -> Answered {
        self.auth("refresh", &json!({"refresh_token": token})).await
    }

    pub(super) async fn as_bearer(&self, token: &Value, method: Method, path: &str) -> Answered {
        self.send(self.request(method, path).bearer_auth(token.as_str().unwrap())).await
    }

    /// Whether an access token opens anything.
    pub(super) async fn opens(&self, token: &Value) -> bool {
        let answered = self.as_bearer(token, Method::GET, "/api/v1/auth/me").await;
        if answered.status == 200 {
            return true;
        }
        answered.is_error(401, "APP-401-AUTH");
        false
    }

    /// How many password hashes the server has computed.
    pub(super) fn hashes(&self) -> u64 {
        self.running.password_hashes()
    }
}
