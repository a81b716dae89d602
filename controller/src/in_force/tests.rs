//! What is in force by what was seen, and what is said of it.

use jiff::Timestamp;
use serde_json::{Value, json};
use zsha_crds::HaCluster;

use super::*;
use crate::sim::operator::example;

fn stored(generation: u64, document: Value) -> String {
    let (applied_by, message) = ("admin@host".to_owned(), String::new());
    let format = format::FIRST;
    let spec =
        StoredSpec { generation, format, document, applied_by, applied_at: Timestamp::UNIX_EPOCH, message };
    serde_json::to_string(&spec).unwrap()
}

fn json_of(document: &HaCluster) -> Value {
    serde_json::to_value(document).unwrap()
}

fn document(generation: u64) -> Document {
    let example = example();
    Document::read(&stored(generation, json_of(&example)), example.name(), format::READS).unwrap()
}

fn good(generation: u64) -> Arc<Document> {
    Arc::new(document(generation))
}

fn bad(index: u64) -> Shown {
    Shown::Bad { index, why: "`spec.CPU` is missing".to_owned() }
}

fn invalid(recovered: bool) -> Option<SpecProblem> {
    Some(SpecProblem::Invalid { why: "`spec.CPU` is missing".to_owned(), recovered })
}

fn generation(in_force: &InForce) -> Option<u64> {
    in_force.document().map(|document| document.desired.generation)
}

fn after(seen: &[u64]) -> InForce {
    let mut in_force = InForce::default();
    for seen in seen {
        in_force.offer(good(*seen));
    }
    in_force
}

#[test]
fn a_document_of_a_lower_generation_changes_nothing_until_one_as_high_comes() {
    assert_eq!(generation(&after(&[1, 5, 3, 4])), Some(5));
    assert_eq!(generation(&after(&[5, 3, 5])), Some(5));
    assert_eq!(generation(&after(&[5, 3, 6])), Some(6));
    let older = Some(SpecProblem::Older { stored: 3, seen: 5 });
    assert_eq!(after(&[5, 3]).problem(Shown::Generation(3)), older);
    assert_eq!(after(&[5, 3, 6]).problem(Shown::Generation(6)), None);
}

#[test]
fn a_bad_document_and_a_deleted_one_leave_the_last_good_one_in_force() {
    let in_force = after(&[2]);
    assert_eq!(in_force.problem(bad(9)), invalid(false));
    assert_eq!(in_force.problem(Shown::Nothing), Some(SpecProblem::Gone));
    assert_eq!(in_force.needs_history(&bad(9)), None, "there is one to go on with");
    assert_eq!(generation(&in_force), Some(2));
}

#[test]
fn nothing_is_wrong_where_nothing_has_been_applied_or_read() {
    for shown in [Shown::NotReadYet, Shown::Nothing] {
        let mut in_force = InForce::default();
        in_force.recover(0, None);
        assert_eq!(in_force.needs_history(&shown), None);
        assert_eq!(in_force.problem(shown), None);
    }
}

/// A controller that is started after somebody has deleted the document goes on like those that knew it.
#[test]
fn where_there_is_no_document_the_history_is_looked_at_once() {
    let mut in_force = InForce::default();
    assert_eq!(in_force.needs_history(&Shown::NotReadYet), None);
    assert_eq!(in_force.needs_history(&Shown::Nothing), Some(0));
    in_force.recover(0, Some(document(4)));
    assert_eq!((generation(&in_force), in_force.needs_history(&Shown::Nothing)), (Some(4), None));
    assert_eq!(in_force.problem(Shown::Nothing), Some(SpecProblem::Gone));
}

#[test]
fn with_nothing_but_a_bad_document_the_history_is_looked_at_once_for_each() {
    let mut in_force = InForce::default();
    assert_eq!(in_force.needs_history(&bad(9)), Some(9));
    in_force.recover(9, None);
    assert_eq!(in_force.needs_history(&bad(9)), None, "there is nothing to be found");
    assert_eq!(in_force.problem(bad(9)), invalid(false));
    assert_eq!(in_force.needs_history(&bad(10)), Some(10));
    in_force.recover(10, Some(Arc::unwrap_or_clone(good(4))));
    assert_eq!((generation(&in_force), in_force.problem(bad(10))), (Some(4), invalid(true)));
    in_force.offer(good(5));
    assert_eq!((generation(&in_force), in_force.problem(bad(11))), (Some(5), invalid(false)));
}

