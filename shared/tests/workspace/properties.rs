//! Random sequences of operations agree with a small model in memory, and pages stay whole while others write.

use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Map, Value, json};
use shared::{
    Code,
    identity::{Actor, Role},
    ids::ItemUid,
    workspace::{
        Acted, EntityDef,
        items::{self, Item, ItemRef, ListQuery, Target},
    },
};

use crate::world::{World, object, suite};

/// Sequences that are tried for each entity, each by a person of its own.
const SEQUENCES: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    Get { pick: Pick, deleted: bool },
    Update(Pick, usize),
    Patch(Pick, usize),
    Delete(Pick),
    Archive(Pick),
    Process(Pick, prop::sample::Index),
    List { limit: i64, deleted: bool, archived: bool },
}

/// Which item, how it is named and which version the caller has seen.
#[derive(Debug, Clone)]
struct Pick {
    item: prop::sample::Index,
    by_id: bool,
    seen: Seen,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Nothing,
    Newest,
    Another,
}

fn pick() -> impl Strategy<Value = Pick> {
    let seen = prop_oneof![4 => Just(Seen::Nothing), 2 => Just(Seen::Newest), 1 => Just(Seen::Another)];
    (any::<prop::sample::Index>(), any::<bool>(), seen).prop_map(|(item, by_id, seen)| Pick {
        item,
        by_id,
        seen,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..100).prop_map(Step::Create),
        2 => (pick(), any::<bool>()).prop_map(|(pick, deleted)| Step::Get { pick, deleted }),
        2 => (pick(), 0_usize..100).prop_map(|(pick, number)| Step::Update(pick, number)),
        2 => (pick(), 0_usize..100).prop_map(|(pick, number)| Step::Patch(pick, number)),
        1 => pick().prop_map(Step::Delete),
        1 => pick().prop_map(Step::Archive),
        2 => (pick(), any::<prop::sample::Index>()).prop_map(|(pick, action)| Step::Process(pick, action)),
        2 => (1_i64..5, any::<bool>(), any::<bool>())
            .prop_map(|(limit, deleted, archived)| Step::List { limit, deleted, archived }),
    ]
}

/// What the model knows of an item.
#[derive(Debug, Clone)]
struct Known {
    uid: ItemUid,
    id: i64,
    version: i64,
    is_deleted: bool,
    payload: Map<String, Value>,
}

struct Model<'a> {
    world: &'a World,
    actor: &'a Actor,
    def: &'static EntityDef,
    /// Oldest first.
    known: Vec<Known>,
}

/// What the model expects of a write on one item.
enum Expected {
    Refused(Code),
    Unchanged,
    Changed { payload: Option<Map<String, Value>>, is_deleted: bool },
}

