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

use crate::{error, openapi, routes, state::App};

/// The routes, also of these entities, and their description.
pub(crate) fn build(config: &Config, entities: &'static [EntityDef]) -> (Router<App>, OpenApi) {
    let (router, description) = described(entities);
    let shown = openapi::show(&description);
    let router = router
        .merge(shown)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(cors(config));
    (router, description)
}

/// The description alone.
pub(crate) fn description() -> OpenApi {
    described(&*ENTITIES).1
}

fn described(entities: &'static [EntityDef]) -> (Router<App>, OpenApi) {
    let (router, mut description) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(routes::chat::post_chat))
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
        .routes(routes!(routes::usage::get_usage))
        .routes(routes!(routes::batch::post_batch))
        .routes(routes!(routes::changes::get_changes))
        .routes(routes!(routes::search::get_search))
        .routes(routes!(routes::stats::get_stats))
        .routes(routes!(routes::sync::post_push))
        .routes(routes!(routes::admin::list_policies))
        .routes(routes!(routes::admin::get_policy, routes::admin::put_policy, routes::admin::delete_policy))
        .routes(routes!(routes::admin::get_settings, routes::admin::put_settings))
        .routes(routes!(routes::auth::register))
        .routes(routes!(routes::auth::login))
        .routes(routes!(routes::auth::refresh))
        .routes(routes!(routes::auth::logout))
        .routes(routes!(routes::auth::me))
        .routes(routes!(routes::auth_keys::list_keys, routes::auth_keys::post_key))
        .routes(routes!(routes::auth_keys::delete_key))
        .routes(routes!(routes::auth::jwks))
        .routes(routes!(routes::health::healthz))
        .routes(routes!(routes::health::readyz))
        .routes(routes!(routes::health::metrics))
        .split_for_parts();
    let router = router.merge(routes::workspace::router(entities));
    routes::workspace::describe(&mut description, entities);
    (router, openapi::finish(description))
}

fn cors(config: &Config) -> CorsLayer {
    let exposed = ["x-request-id", "etag", "location", "preference-applied", "www-authenticate"]
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
