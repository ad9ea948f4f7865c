//! Which model says what items mean, if one does.

use secrecy::SecretString;
use url::Url;

use super::reader::Reader;
use crate::model::{Provider, embeddings::EmbeddingConfig};

const OPENAI_URL: &str = "https://api.openai.com/v1";
const OPENAI_MODEL: &str = "text-embedding-3-small";

/// None: search by meaning is off.
pub(super) fn read(reader: &mut Reader<'_>, openai_key: Option<&SecretString>) -> Option<EmbeddingConfig> {
    let provider: Option<Provider> = reader.optional("EMBEDDING_PROVIDER", "openai or openai-compatible");
    let model = reader.text("EMBEDDING_MODEL").map(str::to_owned);
    let base_url: Option<Url> = reader.optional("EMBEDDING_BASE_URL", "an http or https URL");
    let dimensions: Option<u32> = reader.optional("EMBEDDING_DIMENSIONS", "a number of dimensions");
    let own_key = reader.secret("EMBEDDING_API_KEY");
    if base_url.as_ref().is_some_and(|url| !matches!(url.scheme(), "http" | "https")) {
        reader.refuse("EMBEDDING_BASE_URL", "is not an http or https URL");
    }
    if dimensions.is_some_and(|dimensions| !(1..=16_000).contains(&dimensions)) {
        reader.refuse("EMBEDDING_DIMENSIONS", "is not a number from 1 to 16000");
    }
    let Some(provider) = provider else {
        for (name, is_set) in
            [("EMBEDDING_MODEL", model.is_some()), ("EMBEDDING_BASE_URL", base_url.is_some())]
        {
            if is_set {
                reader.refuse(name, "needs EMBEDDING_PROVIDER beside it");
            }
        }
        return None;
    };
    let (base_url, model, key) = match provider {
        Provider::OpenAi => {
            let key = own_key.or_else(|| openai_key.cloned());
            if key.is_none() {
                reader.refuse(
                    "EMBEDDING_API_KEY",
                    "or OPENAI_API_KEY is required with EMBEDDING_PROVIDER=openai",
                );
            }
            let url = base_url.or_else(|| Url::parse(OPENAI_URL).ok());
            (url, Some(model.unwrap_or_else(|| OPENAI_MODEL.to_owned())), key)
        }
        Provider::OpenAiCompatible => {
            if base_url.is_none() {
                reader.refuse("EMBEDDING_BASE_URL", "is required with EMBEDDING_PROVIDER=openai-compatible");
            }
            if model.is_none() {
                reader.refuse("EMBEDDING_MODEL", "is required with EMBEDDING_PROVIDER=openai-compatible");
            }
            (base_url, model, own_key)
        }
        Provider::Anthropic | Provider::Offline => {
            reader.refuse("EMBEDDING_PROVIDER", "is not openai or openai-compatible");
            (None, None, None)
        }
    };
    Some(EmbeddingConfig { provider, base_url: base_url?, model: model?, dimensions, key })
}