impl Model<'_> {
    fn archived(&self, known: &Known) -> bool {
        self.def.projection(known.payload.clone()).unwrap().archived
    }

    fn prepared(&self, payload: Value) -> Map<String, Value> {
        let prepared = self.def.prepare(object(payload), self.actor).unwrap();
        serde_json::from_str(&prepared.text).unwrap()
    }

    /// The item that is picked, and how a call names it; before anything is made, one that there is not.
    fn target(&self, pick: &Pick) -> (Option<usize>, Target) {
        if self.known.is_empty() {
            return (None, Target { item: ItemRef::Id(1_000_000), if_match: None });
        }
        let index = pick.item.index(self.known.len());
        let known = &self.known[index];
        let if_match = match pick.seen {
            Seen::Nothing => None,
            Seen::Newest => Some(known.version),
            Seen::Another => Some(known.version + 1),
        };
        let item = if pick.by_id { ItemRef::Id(known.id) } else { ItemRef::Uid(known.uid) };
        (Some(index), Target { item, if_match })
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Create(number) => {
                let payload = self.world.sample(self.actor, self.def, *number).await;
                let item = self.world.make(self.actor, self.def, payload.clone()).await;
                let (uid, id) = (item.uid, item.id);
                let known = Known { uid, id, version: 1, is_deleted: false, payload: self.prepared(payload) };
                same(&item, &known)?;
                self.known.push(known);
                Ok(())
            }
            Step::Get { pick, deleted } => {
                let (index, target) = self.target(pick);
                let mut tx = self.world.begin(self.actor).await;
                let got = if *deleted {
                    items::get_even_deleted(&mut tx, self.def, target.item).await
                } else {
                    items::get(&mut tx, self.def, target.item).await
                };
                match (got, index.map(|index| &self.known[index])) {
                    (Ok(item), Some(known)) if *deleted || !known.is_deleted => same(&item, known),
                    (Err(error), None) if error.code == Code::NotFound => Ok(()),
                    (Err(error), Some(known))
                        if error.code == Code::Gone && known.is_deleted && !*deleted =>
                    {
                        Ok(())
                    }
                    (got, known) => Err(format!("{got:?} of {known:?}")),
                }
            }
            Step::List { limit, deleted, archived } => self.list(*limit, *deleted, *archived).await,
            write => self.write(write).await,
        }
    }

    async fn write(&mut self, step: &Step) -> Result<(), String> {
        let (Step::Update(pick, _)
        | Step::Patch(pick, _)
        | Step::Delete(pick)
        | Step::Archive(pick)
        | Step::Process(pick, _)) = step
        else {
            return Err(format!("{step:?} is no write"));
        };
        let def = self.def;
        let (index, target) = self.target(pick);
        let sample = match step {
            Step::Update(_, number) => self.world.sample(self.actor, def, *number).await,
            _ => json!({}),
        };
        let action = match step {
            Step::Process(_, action) => *action.get(def.actions),
            _ => "",
        };
        let mut tx = self.world.begin(self.actor).await;
        let outcome = match step {
            Step::Update(..) => items::update(&mut tx, def, target, object(sample.clone())).await,
            Step::Patch(_, number) => {
                items::patch(&mut tx, def, target, object(json!({"mood": number}))).await
            }
            Step::Delete(_) => items::delete(&mut tx, def, target).await,
            Step::Archive(_) => items::archive(&mut tx, def, target).await,
            _ => items::process(&mut tx, def, target, action).await,
        };
        tx.commit().await.unwrap();

        let expected = match index.map(|index| &self.known[index]) {
            None => Expected::Refused(Code::NotFound),
            Some(known) if known.is_deleted => Expected::Refused(Code::Gone),
            Some(known) if target.if_match.is_some_and(|seen| seen != known.version) => {
                Expected::Refused(Code::Precondition)
            }
            Some(known) => {
                let changed = |payload| Expected::Changed { payload: Some(payload), is_deleted: false };
                let acted = |acted| match acted {
                    // Some actions write the time.
                    Acted::Changed(_) => Expected::Changed { payload: None, is_deleted: false },
                    Acted::AlreadySo => Expected::Unchanged,
                    Acted::Refused(_) => Expected::Refused(Code::Conflict),
                };
                match step {
                    Step::Update(..) => changed(self.prepared(sample)),
                    Step::Patch(_, number) => {
                        let mut payload = known.payload.clone();
                        payload.insert("mood".to_owned(), json!(number));
                        changed(payload)
                    }
                    Step::Delete(_) => {
                        Expected::Changed { payload: Some(known.payload.clone()), is_deleted: true }
                    }
                    Step::Archive(_) => acted(def.archive(known.payload.clone()).unwrap()),
                    _ => acted(def.act(known.payload.clone(), action).unwrap()),
                }
            }
        };
        match (expected, outcome, index) {
            (Expected::Refused(code), Err(error), _) if error.code == code => Ok(()),
            (Expected::Unchanged, Ok(item), Some(index)) => same(&item, &self.known[index]),
            (Expected::Changed { payload, is_deleted }, Ok(item), Some(index)) => {
                let known = &mut self.known[index];
                known.version += 1;
                known.is_deleted = is_deleted;
                known.payload = payload.unwrap_or_else(|| item.payload.clone());
                same(&item, known)
            }
            (_, outcome, _) => Err(format!("{step:?} answered {outcome:?}")),
        }
    }

    async fn list(&self, limit: i64, deleted: bool, archived: bool) -> Result<(), String> {
        let expected: Vec<&Known> = self
            .known
            .iter()
            .rev()
            .filter(|known| (deleted || !known.is_deleted) && (archived || !self.archived(known)))
            .collect();
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let query = ListQuery {
                limit: Some(limit),
                cursor,
                include_deleted: deleted,
                include_archived: archived,
                ..ListQuery::default()
            };
            let mut tx = self.world.begin(self.actor).await;
            let page = items::list(&mut tx, self.def, &query).await.unwrap();
            listed.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        if listed.len() != expected.len() {
            return Err(format!("{} items are listed, {} expected", listed.len(), expected.len()));
        }
        listed.iter().zip(expected).try_for_each(|(item, known)| same(item, known))
    }
}

