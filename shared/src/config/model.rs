//! Which models there are.

use url::Url;

use super::reader::Reader;
use crate::model::{self, ModelConfig, ModelId, Provider};

/// The parts, which must also fit together: every process refuses what only a worker would come to use.
pub(super) fn read(reader: &mut Reader<'_>) -> ModelConfig {
    let problems_before = reader.problems.len();
    let base_url: Option<Url> = reader.optional("MODEL_BASE_URL", "an http or https URL");
    if base_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
        reader.refuse("MODEL_BASE_URL", "is not an http or https URL");
    }
    let config = ModelConfig {
        provider: reader
            .optional::<Provider>("MODEL_PROVIDER", "anthropic, openai, openai-compatible or offline"),
        name: reader.text("MODEL_NAME").map(str::to_owned),
        base_url,
        fallbacks: reader.list::<ModelId>("MODEL_FALLBACKS", "a model written provider:model"),
        anthropic_api_key: reader.secret("ANTHROPIC_API_KEY"),
        openai_api_key: reader.secret("OPENAI_API_KEY"),
        idle_timeout: reader.seconds("MODEL_IDLE_TIMEOUT_SECONDS", 0.1, 3600.0),
        offline_delay: reader.milliseconds("MODEL_OFFLINE_DELAY_MS", 0, 60_000),
    };
    if reader.problems.len() == problems_before
        && let Err(error) = model::check(&config)
    {
        reader.refuse(error.variable, error.message);
    }
    config
}
