//! Histories of real documents: edits of every kind, and all their changes as they may travel.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each user has need of a part of it, and a test that meets the unexpected ends"
)]

use automerge::{
    Automerge, Change, ObjType, ROOT, ReadDoc, Value,
    transaction::{Transactable, Transaction},
};

use super::dice::Dice;

/// Makes one change, or none where there is nothing to delete.
pub fn edit_any(doc: &mut Automerge, dice: &mut Dice) {
    let mut tx = doc.transaction();
    for _ in 0..=dice.below(3) {
        edit_once(&mut tx, dice);
    }
    tx.commit();
}

fn edit_once(tx: &mut Transaction<'_>, dice: &mut Dice) {
    let key = format!("key {}", dice.below(4));
    match dice.below(6) {
        0 => drop(tx.put_object(ROOT, key, ObjType::Map).unwrap()),
        1 => drop(tx.put_object(ROOT, key, ObjType::List).unwrap()),
        2 => tx.delete(ROOT, key).unwrap(),
        // long enough to be deflated
        3 => tx.put(ROOT, key, "as before ".repeat(100)).unwrap(),
        4 => edit_within(tx, &key, dice),
        _ => tx.put(ROOT, key, dice.roll()).unwrap(),
    }
}

/// Edits the object under a key, if there is one.
fn edit_within(tx: &mut Transaction<'_>, key: &str, dice: &mut Dice) {
    let Some((Value::Object(kind), object)) = tx.get(ROOT, key).unwrap() else {
        return;
    };
    match kind {
        ObjType::Map => tx.put(&object, "inner", dice.roll()).unwrap(),
        ObjType::List | ObjType::Text | ObjType::Table => {
            let at = dice.below(tx.length(&object) + 1);
            tx.insert(&object, at, dice.roll()).unwrap();
        }
    }
}

/// A change's chunk, deflated if it is long, or never.
pub fn chunk_of(change: &Change, dice: &mut Dice) -> Vec<u8> {
    if dice.one_in(2) {
        change.raw_bytes().to_vec()
    } else {
        change.clone().bytes().into_owned()
    }
}