#[test]
fn what_came_while_the_history_was_looked_at_is_not_replaced_by_it() {
    let mut in_force = after(&[6]);
    in_force.recover(9, Some(Arc::unwrap_or_clone(good(7))));
    assert_eq!((generation(&in_force), in_force.problem(bad(9))), (Some(6), invalid(false)));
}

#[test]
fn of_the_history_the_newest_record_that_can_be_used_is_taken() {
    let example = example();
    let record = |generation: u64, document: Value| Entry {
        key: format!("zsha/zsha/history/{generation}"),
        value: json!({
            "generation": generation, "document": document, "appliedBy": "admin@host",
            "appliedAt": "1970-01-01T00:00:00Z", "command": "apply"
        })
        .to_string(),
        modify_index: 100 - generation,
    };
    let garbage = Entry { key: "zsha/zsha/history/99".to_owned(), value: "{}".to_owned(), modify_index: 1 };
    let mut elsewhere = json_of(&example);
    elsewhere["metadata"]["name"] = "elsewhere".into();
    let history = [
        garbage,
        record(10, json_of(&example)),
        record(12, json!({"kind": "HaCluster"})),
        record(9, json_of(&example)),
        record(11, elsewhere),
    ];
    let newest_usable = |history: &[Entry]| newest_usable(history, example.name(), format::READS, |_| false);
    let newest = newest_usable(&history).unwrap();
    assert_eq!((newest.stored.generation, newest.desired.generation), (10, 10));
    assert!(newest_usable(&history[2..3]).is_none());
    assert!(newest_usable(&[]).is_none());
}

