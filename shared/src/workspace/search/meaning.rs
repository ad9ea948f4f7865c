//! Search by meaning, alone and together with search by words.
//!
//! What a query means is asked of a model before the search's transaction begins ([`Meaning::of`]). The nearest items come
//! from one audited function, like matches of words do. Together, each list counts by places (reciprocal rank fusion): a
//! rank of words and a distance of meanings have no common measure, and places do.

use std::{cmp::Ordering, collections::HashMap};

use serde::{Deserialize, Serialize};

use super::{Filter, Match, WINDOW, store};
use crate::{
    db::TenantTx,
    error::{Code, Error, Result},
    ids::ItemUid,
    model::{ModelErrorKind, embeddings::Embedder},
    workspace::schema::Problem,
};

/// Nearest items that count.
const NEAREST: usize = 100;
/// How much the first places of a list outweigh those behind; the value that the method's authors found good.
const DAMPING: f32 = 60.0;

/// How a query is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By its words.
    #[default]
    Text,
    /// By what it means.
    Semantic,
    /// By both.
    Hybrid,
}

impl Mode {
    /// Every mode, as tools list them.
    pub const WORDS: [&'static str; 3] = ["text", "semantic", "hybrid"];

    /// The mode of a word.
    ///
    /// # Errors
    /// 422 for a word that is none.
    pub fn from_word(word: &str) -> Result<Self, Problem> {
        match word {
            "text" => Ok(Self::Text),
            "semantic" => Ok(Self::Semantic),
            "hybrid" => Ok(Self::Hybrid),
            _ => Err(Problem::new("mode", format!("must be one of {}", Self::WORDS.join(", ")))),
        }
    }
}

/// What a query means, to one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// Which model it is a meaning to.
    pub model: String,
    /// Of length 1.
    pub vector: Vec<f32>,
}

impl Meaning {
    /// Asks the model what a query means, if this mode needs to know.
    ///
    /// # Errors
    /// 422 for a query that is none, or without a model; those of the model.
    pub async fn of(embedder: Option<&Embedder>, mode: Mode, query: &str) -> Result<Option<Self>> {
        if mode == Mode::Text {
            return Ok(None);
        }
        let embedder = embedder.ok_or_else(no_model)?;
        let text = super::text_of(query)?;
        let asked = embedder.embed(&[text]).await.map_err(|error| {
            let code = match error.kind {
                ModelErrorKind::Timeout => Code::ModelTimeout,
                _ => Code::ModelUnavailable,
            };
            Error::new(code, "the model of embeddings does not answer; search by words with mode=text")
                .with_source(error)
        })?;
        let vector =
            asked.vectors.into_iter().next().ok_or_else(|| Error::internal("one vector for one text"))?;
        Ok(Some(Self { model: embedder.name().to_owned(), vector }))
    }
}

/// The items that fit best, at most so many, best first. The rank is, by meaning alone, how alike they are; by both, the
/// sum of what the places count.
pub(super) async fn best(
    tx: &mut TenantTx,
    filter: &Filter<'_>,
    mode: Mode,
    meaning: Option<&Meaning>,
    most: usize,
) -> Result<Vec<Match>> {
    let meaning = meaning.ok_or_else(no_model)?;
    let near = store::nearest(tx, filter, meaning, NEAREST).await?;
    let mut best = if mode == Mode::Semantic {
        near.into_iter().map(|near| Match { rank: 1.0 - near.rank, ..near }).collect()
    } else {
        let mut words = store::matches(tx, filter, None, WINDOW).await?;
        words.sort_by(Match::order);
        fuse([words, near])
    };
    best.truncate(most);
    Ok(best)
}

fn no_model() -> Error {
    Problem::new("mode", "must be text: this deployment has no model of embeddings (EMBEDDING_PROVIDER)")
        .into()
}

/// One list out of several, each best first.
fn fuse(lists: impl IntoIterator<Item = Vec<Match>>) -> Vec<Match> {
    let mut scores: HashMap<(String, ItemUid), f32> = HashMap::new();
    for list in lists {
        for (place, found) in list.into_iter().enumerate() {
            *scores.entry((found.kind, found.uid)).or_default() += 1.0 / (DAMPING + 1.0 + place as f32);
        }
    }
    let mut fused: Vec<Match> =
        scores.into_iter().map(|((kind, uid), rank)| Match { kind, uid, rank }).collect();
    fused.sort_by(Match::order as fn(&Match, &Match) -> Ordering);
    fused
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_high_on_both_lists_is_first() {
        let found = |number: u128| Match {
            kind: "note".to_owned(),
            uid: ItemUid(Uuid::from_u128(number)),
            rank: 0.0,
        };
        let fused = fuse([vec![found(1), found(2), found(3)], vec![found(4), found(2)]]);
        let order: Vec<u128> = fused.iter().map(|found| found.uid.0.as_u128()).collect();
        assert_eq!(order, [2, 4, 1, 3]);
        assert!(fused[0].rank > fused[1].rank && fused[1].rank == fused[2].rank);
    }
}
