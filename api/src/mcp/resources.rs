//! Resources: what a person picks out of their workspace to show to a model. Notes and chats, as text that reads well,
//! under `alfred://note/{id}` and `alfred://chat/{id}`, where the id is the short one or the uid.

use std::fmt::Write as _;

use rmcp::{
    ErrorData,
    model::{
        CacheScope, CompletionInfo, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult,
        Resource, ResourceContents, ResourceTemplate,
    },
};
use serde_json::{Map, Value};
use shared::{
    error::{Error, Invalid, Result},
    workspace::{
        EntityDef, definition,
        items::{self, Item, ItemRef, ListQuery},
    },
};

use super::{problem, server::Call};

const SCHEME: &str = "alfred://";
const MARKDOWN: &str = "text/markdown";
/// Resources on a page of the list.
const PAGE: i64 = 100;
/// The parts of an item that its text has at most, the newest ones.
const PARTS: i64 = 200;
/// The bytes of its text that parts may take together; what does not fit is left out, oldest first.
const PARTS_LONGEST: usize = 128 << 10;

/// A kind of item that can be shown.
struct Shown {
    kind: &'static str,
    template: &'static str,
    title: &'static str,
    description: &'static str,
    /// The text of the item itself.
    text: fn(&Item) -> String,
    /// What it is made of, if its text goes on with that.
    parts: Option<Parts>,
}

/// Items that another one is made of.
struct Parts {
    kind: &'static str,
    /// The text of one.
    text: fn(&Item) -> String,
    /// Where those are that are left out.
    others: &'static str,
}

/// In the order of the list.
const SHOWN: &[Shown] = &[
    Shown {
        kind: "note",
        template: "alfred://note/{id}",
        title: "A note",
        description: "One of the user's notes, by its id, as Markdown.",
        text: note,
        parts: None,
    },
    Shown {
        kind: "chat",
        template: "alfred://chat/{id}",
        title: "A chat",
        description: "One of the user's chats, by its id, as Markdown: its newest messages, in the order in which they \
                      were said.",
        text: chat,
        parts: Some(Parts { kind: "chat_message", text: message, others: "list_chat_messages has them" }),
    },
];

impl Shown {
    fn def(&self) -> Result<&'static EntityDef> {
        def(self.kind)
    }
}

fn def(kind: &str) -> Result<&'static EntityDef> {
    definition(kind).ok_or_else(|| Error::internal(format!("there is no entity {kind}")))
}

/// The kinds that can be asked for by id.
pub(super) fn templates() -> ListResourceTemplatesResult {
    let template = |shown: &Shown| {
        ResourceTemplate::new(shown.template, shown.kind)
            .with_title(shown.title)
            .with_description(shown.description)
            .with_mime_type(MARKDOWN)
    };
    let mut list = ListResourceTemplatesResult::with_all_items(SHOWN.iter().map(template).collect());
    list.cache_scope = Some(CacheScope::Private);
    list
}

/// A page of what the caller has, newest first within each kind.
///
/// # Errors
/// A cursor that is not ours; what is ours to mend.
pub(super) async fn list(call: &Call, cursor: Option<&str>) -> Result<ListResourcesResult, ErrorData> {
    let page = page(call, cursor).await;
    page.map_err(|error| problem::data(&error, &call.request_id))
}

/// The cursor names a kind and a place in its list, so that a page never mixes two orders.
async fn page(call: &Call, cursor: Option<&str>) -> Result<ListResourcesResult> {
    let (mut kind, mut after) = match cursor {
        None => (0, None),
        Some(cursor) => {
            let (kind, rest) = cursor.split_once('.').unwrap_or((cursor, ""));
            let place = SHOWN.iter().position(|shown| shown.kind == kind).ok_or_else(no_cursor)?;
            (place, Some(rest.to_owned()).filter(|rest| !rest.is_empty()))
        }
    };
    let mut tx = call.app.tenants.begin(&call.actor).await?;
    let mut list =
        ListResourcesResult { cache_scope: Some(CacheScope::Private), ..ListResourcesResult::default() };
    while let Some(shown) = SHOWN.get(kind) {
        let left = PAGE - i64::try_from(list.resources.len()).unwrap_or(PAGE);
        if left <= 0 {
            list.next_cursor = Some(format!("{}.", shown.kind));
            break;
        }
        let query = ListQuery { limit: Some(left), cursor: after.take(), ..ListQuery::default() };
        let found = items::list(&mut tx, shown.def()?, &query).await?;
        list.resources.extend(found.items.iter().map(|item| resource(shown, item)));
        if let Some(next) = found.next_cursor {
            list.next_cursor = Some(format!("{}.{next}", shown.kind));
            break;
        }
        kind += 1;
    }
    Ok(list)
}

/// The text of one.
///
/// # Errors
/// What is not there, or not the caller's; what is ours to mend.
pub(super) async fn read(call: &Call, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let read = contents(call, uri).await;
    let contents = read.map_err(|error| {
        let mut data = problem::data(&error, &call.request_id);
        if let Some(Value::Object(data)) = &mut data.data {
            data.insert("uri".to_owned(), uri.into());
        }
        data
    })?;
    Ok(ReadResourceResult::new(vec![contents]))
}

