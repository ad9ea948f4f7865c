//! Phrasings and what they are read as.

use super::super::{intent::read, target::read as target};
use super::*;

/// A wish in short, for a table.
fn short(intent: &Intent) -> String {
    let what = |target: &Target| match &target.which {
        Which::Id(id) => format!("#{id}"),
        Which::Number(number) => format!("no {number}"),
        Which::Place(place) => format!("place {place}"),
        Which::LastPlace => "last".to_owned(),
        Which::It => "it".to_owned(),
        Which::All(filter) => format!("all {}", filter.as_str()),
        Which::Named(text) => text.clone(),
    };
    let due = |due: &Option<NaiveDate>| due.map(|due| format!(" @{due}")).unwrap_or_default();
    match intent {
        Intent::AddTask { title, description, due: day } => {
            let more = description.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
            format!("add {title}{more}{}", due(day))
        }
        Intent::ListTasks(filter) => format!("list {}", filter.as_str()),
        Intent::Complete(target) => format!("complete {}", what(target)),
        Intent::Reopen(target) => format!("reopen {}", what(target)),
        Intent::Rename { target, title } => format!("rename {} = {title}", what(target)),
        Intent::Describe { target, text } => format!("describe {} = {text}", what(target)),
        Intent::Postpone { target, due } => format!("postpone {} @{due}", what(target)),
        Intent::Delete(target) => format!("delete {}", what(target)),
        Intent::CreateNote { title, content } => format!("note {title}: {content}"),
        Intent::ListNotes => "notes".to_owned(),
        Intent::ReadNote(target) => format!("read {}", what(target)),
        Intent::AppendNote { target, text } => format!("append {} = {text}", what(target)),
        Intent::RewriteNote { target, text } => format!("rewrite {} = {text}", what(target)),
        Intent::Search { text, place } => format!("search {text} @{place}"),
        Intent::Read { text, place } => format!("fetch {text} @{place}"),
        Intent::Choose(target) => format!("choose {}", what(target)),
        Intent::Greeting => "hi".to_owned(),
        Intent::Thanks => "thanks".to_owned(),
        Intent::About => "about".to_owned(),
        Intent::Unknown => "?".to_owned(),
    }
}

