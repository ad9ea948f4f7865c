//! What models cost, by the beginning of their names. Prices change; the table is what was published in early
//! November 2026 for standard requests. A model that is not in it costs 0, as does every model of an
//! OpenAI-compatible server and the offline one: budgets in money then never bite, budgets in tokens still do.

use super::{ModelId, Provider, Usage};

/// Prices in micro-dollars per million tokens: 1 000 000 is one dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A prompt token that the cache had no part in.
    pub input: i64,
    /// A token the model wrote.
    pub output: i64,
    /// A prompt token read from the cache.
    pub cache_read: i64,
    /// A prompt token written to the cache, for the shortest life on offer.
    pub cache_write: i64,
}

/// Thousandths of a dollar per million tokens, so that the table reads like a price list.
const fn price(input: i64, output: i64, cache_read: i64, cache_write: i64) -> Price {
    Price {
        input: input * 1000,
        output: output * 1000,
        cache_read: cache_read * 1000,
        cache_write: cache_write * 1000,
    }
}

/// Longest prefix wins. Sorted by name.
const ANTHROPIC: &[(&str, Price)] = &[
    ("claude-fable-5", price(10_000, 50_000, 1000, 12_500)),
    ("claude-fable-5-1", price(10_000, 50_000, 250, 12_500)),
    ("claude-haiku-4-5", price(1000, 5000, 100, 1250)),
    ("claude-haiku-5-5", price(100, 500, 10, 125)),
    ("claude-opus-4", price(15_000, 75_000, 1500, 18_750)),
    ("claude-opus-4-5", price(5000, 25_000, 500, 6250)),
    ("claude-opus-4-6", price(5000, 25_000, 500, 6250)),
    ("claude-opus-4-7", price(5000, 25_000, 500, 6250)),
    ("claude-opus-4-8", price(5000, 25_000, 500, 6250)),
    ("claude-opus-5", price(5000, 25_000, 500, 6250)),
    ("claude-opus-5-5", price(4000, 20_000, 200, 5000)),
    ("claude-sonnet-4", price(3000, 15_000, 300, 3750)),
    ("claude-sonnet-5", price(2000, 10_000, 200, 2500)),
    ("claude-sonnet-5-5", price(2000, 10_000, 100, 2500)),
];

/// Longest prefix wins. Sorted by name. Where no price of a cache write is published, it is that of any other input.
const OPENAI: &[(&str, Price)] = &[
    ("gpt-4.1", price(2000, 8000, 500, 2000)),
    ("gpt-4.1-mini", price(400, 1600, 100, 400)),
    ("gpt-4o", price(2500, 10_000, 1250, 2500)),
    ("gpt-4o-mini", price(150, 600, 75, 150)),
    ("gpt-5", price(1250, 10_000, 125, 1250)),
    ("gpt-5-mini", price(250, 2000, 25, 250)),
    ("gpt-5-nano", price(50, 400, 5, 50)),
    ("gpt-5.4", price(2500, 15_000, 250, 2500)),
    ("gpt-5.4-mini", price(750, 4500, 75, 750)),
    ("gpt-5.5", price(5000, 30_000, 500, 5000)),
    ("gpt-5.6-luna", price(200, 1200, 20, 200)),
    ("gpt-5.6-sol", price(4000, 20_000, 400, 4000)),
    ("gpt-5.6-terra", price(2000, 12_000, 200, 2000)),
    ("gpt-6-astra", price(10_000, 50_000, 1000, 10_000)),
    ("gpt-6-luna", price(100, 500, 10, 125)),
    ("gpt-6-sol", price(2000, 10_000, 200, 2500)),
    ("gpt-6.1-sol", price(2000, 10_000, 100, 2500)),
    ("gpt-6.1-terra", price(1000, 5000, 50, 1250)),
];

/// The price of a model, `None` when it is not known.
pub fn of(id: &ModelId) -> Option<Price> {
    let table = match id.provider {
        Provider::Anthropic => ANTHROPIC,
        Provider::OpenAi => OPENAI,
        Provider::OpenAiCompatible | Provider::Offline => return None,
    };
    let fits = table.iter().filter(|(prefix, _)| id.name.starts_with(prefix));
    fits.max_by_key(|(prefix, _)| prefix.len()).map(|(_, price)| *price)
}

/// What a call cost in micro-dollars, rounded up; 0 for a model whose price is not known.
pub fn cost_micros(id: &ModelId, usage: &Usage) -> i64 {
    let Some(price) = of(id) else { return 0 };
    let plain = (usage.input - usage.cache_read - usage.cache_write).max(0);
    let parts = [
        (plain, price.input),
        (usage.output, price.output),
        (usage.cache_read, price.cache_read),
        (usage.cache_write, price.cache_write),
    ];
    let total: i128 = parts.iter().map(|(tokens, rate)| i128::from(*tokens) * i128::from(*rate)).sum();
    i64::try_from((total + 999_999) / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(id: &str, usage: Usage) -> i64 {
        cost_micros(&id.parse().unwrap(), &usage)
    }

    #[test]
    fn the_longest_prefix_prices_a_call() {
        let usage = Usage { input: 1_000_000, output: 100_000, cache_read: 900_000, cache_write: 50_000 };
        // 50 000 plain at 2 $, 100 000 out at 10 $, 900 000 read at 0.10 $, 50 000 written at 2.50 $ a million.
        assert_eq!(
            cost("anthropic:claude-sonnet-5-5-20260928", usage),
            100_000 + 1_000_000 + 90_000 + 125_000
        );
        assert_eq!(cost("openai:gpt-5-mini", Usage { input: 1, ..Usage::default() }), 1);
        assert_eq!(cost("anthropic:unheard-of", usage), 0);
        assert_eq!(cost("openai-compatible:gpt-5", usage), 0);
        assert_eq!(cost("offline:rules-1", usage), 0);
    }

    #[test]
    fn tables_are_sorted() {
        assert!(ANTHROPIC.is_sorted_by_key(|(name, _)| name));
        assert!(OPENAI.is_sorted_by_key(|(name, _)| name));
    }
}
