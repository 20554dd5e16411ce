//! Keeps what was fetched for a while, and has one task fetch what many want.

use std::{
    collections::HashMap,
    hash::Hash,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long what was fetched is good.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(10 * 60);
/// How long a failure is told again before the next try.
pub(super) const FAILURE_KEPT_FOR: Duration = Duration::from_secs(30);
/// How long nobody can have fetched again what was just fetched: a bad signature, which anybody can send, is a reason
/// to look for a new key, and must not be a way to have others flooded.
pub(super) const RENEWED_AFTER: Duration = Duration::from_secs(60);

/// How new something must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// No older than [`KEPT_FOR`].
    Kept,
    /// Fetched for this wish; or for another one like it, no longer than [`RENEWED_AFTER`] ago.
    Renewed,
}

/// A failure that may be kept.
pub(super) trait Failure: Clone {
    /// Whether it says nothing about what was to be fetched, so that what was known before is still good.
    fn is_passing(&self) -> bool;
}

/// What was fetched, by what it is known by; the least recently used goes when there is too much of it.
pub(super) struct Cache<K, V, E> {
    slots: Mutex<HashMap<K, Entry<V, E>>>,
    entries_max: usize,
}

struct Entry<V, E> {
    slot: Arc<Slot<V, E>>,
    used_at: Instant,
}

/// Whoever holds the lock fetches; the others wait for it and find what was fetched.
type Slot<V, E> = tokio::sync::Mutex<Known<V, E>>;

/// What is known of one thing, and since when.
struct Known<V, E> {
    value: Option<(V, Instant)>,
    failure: Option<(E, Instant)>,
    renewed_at: Option<Instant>,
}

impl<K, V, E> Cache<K, V, E>
where
    K: Eq + Hash + Clone,
    V: Clone + Send + 'static,
    E: Failure + Send + 'static,
{
    /// One for so many entries.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            slots: Mutex::default(),
            entries_max,
        }
    }

    /// What is known of `key`, if that is fresh enough, or else what `fetch` finds.
    ///
    /// # Errors
    /// What `fetch` says, or said not long ago.
    pub(super) async fn get(
        &self,
        key: &K,
        freshness: Freshness,
        fetch: impl Future<Output = Result<V, E>> + Send + 'static,
    ) -> Result<V, E> {
        let Some(slot) = self.slot(key) else {
            return fetch.await;
        };
        let mut known = slot.lock_owned().await;
        if let Some(outcome) = known.outcome(freshness, Instant::now()) {
            return outcome;
        }
        let learning = async move {
            let outcome = fetch.await;
            known.learn(&outcome, freshness, Instant::now());
            outcome
        };
        match freshness {
            // if whoever asked hangs up, whoever waits begins anew
            Freshness::Kept => learning.await,
            // it goes on without whoever asked, or a stranger who hangs up would use up the try of that minute
            Freshness::Renewed => tokio::spawn(learning)
                .await
                .unwrap_or_else(|panic| resume_unwind(panic.into_panic())),
        }
    }

    /// Where something is kept; nowhere if there is no room.
    fn slot(&self, key: &K) -> Option<Arc<Slot<V, E>>> {
        // nobody panics while the lock is held, and if somebody did, the map would still be one
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let used_at = Instant::now();
        if let Some(entry) = slots.get_mut(key) {
            entry.used_at = used_at;
            return Some(Arc::clone(&entry.slot));
        }
        if slots.len() >= self.entries_max {
            make_room(&mut slots);
        }
        if slots.len() >= self.entries_max {
            return None;
        }
        let slot = Arc::new(Slot::new(Known {
            value: None,
            failure: None,
            renewed_at: None,
        }));
        let entry = Entry {
            slot: Arc::clone(&slot),
            used_at,
        };
        slots.insert(key.clone(), entry);
        Some(slot)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.lock().unwrap().len()
    }
}

/// Removes the least recently used entry that nobody is waiting for.
fn make_room<K: Eq + Hash + Clone, V, E>(slots: &mut HashMap<K, Entry<V, E>>) {
    let idle = slots
        .iter()
        .filter(|(_, entry)| Arc::strong_count(&entry.slot) == 1);
    let oldest = idle
        .min_by_key(|(_, entry)| entry.used_at)
        .map(|(key, _)| key.clone());
    if let Some(key) = oldest {
        slots.remove(&key);
    }
}

impl<V: Clone, E: Failure> Known<V, E> {
    fn outcome(&self, freshness: Freshness, now: Instant) -> Option<Result<V, E>> {
        let within = |since: Instant, time| now.duration_since(since) < time;
        let value = self
            .value
            .as_ref()
            .filter(|(_, since)| within(*since, KEPT_FOR))
            .map(|(value, _)| Ok(value.clone()));
        let failure = |time| {
            let failure = self.failure.as_ref();
            failure
                .filter(|(_, since)| within(*since, time))
                .map(|(failure, _)| Err(failure.clone()))
        };
        match freshness {
            Freshness::Kept => value.or_else(|| failure(FAILURE_KEPT_FOR)),
            // what was fetched before the wish does not count, however new it is
            Freshness::Renewed => {
                self.renewed_at.filter(|at| within(*at, RENEWED_AFTER))?;
                failure(RENEWED_AFTER).or(value)
            }
        }
    }

