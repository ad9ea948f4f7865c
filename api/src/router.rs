//! Every route, and the description of all of them.

use axum::{Router, http::HeaderValue};
use http::{HeaderName, Method, header};
use shared::{
    config::{AppEnv, Config},
    workspace::{ENTITIES, EntityDef},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error,
    limits::{self, Limits},
    openapi, routes,
    state::App,
};

/// The routes, also of these entities, and their description.
pub(crate) fn build(config: &Config, entities: &'static [EntityDef]) -> (Router<App>, OpenApi) {
    let (router, description) = described(entities);
    let shown = openapi::show(&description);
    (finished(router.merge(shown), config), description)
}

/// What holds for every route, also for those that are not there.
fn finished(router: Router<App>, config: &Config) -> Router<App> {
    let limits = Limits::new(config);
    router
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(axum::middleware::from_fn_with_state(limits, limits::limit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(cors(config))
}

/// The description alone.
pub(crate) fn description() -> OpenApi {
    described(&*ENTITIES).1
}

fn described(entities: &'static [EntityDef]) -> (Router<App>, OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(routes::chat::post_chat))
        .routes(routes!(routes::task_chat::post_task_chat))
        .routes(routes!(routes::streams::session_events))
        .routes(routes!(routes::jobs::get_job))
        .routes(routes!(routes::streams::job_events))
        .routes(routes!(routes::jobs::cancel))
        .routes(routes!(routes::jobs::retry))
        .routes(routes!(routes::jobs::approve))
        .routes(routes!(routes::sessions::list_sessions, routes::sessions::post_session))
        .routes(routes!(
            routes::sessions::get_session,
            routes::sessions::patch_session,
            routes::sessions::delete_session
        ))
        .routes(routes!(routes::tools::list_tools))
        .routes(routes!(routes::mcp::post_mcp))
        .routes(routes!(routes::mcp::protected_resource))
        .routes(routes!(routes::oauth_server::server_metadata))
        .routes(routes!(routes::oauth_server::register_client))
        .routes(routes!(routes::oauth_server::authorize, routes::oauth_server::decide))
        .routes(routes!(routes::oauth_server::sign_in))
        .routes(routes!(routes::oauth_server::token))
        .routes(routes!(routes::oauth_server::revoke))
        .routes(routes!(routes::connect::page))
        .routes(routes!(routes::connect::depart, routes::connect::change))
        .routes(routes!(routes::connect::callback))
        .routes(routes!(routes::connect::client_document))
        .routes(routes!(routes::connections::list_connections, routes::connections::post_connection))
        .routes(routes!(routes::connections::patch_connection, routes::connections::delete_connection))
        .routes(routes!(routes::usage::get_usage))
        .routes(routes!(routes::batch::post_batch))
        .routes(routes!(routes::changes::get_changes))
        .routes(routes!(routes::search::get_search))
        .routes(routes!(routes::stats::get_stats))
        .routes(routes!(routes::sync::post_push))
        .routes(routes!(routes::admin::list_policies))
        .routes(routes!(routes::admin::get_policy, routes::admin::put_policy, routes::admin::delete_policy))
        .routes(routes!(routes::admin::mcp_servers::list_servers, routes::admin::mcp_servers::post_server))
        .routes(routes!(
            routes::admin::mcp_servers::get_server,
            routes::admin::mcp_servers::patch_server,
            routes::admin::mcp_servers::delete_server
        ))
        .routes(routes!(routes::admin::mcp_tools::list_server_tools, routes::admin::mcp_tools::accept_tool))
        .routes(routes!(routes::admin::get_settings, routes::admin::put_settings))
        .routes(routes!(routes::auth::register))
        .routes(routes!(routes::auth::login))
        .routes(routes!(routes::auth::refresh))
        .routes(routes!(routes::auth::logout))
        .routes(routes!(routes::auth::me))
        .routes(routes!(routes::auth_invitations::accept))
        .routes(routes!(routes::auth_keys::list_keys, routes::auth_keys::post_key))
        .routes(routes!(routes::auth_keys::delete_key))
        .routes(routes!(routes::auth_sign_ins::list_sign_ins))
        .routes(routes!(routes::auth_sign_ins::delete_sign_in))
        .routes(routes!(routes::auth_sign_ins::post_password))
        .routes(routes!(routes::auth::jwks))
        .routes(routes!(routes::tenant::get_own_tenant, routes::tenant::leave_tenant))
        .routes(routes!(routes::admin::members::list_members, routes::admin::members::post_member))
        .routes(routes!(routes::admin::members::patch_member, routes::admin::members::delete_member))
        .routes(routes!(routes::admin::agents::list_agents, routes::admin::agents::post_agent))
        .routes(routes!(
            routes::admin::agents::get_agent,
            routes::admin::agents::patch_agent,
            routes::admin::agents::delete_agent
        ))
        .routes(routes!(routes::admin::agents::post_agent_secret))
        .routes(routes!(routes::admin::agents::post_agent_credentials))
        .routes(routes!(routes::admin::agents::get_agent_health))
        .routes(routes!(routes::admin::agent_breaker::get_breaker))
        .routes(routes!(routes::admin::agent_breaker::reset_breaker))
        .routes(routes!(routes::admin::agent_breaker::open_breaker))
        .routes(routes!(routes::admin::agent_sync::sync_agent))
        .routes(routes!(routes::admin::agent_sessions::list_agent_sessions))
        .routes(routes!(routes::admin::agent_sessions::delete_agent_session))
        .routes(routes!(routes::agents::post_token))
        .routes(routes!(routes::agents::get_user_context, routes::agents::patch_user_context))
        .routes(routes!(routes::agents::acknowledge))
        .routes(routes!(routes::agents::list_own_sessions))
        .routes(routes!(routes::agents::get_own_session, routes::agents::delete_own_session))
        .routes(routes!(routes::contexts::get_my_context, routes::contexts::patch_my_context))
        .routes(routes!(routes::contexts::put_my_preferences))
        .routes(routes!(routes::admin::contexts::get_context))
        .routes(routes!(routes::admin::contexts::list_versions))
        .routes(routes!(routes::admin::deliveries::list_deliveries))
        .routes(routes!(routes::admin::deliveries::replay_deliveries))
        .routes(routes!(routes::admin::deliveries::get_delivery))
        .routes(routes!(routes::admin::deliveries::replay_delivery))
        .routes(routes!(routes::admin::queues::list_queues))
        .routes(routes!(routes::admin::queues::pause_queue))
        .routes(routes!(routes::admin::queues::resume_queue))
        .routes(routes!(routes::admin::queues::jobs::list_jobs))
        .routes(routes!(routes::admin::queues::jobs::get_queue_job))
        .routes(routes!(routes::admin::queues::actions::retry_job))
        .routes(routes!(routes::admin::queues::actions::cancel_job))
        .routes(routes!(routes::admin::queues::actions::discard_job))
        .routes(routes!(routes::admin::queues::actions::act_on_jobs))
        .routes(routes!(routes::admin::flags::list_flags))
        .routes(routes!(routes::admin::flags::put_flag))
        .routes(routes!(routes::admin::audit::list_audit))
        .routes(routes!(routes::admin::cache::get_cache, routes::admin::cache::delete_cache))
        .routes(routes!(routes::admin::tenants::list_tenants, routes::admin::tenants::post_tenant))
        .routes(routes!(
            routes::admin::tenants::get_tenant,
            routes::admin::tenants::patch_tenant,
            routes::admin::tenants::delete_tenant
        ))
        .routes(routes!(routes::admin::tenants::suspend))
        .routes(routes!(routes::admin::tenants::resume))
        .routes(routes!(routes::admin::tenants::export))
        .routes(routes!(routes::admin::audit::list_audit_of))
        .routes(routes!(routes::admin::secrets::list_secrets, routes::admin::secrets::post_secret))
        .routes(routes!(routes::admin::secrets::get_secret))
        .routes(routes!(routes::health::healthz))
        .routes(routes!(routes::health::readyz))
        .routes(routes!(routes::health::metrics))
        .split_for_parts();
    let router = router.merge(routes::workspace::router(entities));
    routes::workspace::describe(&mut description, entities);
    (router, openapi::finish(description))
}

fn cors(config: &Config) -> CorsLayer {
    let exposed =
        ["x-request-id", "location", "preference-applied", "www-authenticate", "retry-after", "etag"]
            .map(HeaderName::from_static);
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed)
        .vary([header::ORIGIN])
        .max_age(std::time::Duration::from_secs(600));
    if config.cors_origins.is_empty() && config.app_env != AppEnv::Prod {
        return layer.allow_origin(AllowOrigin::any());
    }
    let origins = config.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    layer.allow_origin(AllowOrigin::list(origins))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use http::{Request, StatusCode};
    use shared::testing::TestDb;

    use super::*;

    async fn panics() {
        panic!("the password is hunter2");
    }

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_in_the_one_shape() {
        let db = TestDb::new().await;
        let variables = [
            ("APP_ENV", "test"),
            ("APP_PORT", "0"),
            ("DB_URL", &db.app_url),
            ("DB_ENGINE_URL", &db.engine_url),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let running = crate::start(Config::from_vars(&variables).unwrap()).await.unwrap();
        let app = running.app();
        let router = finished(Router::new().route("/panics", get(panics)), &app.config);
        let request = Request::get("/panics").header("X-Request-ID", "r1").body(Body::empty()).unwrap();
        let answered =
            crate::request::answer(app.clone(), router.with_state(app.clone()), request).await.unwrap();
        assert_eq!(answered.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answered.headers()["x-request-id"], "r1");
        let body = axum::body::to_bytes(answered.into_body(), 4096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["error"], &body["requestId"]), (&"APP-5XX".into(), &"r1".into()));
        assert!(!body.to_string().contains("hunter2"), "{body}");
        running.stop().await;
    }
}