#[test]
fn what_is_wrong_with_a_document_is_told_with_what_to_do_and_what_is_in_force() {
    let example = example();
    let why = |value: &str| Document::read(value, example.name(), format::READS).unwrap_err();
    let mut elsewhere = json_of(&example);
    elsewhere["metadata"]["name"] = "elsewhere".into();
    let told = [
        why("garbage"),
        why(&stored(3, json!({"apiVersion": "zsha.io/v1", "kind": "HaCluster"}))),
        why(&stored(3, elsewhere)),
        SpecProblem::Invalid { why: "WHY".to_owned(), recovered: false }.told(Some(2)),
        SpecProblem::Invalid { why: "WHY".to_owned(), recovered: true }.told(Some(2)),
        SpecProblem::Invalid { why: "WHY".to_owned(), recovered: false }.told(None),
        SpecProblem::Older { stored: 3, seen: 5 }.told(Some(5)),
        SpecProblem::Gone.told(Some(5)),
        waits(false).told(Some(2)),
        waits(true).told(Some(2)),
        Document::read(&newer(3), example.name(), format::READS).unwrap_err(),
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_problem_is_news_when_it_begins_when_it_changes_and_when_it_is_over() {
    let (one, other) = (SpecProblem::Gone, SpecProblem::Older { stored: 1, seen: 2 });
    let told = |before: Option<&SpecProblem>, now: Option<&SpecProblem>| {
        news(before, now, Some(2)).map(|(reason, message)| {
            assert!(message.contains("generation 2") || message.contains("Generation 2"), "{message}");
            reason
        })
    };
    assert_eq!(told(None, None), None);
    assert_eq!(told(None, Some(&one)), Some(EventReason::SpecInvalid));
    assert_eq!(told(Some(&one), Some(&one)), None);
    assert_eq!(told(Some(&one), Some(&other)), Some(EventReason::SpecInvalid));
    assert_eq!(told(Some(&other), None), Some(EventReason::SpecValid));
}

fn waits(recovered: bool) -> SpecProblem {
    SpecProblem::Waits { generation: 3, what: "for n1, which runs 0.1.0".to_owned(), recovered }
}

/// A document of a format that this build does not read.
fn newer(generation: u64) -> String {
    let mut spec: Value = serde_json::from_str(&stored(generation, json_of(&example()))).unwrap();
    spec["format"] = (format::READS + 1).into();
    spec.to_string()
}

fn spec(generation: u64, format: u32) -> StoredSpec {
    let spec: StoredSpec = serde_json::from_str(&stored(generation, Value::Null)).unwrap();
    StoredSpec { format, ..spec }
}

/// Each of these nodes lives, and reads no higher than this; None: it has said nothing.
fn living(nodes: &[(&str, Option<u32>)], acted_on: u64) -> Others {
    let status = |node: &NodeName, reads: u32| {
        let status = json!({
            "node": node, "conditions": [], "observedGeneration": 1, "controllerVersion": "0.1.0", "documentFormat": reads,
            "localVm": "Off", "updatedAt": "1970-01-01T00:00:00Z"
        });
        Arc::new(serde_json::from_value(status).unwrap())
    };
    let node = |(name, reads): &(&str, Option<u32>)| {
        let node = NodeName::new(*name).unwrap();
        let status = reads.map(|reads| status(&node, reads));
        (node, status)
    };
    Others { living: Some(nodes.iter().map(node).collect()), acted_on }
}

fn awaited(what: &str) -> Option<Awaited> {
    Some(Awaited { what: what.to_owned(), known: true })
}

#[test]
fn a_document_with_something_new_waits_until_every_node_that_lives_can_read_it() {
    let old = living(&[("n1", Some(1)), ("n2", Some(2))], 6);
    assert_eq!(waits_for(&spec(7, 2), &old), awaited("for n1, which runs 0.1.0"));
    let silent = living(&[("n1", None), ("n2", Some(2))], 6);
    assert_eq!(waits_for(&spec(7, 2), &silent), awaited("for n1, which has not said what it runs"));
    assert_eq!(waits_for(&spec(7, 2), &living(&[("n1", Some(2)), ("n2", Some(3))], 6)), None);
    assert_eq!(waits_for(&spec(7, 2), &living(&[("n2", Some(2))], 6)), None, "n1 is dead");
    assert_eq!(waits_for(&spec(7, 1), &old), None, "there is nothing new in it");
}

#[test]
fn a_document_that_was_in_force_anywhere_waits_for_nobody_who_comes_back() {
    let old = living(&[("n1", Some(1))], 7);
    assert_eq!(waits_for(&spec(7, 2), &old), None);
    assert!(waits_for(&spec(8, 2), &old).is_some(), "the next one does");
}

#[test]
fn a_node_that_does_not_see_who_lives_takes_nobody_for_dead_and_goes_back_to_nothing() {
    let blind = Others { living: None, acted_on: 6 };
    let unknown = waits_for(&spec(7, 2), &blind).unwrap();
    assert!(!unknown.known);
    let shown = Shown::Waits { index: 9, generation: 7, awaited: unknown };
    assert_eq!(InForce::default().needs_history(&shown), None);
    assert_eq!(waits_for(&spec(6, 2), &blind), None, "it was in force before");
}

#[test]
fn beside_a_document_that_waits_the_last_one_goes_on_or_comes_from_the_history() {
    let shown =
        || Shown::Waits { index: 9, generation: 3, awaited: awaited("for n1, which runs 0.1.0").unwrap() };
    let mut running = after(&[2]);
    assert_eq!((running.needs_history(&shown()), running.problem(shown())), (None, Some(waits(false))));
    running.offer(good(3));
    assert_eq!(generation(&running), Some(3), "its time has come");
    let mut started = InForce::default();
    assert_eq!(started.needs_history(&shown()), Some(9));
    started.recover(9, Some(Arc::unwrap_or_clone(good(2))));
    assert_eq!((generation(&started), started.problem(shown())), (Some(2), Some(waits(true))));
    let told = news(None, Some(&waits(false)), Some(2)).unwrap();
    assert_eq!(told.0, EventReason::SpecWaits);
}

#[test]
fn a_document_of_the_history_that_waits_is_not_the_one_to_go_on_with() {
    let example = example();
    let record = |generation: u64, format: u32| {
        Entry {
        key: format!("zsha/zsha/history/{generation}"),
        value: json!({
            "generation": generation, "format": format, "document": json_of(&example), "appliedBy": "admin@host",
            "appliedAt": "1970-01-01T00:00:00Z", "command": "apply"
        })
        .to_string(),
        modify_index: generation,
    }
    };
    let history = [record(5, 1), record(6, 2), record(7, 3)];
    let others = living(&[("n1", Some(1))], 5);
    let waits = |stored: &StoredSpec| waits_for(stored, &others).is_some();
    let generation = |reads: u32, waits: &dyn Fn(&StoredSpec) -> bool| {
        newest_usable(&history, example.name(), reads, waits).unwrap().stored.generation
    };
    assert_eq!(generation(3, &waits), 5);
    assert_eq!(generation(3, &|_| false), 7);
    assert_eq!(generation(2, &|_| false), 6, "the highest this build reads");
}