fn same(item: &Item, known: &Known) -> Result<(), String> {
    let seen = (item.uid, item.id, item.version, item.deleted_at.is_some(), &item.payload);
    let expected = (known.uid, known.id, known.version, known.is_deleted, &known.payload);
    if seen == expected { Ok(()) } else { Err(format!("{seen:?} instead of {expected:?}")) }
}

async fn try_steps(world: &World, def: &'static EntityDef, steps: &[Step]) -> Result<(), String> {
    // What somebody else has done before shows nowhere.
    let actor = world.somebody(Role::Member).await;
    let mut model = Model { world, actor: &actor, def, known: Vec::new() };
    for step in steps {
        model.step(step).await?;
    }
    Ok(())
}

async fn operations_agree_with_a_model(world: World, entities: &'static [EntityDef]) {
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(step(), 1..40);
    for def in entities {
        for _ in 0..SEQUENCES {
            let mut tree = strategy.new_tree(&mut runner).unwrap();
            let Err(mut problem) = try_steps(&world, def, &tree.current()).await else { continue };
            // The shortest sequence that still goes wrong says most.
            let mut steps = tree.current();
            let mut more = tree.simplify();
            for _ in 0..200 {
                if !more {
                    break;
                }
                more = match try_steps(&world, def, &tree.current()).await {
                    Err(other) => {
                        (problem, steps) = (other, tree.current());
                        tree.simplify()
                    }
                    Ok(()) => tree.complicate(),
                };
            }
            panic!("{} disagrees with the model: {problem}\nafter {steps:#?}", def.kind);
        }
    }
}

async fn pages_are_whole_while_others_write(world: World, entities: &'static [EntityDef]) {
    for def in entities {
        let mut stable = Vec::new();
        let mut doomed = Vec::new();
        for number in 0..60 {
            let made = world.make_sample(&world.ann, def, number).await.uid;
            if number % 3 == 0 { doomed.push(made) } else { stable.push(made) }
        }
        let writing = async {
            for (number, uid) in doomed.iter().enumerate() {
                world.make_sample(&world.ann, def, number).await;
                let mut tx = world.begin(&world.ann).await;
                let target = ItemRef::Uid(stable[number]).into();
                items::patch(&mut tx, def, target, object(json!({"mood": number}))).await.unwrap();
                items::delete(&mut tx, def, ItemRef::Uid(*uid).into()).await.unwrap();
                tx.commit().await.unwrap();
            }
        };
        let reading = async {
            for limit in [1, 3, 7] {
                let (mut seen, mut cursor) = (Vec::new(), None);
                loop {
                    let query = ListQuery { limit: Some(limit), cursor, ..ListQuery::default() };
                    let mut tx = world.begin(&world.ann).await;
                    let page = items::list(&mut tx, def, &query).await.unwrap();
                    seen.extend(page.items.iter().map(|item| item.uid));
                    cursor = page.next_cursor;
                    if cursor.is_none() {
                        break;
                    }
                }
                assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "{} twice, or out of order", def.kind);
                assert!(stable.iter().all(|uid| seen.contains(uid)), "{} skipped", def.kind);
            }
        };
        futures::future::join(writing, reading).await;
    }
}

suite!(operations_agree_with_a_model pages_are_whole_while_others_write);