/// Message, then the wishes it holds.
const TABLE: &[(&str, &[&str])] = &[
    // Adding.
    ("add a task to buy milk tomorrow", &["add Buy milk @2026-11-07"]),
    ("Please add a task to buy milk tomorrow.", &["add Buy milk @2026-11-07"]),
    ("Can you add \"Call the bank\" to my list?", &["add Call the bank"]),
    ("add task: water the plants", &["add Water the plants"]),
    ("create a new task called Renew passport", &["add Renew passport"]),
    ("new task: pay rent by the 1st", &["add Pay rent @2026-12-01"]),
    ("todo: fix the bike", &["add Fix the bike"]),
    ("remind me to call mom on sunday", &["add Call mom @2026-11-08"]),
    ("remind me tomorrow to call mom", &["add Call mom @2026-11-07"]),
    ("Remind me about the dentist next monday", &["add The dentist @2026-11-09"]),
    ("don't forget to feed the cat", &["add Feed the cat"]),
    ("remember to feed the cat", &["add Feed the cat"]),
    ("I need to buy milk and call mom", &["add Buy milk and call mom"]),
    ("I have to finish the report by friday", &["add Finish the report @2026-11-13"]),
    ("put buy bread on my to-do list", &["add Buy bread"]),
    ("add buy bread", &["add Buy bread"]),
    ("add milk, bread and eggs to my shopping list", &["add Milk", "add Bread", "add Eggs"]),
    ("Add these tasks: buy milk, call mom, pay rent", &["add Buy milk", "add Call mom", "add Pay rent"]),
    ("add tasks:\n- buy milk\n- call mom tomorrow\n", &["add Buy milk", "add Call mom @2026-11-07"]),
    ("add a task to buy milk with description two liters", &["add Buy milk (Two liters)"]),
    ("schedule a reminder for next week to water the plants", &["add Water the plants @2026-11-13"]),
    // Listing.
    ("what is left to do?", &["list pending"]),
    ("What's left?", &["list pending"]),
    ("what's on my list", &["list pending"]),
    ("What do I have to do today?", &["list pending"]),
    ("show my tasks", &["list pending"]),
    ("list tasks", &["list pending"]),
    ("show me all my tasks", &["list all"]),
    ("show my done tasks", &["list completed"]),
    ("what have I done?", &["list completed"]),
    ("which tasks are completed?", &["list completed"]),
    ("what tasks are not done yet?", &["list pending"]),
    ("do I have any open tasks?", &["list pending"]),
    ("how many tasks are left", &["list pending"]),
    ("is there anything left to do?", &["list pending"]),
    ("my tasks", &["list pending"]),
    ("tell me what's still pending", &["list pending"]),
    // Completing.
    ("complete the milk task", &["complete the milk task"]),
    ("mark task 3 as done", &["complete #3"]),
    ("mark the milk task done", &["complete the milk task"]),
    ("I've bought the milk", &["complete bought the milk"]),
    ("I bought the milk", &["complete bought the milk"]),
    ("i already paid the rent!", &["complete paid the rent"]),
    ("I'm done with the report", &["complete the report"]),
    ("the milk task is done", &["complete the milk task"]),
    ("finish task #4", &["complete #4"]),
    ("check off the bread task", &["complete the bread task"]),
    ("tick the first one off my list", &["complete place 0"]),
    ("complete it", &["complete it"]),
    ("complete the second one", &["complete place 1"]),
    ("complete tasks 2 and 3", &["complete #2", "complete #3"]),
    ("mark everything as done", &["complete all all"]),
    ("done with #5", &["complete #5"]),
    ("reopen task 2", &["reopen #2"]),
    ("mark task 2 as not done", &["reopen #2"]),
    // Changing.
    ("rename task 2 to Buy oat milk", &["rename #2 = Buy oat milk"]),
    ("change the milk task to buy oat milk", &["rename milk task = Buy oat milk"]),
    ("update the title of task 2 to buy oat milk", &["rename #2 = Buy oat milk"]),
    ("set the description of task 2 to two liters", &["describe #2 = Two liters"]),
    ("move the milk task to friday", &["postpone milk task @2026-11-13"]),
    ("change the due date of task 2 to 2026-12-24", &["postpone #2 @2026-12-24"]),
    // Deleting.
    ("delete the second one", &["delete place 1"]),
    ("delete task 7", &["delete #7"]),
    ("remove the milk task", &["delete the milk task"]),
    ("take milk off my list", &["complete milk"]),
    ("remove milk from my list", &["delete milk"]),
    ("get rid of the last one", &["delete last"]),
    ("get rid of the milk task", &["delete the milk task"]),
    ("what is due tomorrow?", &["list pending"]),
    ("how many tasks are done?", &["list completed"]),
    ("check my tasks", &["list pending"]),
    ("delete all completed tasks", &["delete all completed"]),
    ("delete my note about wifi", &["delete my note about wifi"]),
    // Notes.
    (
        "note: the wifi password is hunter2",
        &["note The wifi password is hunter2: The wifi password is hunter2"],
    ),
    (
        "Note that I parked on level 3. Near the lift.",
        &["note I parked on level 3: I parked on level 3. Near the lift"],
    ),
    (
        "take a note: buy paint and add a task to it",
        &["note Buy paint and add a task to it: Buy paint and add a task to it"],
    ),
    ("create a note about wifi: password is hunter2", &["note Wifi: Password is hunter2"]),
    ("make a note called Ideas saying build a boat", &["note Ideas: Build a boat"]),
    ("remember that Anna likes tea", &["note Anna likes tea: Anna likes tea"]),
    ("jot down the code 1234", &["note The code 1234: The code 1234"]),
    ("list my notes", &["notes"]),
    ("what notes do I have?", &["notes"]),
    ("read my note about wifi", &["read my note about wifi"]),
    ("what does my note about wifi say?", &["read my note about wifi"]),
    ("show me note 3", &["read #3"]),
    ("read it", &["fetch it @"]),
    ("find my note about wifi", &["read my note about wifi"]),
    ("add 'and cheese' to my note about shopping", &["append my note about shopping = and cheese"]),
    ("change the note about wifi to password is new", &["rewrite the note about wifi = password is new"]),
    ("rename note 3 to Network", &["rename #3 = Network"]),
    // Several at once.
    ("add a task to buy milk and complete the bread task", &["add Buy milk", "complete the bread task"]),
    (
        "complete the milk task and delete the bread task",
        &["complete the milk task", "delete the bread task"],
    ),
    ("add a task to buy milk, then show my tasks", &["add Buy milk", "list pending"]),
    ("I've bought the milk. What is left to do?", &["complete bought the milk", "list pending"]),
    (
        "add a task to call mom and remind me to buy milk tomorrow",
        &["add Call mom", "add Buy milk @2026-11-07"],
    ),
    ("Hi Alfred, what's left to do?", &["list pending"]),
    ("complete it and delete the second one", &["complete it", "delete place 1"]),
    ("add a task to write the report and send it to Bob", &["add Write the report and send it to Bob"]),
    // Connected servers.
    ("search notion for roadmap", &["search roadmap @notion"]),
    ("search for the roadmap in notion", &["search the roadmap @notion"]),
    ("read the page Roadmap from notion", &["fetch the page Roadmap @notion"]),
    ("read https://example.org/page", &["fetch https://example.org/page @"]),
    // Talk.
    ("hello", &["hi"]),
    ("thanks!", &["thanks"]),
    ("who are you?", &["about"]),
    ("what can you do?", &["about"]),
    ("are you an AI?", &["about"]),
    ("help", &["about"]),
    ("tell me a joke about the french revolution please", &["?"]),
    ("#3", &["choose #3"]),
    ("the first one", &["choose place 0"]),
];

#[test]
fn phrasings_are_understood() {
    let today: NaiveDate = "2026-11-06".parse().unwrap();
    let wrong: Vec<String> = TABLE
        .iter()
        .filter_map(|(message, expected)| {
            let found: Vec<String> = read(message, Some(today)).iter().map(short).collect();
            (found != *expected)
                .then(|| format!("{message:?}\n  expected {expected:?}\n  found    {found:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
}

#[test]
fn days_stay_in_the_title_when_today_is_unknown() {
    let found: Vec<String> = read("add a task to buy milk tomorrow", None).iter().map(short).collect();
    assert_eq!(found, ["add Buy milk tomorrow"]);
}

#[test]
fn any_text_is_read_without_harm() {
    for text in ["", " ", "?", "and", ", , ,", "add", "note:", "🥛", "complete", "\0", "a\u{0301} and \n\n;"]
    {
        assert!(!read(text, None).is_empty(), "{text:?}");
    }
    assert_eq!(target("🥛").which, Which::Named("🥛".to_owned()));
}