    fn learn(&mut self, outcome: &Result<V, E>, freshness: Freshness, now: Instant) {
        if freshness == Freshness::Renewed {
            self.renewed_at = Some(now);
        }
        match outcome {
            Ok(value) => {
                self.value = Some((value.clone(), now));
                self.failure = None;
            }
            Err(failure) => {
                self.failure = Some((failure.clone(), now));
                if !failure.is_passing() {
                    self.value = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Fault {
        Passing,
        Lasting,
    }

    impl Failure for Fault {
        fn is_passing(&self) -> bool {
            *self == Self::Passing
        }
    }

    /// Something that is fetched, and how often it was.
    struct World {
        cache: Cache<u32, u32, Fault>,
        fetched: Arc<AtomicU32>,
        outcome: Arc<Mutex<Result<(), Fault>>>,
    }

    impl World {
        fn new(entries_max: usize) -> Self {
            Self {
                cache: Cache::new(entries_max),
                fetched: Arc::default(),
                outcome: Arc::new(Mutex::new(Ok(()))),
            }
        }

        /// What a fetch says is the number of fetches so far.
        async fn get(&self, key: u32, freshness: Freshness) -> Result<u32, Fault> {
            let (fetched, outcome) = (Arc::clone(&self.fetched), Arc::clone(&self.outcome));
            let fetch = async move {
                let count = fetched.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::task::yield_now().await;
                outcome.lock().unwrap().clone().map(|()| count)
            };
            self.cache.get(&key, freshness, fetch).await
        }

        fn becomes(&self, outcome: Result<(), Fault>) {
            *self.outcome.lock().unwrap() = outcome;
        }
    }

    async fn advance(duration: Duration) {
        tokio::time::advance(duration).await;
    }

    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_was_fetched_is_kept_for_a_while() {
        let world = World::new(4);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        advance(KEPT_FOR - MOMENT).await;
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        advance(MOMENT).await;
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_once_a_minute_however_often_that_is_asked_for() {
        let world = World::new(4);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        for _ in 0..100 {
            assert_eq!(world.get(1, Freshness::Renewed).await, Ok(2));
        }
        advance(RENEWED_AFTER - MOMENT).await;
        assert_eq!(world.get(1, Freshness::Renewed).await, Ok(2));
        world.becomes(Err(Fault::Passing));
        advance(RENEWED_AFTER).await;
        for _ in 0..100 {
            assert_eq!(world.get(1, Freshness::Renewed).await, Err(Fault::Passing));
        }
        assert_eq!(world.fetched.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_has_it_renewed_no_more_often_than_others_and_for_all_of_them() {
        let world = World::new(4);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        for found in [Ok(2), Err(Fault::Passing)] {
            for _ in 0..100 {
                let mut given_up = Box::pin(world.get(1, Freshness::Renewed));
                assert!(futures_util::poll!(given_up.as_mut()).is_pending());
            }
            assert_eq!(world.get(1, Freshness::Renewed).await, found);
            world.becomes(Err(Fault::Passing));
            advance(RENEWED_AFTER).await;
        }
        assert_eq!(world.fetched.load(Ordering::SeqCst), 3);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_again_for_a_short_while() {
        let world = World::new(4);
        world.becomes(Err(Fault::Lasting));
        assert_eq!(world.get(1, Freshness::Kept).await, Err(Fault::Lasting));
        world.becomes(Ok(()));
        advance(FAILURE_KEPT_FOR - MOMENT).await;
        assert_eq!(world.get(1, Freshness::Kept).await, Err(Fault::Lasting));
        advance(MOMENT).await;
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_passing_failure_leaves_what_was_known_and_a_lasting_one_takes_it() {
        let world = World::new(4);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        advance(RENEWED_AFTER).await;
        world.becomes(Err(Fault::Passing));
        assert_eq!(world.get(1, Freshness::Renewed).await, Err(Fault::Passing));
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        advance(RENEWED_AFTER).await;
        world.becomes(Err(Fault::Lasting));
        assert_eq!(world.get(1, Freshness::Renewed).await, Err(Fault::Lasting));
        assert_eq!(world.get(1, Freshness::Kept).await, Err(Fault::Lasting));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_at_once_share_one_fetch() {
        let world = World::new(4);
        let asked = (0..50).map(|_| world.get(1, Freshness::Kept));
        let outcomes = futures_util::future::join_all(asked).await;
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_is_given_up_is_taken_over_by_who_waits() {
        let world = World::new(4);
        let mut given_up = Box::pin(world.get(1, Freshness::Kept));
        assert!(futures_util::poll!(given_up.as_mut()).is_pending());
        let mut waiting = Box::pin(world.get(1, Freshness::Kept));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        drop(given_up);
        assert_eq!(waiting.await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_recently_used_goes_first() {
        let world = World::new(3);
        for key in [1, 2, 3] {
            assert_eq!(world.get(key, Freshness::Kept).await, Ok(key));
            advance(MOMENT).await;
        }
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        assert_eq!(world.get(4, Freshness::Kept).await, Ok(4));
        assert_eq!(world.cache.len(), 3);
        assert_eq!(world.get(1, Freshness::Kept).await, Ok(1));
        assert_eq!(world.get(2, Freshness::Kept).await, Ok(5));
    }

    #[tokio::test(start_paused = true)]
    async fn more_at_once_than_there_is_room_for_are_fetched_and_not_kept() {
        let world = World::new(2);
        let asked = (0..10).map(|key| world.get(key, Freshness::Kept));
        let outcomes = futures_util::future::join_all(asked).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(
            (world.cache.len(), world.fetched.load(Ordering::SeqCst)),
            (2, 10)
        );
    }
}
