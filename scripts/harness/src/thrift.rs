//! Scripted sessions that tell what token thrift saves [M6]: the same turns with all of it off and all of it on, and what a
//! provider would bill for their input.

use std::sync::Arc;

use anyhow::{Context, Result};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use shared::{
    cache::{self, KnownAs, Scope, ToolCache},
    tools::{Effect, OutsideCall, OutsideTool, ToolDef, ToolOutput, ToolRun},
};

use crate::{
    client::Chat,
    fakes::model::billing::{Bill, PromptCache},
    stack::{Builder, Stack},
};

/// Tools of connected servers beside the one that is used.
const OTHER_TOOLS: usize = 120;

/// A kind of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// Twelve turns that read the same two pages each.
    SamePages,
    /// Twelve turns that read one of four pages in turn.
    FourPages,
    /// Thirty turns of talk, with a page read now and then.
    LongTalk,
}

impl Session {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::SamePages, Self::FourPages, Self::LongTalk];

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SamePages => "12 turns read the same two pages",
            Self::FourPages => "12 turns read one of four pages in turn",
            Self::LongTalk => "30 turns of talk, a page every third",
        }
    }

    fn turns(self) -> Vec<String> {
        let read = |page: usize| format!("[[tool:wiki__get_page {}]]", json!({"id": format!("page-{page}")}));
        let talk =
            "We should weigh what that means for the plan of the next quarter, and for whom. ".repeat(12);
        match self {
            Self::SamePages => {
                (0..12).map(|n| format!("Question {n}. {}{} [[tokens:60]]", read(1), read(2))).collect()
            }
            Self::FourPages => {
                (0..12).map(|n| format!("Question {n}. {} [[tokens:60]]", read(n % 4))).collect()
            }
            Self::LongTalk => (0..30)
                .map(|n| {
                    let reading = if n % 3 == 0 { read(n % 2) } else { String::new() };
                    format!("Thought {n}. {talk} {reading} [[tokens:150]]")
                })
                .collect(),
        }
    }
}

/// A stack that the sessions run on, with thrift on or off.
#[must_use]
pub fn stack(on: bool) -> Builder {
    Stack::builder().in_process().tools(Arc::new(tools)).env("TOKEN_THRIFT", if on { "on" } else { "off" })
}

/// Runs a session; answers the bill of its model calls, those of its summaries among them.
///
/// # Errors
/// A turn does not succeed.
pub async fn run(stack: &Stack, session: Session, on: bool) -> Result<Bill> {
    let before = stack.model().received().len();
    let client = stack.client(0);
    let mut token: Option<String> = None;
    for (number, text) in session.turns().into_iter().enumerate() {
        // A model that is not offered the tool has to find it first.
        let searches = on && number == 0;
        let search =
            if searches { "[[tool:search_tools {\"query\":\"read a wiki page\"}]] [[next]] " } else { "" };
        let mut chat = Chat::new(&format!("{search}{text}")).wait(20);
        if let Some(token) = &token {
            chat = chat.session(token);
        }
        let posted = client.accept(&chat).await?;
        let job = client.until(&posted.job, &["succeeded"], std::time::Duration::from_secs(20)).await?;
        anyhow::ensure!(job["status"] == "succeeded", "{job}");
        token = Some(posted.session);
        if on {
            stack.database.summaries_settled().await.context("a summary is not written")?;
        }
    }
    let (mut cache, mut bill) = (PromptCache::default(), Bill::default());
    for request in stack.model().received().iter().skip(before) {
        cache.bill(request, &mut bill);
    }
    Ok(bill)
}

/// A wiki whose pages are some six kilobytes, and a hundred tools that nobody calls.
fn tools(cache: &ToolCache) -> Vec<ToolDef> {
    let known_as = KnownAs {
        server: "wiki".to_owned(),
        tool: "wiki.get_page".to_owned(),
        version: "1".to_owned(),
        effect: Effect::Read,
        scope: Scope::User,
        rules: Arc::default(),
    };
    let wiki: Arc<dyn OutsideTool> = Arc::new(Wiki);
    let mut tools = vec![definition(
        "wiki.get_page".to_owned(),
        "Reads a page of the wiki by its id.",
        cache::through(cache.clone(), known_as, Arc::clone(&wiki)),
    )];
    tools.extend((0..OTHER_TOOLS).map(|n| {
        let name = format!("crm{}.{}_record_{n}", n % 6, ["find", "update", "merge", "export"][n % 4]);
        let what = "Works on the records of a customer relations system: takes the record's id, the fields that matter and \
                    how many of them, and answers with the records in their order, oldest first, with what was changed.";
        definition(name, what, Arc::clone(&wiki))
    }));
    tools
}

fn definition(name: String, description: &str, tool: Arc<dyn OutsideTool>) -> ToolDef {
    ToolDef {
        name: name.into(),
        description: description.to_owned().into(),
        effect: Effect::Read,
        input: json!({
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The id, as another tool told it."},
                "fields": {"type": "array", "items": {"type": "string"}, "description": "Names of fields to answer with."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 100, "description": "How many at most."},
            },
            "required": ["id"],
        }),
        output: None,
        resource: None,
        run: ToolRun::Outside(tool),
    }
}

struct Wiki;

impl OutsideTool for Wiki {
    fn call<'a>(&'a self, call: OutsideCall<'a>) -> BoxFuture<'a, shared::Result<ToolOutput>> {
        Box::pin(async move {
            let id = call.arguments["id"].as_str().unwrap_or("none");
            let text = format!("{id} says that the plan stands and who does what until when. ").repeat(90);
            let page: Value =
                json!({"object": "page", "id": id, "archived": false, "icon": null, "text": text});
            ToolOutput::json(&page)
        })
    }
}