async fn contents(call: &Call, uri: &str) -> Result<ResourceContents> {
    let (shown, id) = parse(uri).ok_or_else(|| Error::not_found(format!("there is no resource {uri}")))?;
    let mut tx = call.app.tenants.begin(&call.actor).await?;
    let item = items::get(&mut tx, shown.def()?, id).await?;
    let mut markdown = (shown.text)(&item);
    if let Some(parts) = &shown.parts {
        let query = ListQuery { limit: Some(PARTS), parent: Some(item.uid), ..ListQuery::default() };
        let found = items::list(&mut tx, def(parts.kind)?, &query).await?;
        append(&mut markdown, parts, &found.items, found.next_cursor.is_some());
    }
    Ok(ResourceContents::text(markdown, uri).with_mime_type(MARKDOWN))
}

/// Writes the newest parts that fit, oldest first; `newest_first` is what there is of them, and `more` says that there
/// are older ones.
fn append(markdown: &mut String, parts: &Parts, newest_first: &[Item], more: bool) {
    let mut room = PARTS_LONGEST;
    let mut texts = Vec::with_capacity(newest_first.len());
    for part in newest_first {
        let mut text = (parts.text)(part);
        if text.len() > room {
            if !texts.is_empty() {
                break;
            }
            // The newest one alone is too long: its beginning is better than nothing.
            text.truncate(text.floor_char_boundary(room));
            text.push('…');
        }
        room = room.saturating_sub(text.len());
        texts.push(text);
    }
    if more || texts.len() < newest_first.len() {
        // Writing to a String cannot fail.
        let _ = write!(markdown, "_The newest {} only; {}._\n\n", texts.len(), parts.others);
    }
    texts.reverse();
    markdown.push_str(&texts.join("\n\n"));
}

fn parse(uri: &str) -> Option<(&'static Shown, ItemRef)> {
    let (kind, id) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    let shown = SHOWN.iter().find(|shown| shown.kind == kind)?;
    Some((shown, ItemRef::parse(id)?))
}

/// Ids of a kind that begin as the user has begun to write, newest first.
///
/// # Errors
/// What is ours to mend.
pub(super) async fn complete(call: &Call, template: &str, begun: &str) -> Result<CompletionInfo, ErrorData> {
    let Some(shown) = SHOWN.iter().find(|shown| shown.template == template) else {
        return Err(ErrorData::invalid_params(format!("there is no template {template}"), None));
    };
    ids(call, shown.kind, begun).await
}

/// The same, for whoever asks for an item of this kind.
///
/// # Errors
/// What is ours to mend.
pub(super) async fn ids(call: &Call, kind: &str, begun: &str) -> Result<CompletionInfo, ErrorData> {
    let found = async {
        let Some(def) = definition(kind) else { return Ok(Vec::new()) };
        let mut tx = call.app.tenants.begin(&call.actor).await?;
        let query = ListQuery { limit: Some(items::LARGEST_PAGE), ..ListQuery::default() };
        Ok(items::list(&mut tx, def, &query).await?.items)
    };
    let found: Result<Vec<Item>> = found.await;
    let items = found.map_err(|error| problem::data(&error, &call.request_id))?;
    let fitting = items.iter().map(|item| item.id.to_string()).filter(|id| id.starts_with(begun));
    let mut values: Vec<String> = fitting.collect();
    let more = values.len() > CompletionInfo::MAX_VALUES;
    values.truncate(CompletionInfo::MAX_VALUES);
    let mut info = CompletionInfo::default();
    info.values = values;
    info.has_more = Some(more);
    Ok(info)
}

fn resource(shown: &Shown, item: &Item) -> Resource {
    let name = title(&item.payload).unwrap_or_else(|| format!("{} {}", shown.kind, item.id));
    let resource =
        Resource::new(format!("{SCHEME}{}/{}", shown.kind, item.id), format!("{}-{}", shown.kind, item.id))
            .with_title(name)
            .with_mime_type(MARKDOWN);
    match text(&item.payload, "description") {
        Some(description) => resource.with_description(description),
        None => resource,
    }
}

fn title(payload: &Map<String, Value>) -> Option<String> {
    text(payload, "title").map(str::to_owned)
}

fn text<'a>(payload: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    payload.get(field).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
}

fn note(item: &Item) -> String {
    let mut markdown = String::new();
    if let Some(title) = title(&item.payload) {
        // Writing to a String cannot fail.
        let _ = write!(markdown, "# {title}\n\n");
    }
    markdown.push_str(text(&item.payload, "content").unwrap_or_default());
    markdown
}

fn chat(item: &Item) -> String {
    let title = title(&item.payload).unwrap_or_else(|| format!("Chat {}", item.id));
    let mut markdown = format!("# {title}\n\n");
    if let Some(description) = text(&item.payload, "description") {
        // Writing to a String cannot fail.
        let _ = write!(markdown, "{description}\n\n");
    }
    markdown
}

/// Who said it and when, what was said, and which tools were called.
fn message(item: &Item) -> String {
    let role = text(&item.payload, "role").unwrap_or("user");
    let mut markdown = format!("**{role}** ({}):", item.created_at.format("%Y-%m-%d %H:%M UTC"));
    if let Some(content) = text(&item.payload, "content") {
        let _ = write!(markdown, " {content}");
    }
    let calls = item.payload.get("toolCalls").and_then(Value::as_array);
    for call in calls.into_iter().flatten() {
        let tool = call.get("tool").and_then(Value::as_str).unwrap_or("a tool");
        let _ = write!(markdown, "\n- called `{tool}` with `{}`", call.get("args").unwrap_or(&Value::Null));
    }
    markdown
}

fn no_cursor() -> Error {
    Error::invalid(Invalid::Unreadable, "cursor must be a nextCursor of an earlier page, unchanged")
}
