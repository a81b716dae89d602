//! What is in force by what was seen, and what is said of it.

use jiff::Timestamp;
use serde_json::{Value, json};
use zsha_crds::HaCluster;

use super::*;
use crate::sim::operator::example;

fn stored(generation: u64, document: Value) -> String {
    let (applied_by, message) = ("admin@host".to_owned(), String::new());
    let spec = StoredSpec { generation, document, applied_by, applied_at: Timestamp::UNIX_EPOCH, message };
    serde_json::to_string(&spec).unwrap()
}

fn json_of(document: &HaCluster) -> Value {
    serde_json::to_value(document).unwrap()
}

fn good(generation: u64) -> Arc<Document> {
    let example = example();
    Arc::new(Document::read(&stored(generation, json_of(&example)), example.name()).unwrap())
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
    seen.iter().for_each(|seen| in_force.offer(good(*seen)));
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
        let in_force = InForce::default();
        assert_eq!(in_force.needs_history(&shown), None);
        assert_eq!(in_force.problem(shown), None);
    }
}

#[test]
fn with_nothing_but_a_bad_document_the_history_is_looked_at_once_for_each() {
    let mut in_force = InForce::default();
    assert_eq!(in_force.needs_history(&bad(9)), Some(9));
    assert!(!in_force.recover(9, None));
    assert_eq!(in_force.needs_history(&bad(9)), None, "there is nothing to be found");
    assert_eq!(in_force.problem(bad(9)), invalid(false));
    assert_eq!(in_force.needs_history(&bad(10)), Some(10));
    assert!(in_force.recover(10, Some(Arc::unwrap_or_clone(good(4)))));
    assert_eq!((generation(&in_force), in_force.problem(bad(10))), (Some(4), invalid(true)));
    in_force.offer(good(5));
    assert_eq!((generation(&in_force), in_force.problem(bad(11))), (Some(5), invalid(false)));
}

#[test]
fn what_came_while_the_history_was_looked_at_is_not_replaced_by_it() {
    let mut in_force = after(&[6]);
    assert!(!in_force.recover(9, Some(Arc::unwrap_or_clone(good(7)))));
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
    let newest = newest_usable(&history, example.name()).unwrap();
    assert_eq!((newest.stored.generation, newest.desired.generation), (10, 10));
    assert!(newest_usable(&history[2..3], example.name()).is_none());
    assert!(newest_usable(&[], example.name()).is_none());
}

#[test]
fn what_is_wrong_with_a_document_is_told_with_what_to_do_and_what_is_in_force() {
    let example = example();
    let why = |value: &str| Document::read(value, example.name()).unwrap_err();
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
    ];
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn a_problem_is_news_when_it_begins_when_it_changes_and_when_it_is_over() {
    let (one, other) = (SpecProblem::Gone, SpecProblem::Older { stored: 1, seen: 2 });
    let told = |before: Option<&SpecProblem>, now: Option<&SpecProblem>| {
        news(before, now, Some(2)).map(|(kind, reason, message)| {
            assert!(message.contains("generation 2") || message.contains("Generation 2"), "{message}");
            (kind, reason)
        })
    };
    assert_eq!(told(None, None), None);
    assert_eq!(told(None, Some(&one)), Some((EventType::Warning, "SpecInvalid")));
    assert_eq!(told(Some(&one), Some(&one)), None);
    assert_eq!(told(Some(&one), Some(&other)), Some((EventType::Warning, "SpecInvalid")));
    assert_eq!(told(Some(&other), None), Some((EventType::Normal, "SpecValid")));
}
